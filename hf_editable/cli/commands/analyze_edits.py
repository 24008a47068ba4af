r"""Show which test sentences single edits change, and how alike the edits of a model are: the paper's section 4.2.

    hf-editable analyze --model_name_or_path baseline editable --edits_dir edits --data_dir data --num_edits 100 \
        --evaluation_dir results/drawdown --output_dir results/analysis
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..shared.editor_options import EditorArguments
from ..shared.language_options import LanguageArguments
from ..shared.loading import load_data, load_edits
from ..shared.measuring import EditsArguments, NamedModels, command_line, load_editable, report_folder
from ..shared.running import parse_arguments, run_main, tell


if TYPE_CHECKING:
    from datasets import Dataset

    from ...reporting.analysis_report import EditAnalysis


@dataclass
class AnalysisArguments(EditorArguments, EditsArguments):
    """With which edits, and on which sentences to look at the models' predictions."""

    evaluation_dir: str | None = field(
        default=None,
        metadata={
            "help": "Output folder of hf-editable evaluate for the same models, names and edits: the drawdowns in "
            "it colour the edits in the picture. Default: their KL does."
        },
    )
    num_test: int | None = field(
        default=None, metadata={"help": "Sentences to predict, chosen at random. Default: all."}
    )


def _analyze_model(
    arguments: AnalysisArguments, languages: LanguageArguments, path: str, name: str, test_set: "Dataset"
) -> "EditAnalysis":
    from ...evaluation.analysis import analyze_edits
    from ...reporting.analysis_plots import add_drawdowns
    from ...reporting.edit_report import EditReport
    from ...runs.processes import on_main

    report = None
    if arguments.evaluation_dir is not None:
        report = on_main(lambda: EditReport.load(report_folder(arguments.evaluation_dir, name)))
    model, tokenizer = load_editable(path, languages)
    given = {key: getattr(arguments, key) for key in ("num_edits", "num_test", "seed")} | arguments.overrides()
    edits, output_dir = load_edits(arguments.edits_dir), report_folder(arguments.output_dir, name)
    analysis = analyze_edits(model, tokenizer, edits, test_set, name=name, output_dir=output_dir, **given)
    if report is not None:
        add_drawdowns(analysis, report)
    return analysis


def _write(output_dir: str, analyses: "list[EditAnalysis]", command: str) -> None:
    """Write the analyses, with the command that made them, and their tables and picture."""
    from ...reporting.analysis_plots import describe_picture, format_analyses, plot_analyses
    from ...reporting.analysis_report import ANALYSIS_NAME
    from ...runs.files import whole_folder, write_json

    for analysis in analyses:
        analysis.summary["command"] = command
        analysis.save(report_folder(output_dir, analysis.summary["name"]))
    tables = format_analyses(analyses)
    content = {
        "title": "What edits change",
        "command": command,
        **{key: analyses[0].summary[key] for key in ("seed", "versions", "machine")},
        "pictures": {"analysis.png": describe_picture(analyses)},
        "models": [analysis.summary for analysis in analyses],
    }
    with whole_folder(output_dir) as folder:
        (folder / "table.md").write_text(tables, encoding="utf-8")
        write_json(folder / ANALYSIS_NAME, content)
        plot_analyses(analyses, folder / "analysis.png")
    tell(tables.rstrip("\n"), models=content["models"], output_dir=output_dir)


def _analyze(argv: list[str] | None) -> None:
    from ...runs.processes import on_main

    named, arguments, languages = parse_arguments([NamedModels, AnalysisArguments, LanguageArguments], argv, __doc__)
    labels, test_set = named.labels(), load_data(arguments.data_dir, arguments.split)[arguments.split]
    command = command_line(argv)
    models = zip(named.model_name_or_path, labels, strict=True)
    analyses = [_analyze_model(arguments, languages, path, name, test_set) for path, name in models]
    on_main(lambda: _write(arguments.output_dir, analyses, command))


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable analyze`; returns the exit code."""
    return run_main(_analyze, argv)
