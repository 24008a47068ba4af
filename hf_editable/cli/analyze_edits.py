"""Which test sentences single edits change, and how alike the edits of a model are: the paper's section 4.2."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EditableValueError
from . import parse_arguments, run_main
from .languages import LanguageArguments
from .loading import load_data, load_edits, load_model, load_tokenizer
from .measuring import command_line


if TYPE_CHECKING:
    from datasets import Dataset

    from ..evaluation.analysis import EditAnalysis


@dataclass
class AnalysisArguments:
    """Which models to edit, with which edits, and on which sentences to look at their predictions."""

    model_name_or_path: list[str] = field(metadata={"help": "Models to compare: folders, or names on the Hub."})
    edits_dir: str = field(metadata={"help": "Folder of mined edits."})
    data_dir: str = field(metadata={"help": "Folder of prepared data: splits with columns source and target."})
    output_dir: str = field(metadata={"help": "Folder for the results. An interrupted run goes on where it ended."})
    names: list[str] | None = field(
        default=None, metadata={"help": "What to call the models. Default: the last part of their paths."}
    )
    evaluation_dir: str | None = field(
        default=None,
        metadata={
            "help": "Output folder of evaluate_edits.py for the same models, names and edits: "
            "its drawdowns colour the edits in the picture. Default: their KL colours them."
        },
    )
    split: str = field(default="test", metadata={"help": "Split whose predictions are compared."})
    num_edits: int | None = field(default=None, metadata={"help": "Edits to make, chosen at random. Default: all."})
    num_test: int | None = field(
        default=None, metadata={"help": "Sentences to predict, chosen at random. Default: all."}
    )
    learning_rate: float | None = field(default=None, metadata={"help": "Step size of edits. Default: the model's."})
    max_steps: int | None = field(default=None, metadata={"help": "The most steps of an edit. Default: the model's."})
    seed: int = field(
        default=0, metadata={"help": "Seed of the choices at random, of the bootstrap and of the t-SNE."}
    )

    def labels(self) -> list[str]:
        """
        A name for each model.

        Raises:
            EditableValueError: if there are more or fewer names than models, or two are the same.
        """
        labels = self.names or [Path(model).name for model in self.model_name_or_path]
        if len(labels) != len(self.model_name_or_path) or len(set(labels)) != len(labels):
            raise EditableValueError(
                f"--names {' '.join(labels)}: {len(self.model_name_or_path)} models need as many names, all different."
            )
        return labels


def _analyze_model(
    arguments: AnalysisArguments, languages: LanguageArguments, path: str, name: str, test_set: "Dataset"
) -> "EditAnalysis":
    from ..evaluation import EditReport
    from ..evaluation.analysis import analyze_edits
    from ..evaluation.analysis_report import add_drawdowns
    from ..processes import on_main

    folder = name.replace("/", "_")
    report = None
    if arguments.evaluation_dir is not None:
        report = on_main(lambda: EditReport.load(Path(arguments.evaluation_dir) / folder))
    tokenizer, model = load_tokenizer(path), load_model(path)
    languages.apply(model, tokenizer)
    given = {key: getattr(arguments, key) for key in ("num_edits", "num_test", "seed")}
    overrides = {key: getattr(arguments, key) for key in ("learning_rate", "max_steps")}
    given |= {key: value for key, value in overrides.items() if value is not None}
    edits, output_dir = load_edits(arguments.edits_dir), Path(arguments.output_dir) / folder
    analysis = analyze_edits(model, tokenizer, edits, test_set, name=name, output_dir=output_dir, **given)
    if report is not None:
        add_drawdowns(analysis, report)
    return analysis


def _write(output_dir: str, analyses: "list[EditAnalysis]", command: str) -> None:
    """Write the analyses, with the command that made them, and their tables and picture."""
    from ..evaluation.analysis import ANALYSIS_NAME
    from ..evaluation.analysis_report import describe_picture, format_analyses, plot_analyses
    from ..files import whole_folder

    for analysis in analyses:
        analysis.summary["command"] = command
        analysis.save(Path(output_dir) / analysis.summary["name"].replace("/", "_"))
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
        (folder / ANALYSIS_NAME).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        plot_analyses(analyses, folder / "analysis.png")
    print(tables, end="")


def _analyze(argv: list[str] | None) -> None:
    from ..files import check_folder
    from ..processes import on_main

    arguments, languages = parse_arguments([AnalysisArguments, LanguageArguments], argv, __doc__)
    check_folder(arguments.output_dir)
    labels, test_set = arguments.labels(), load_data(arguments.data_dir, arguments.split)[arguments.split]
    command = command_line(argv)
    models = zip(arguments.model_name_or_path, labels, strict=True)
    analyses = [_analyze_model(arguments, languages, path, name, test_set) for path, name in models]
    on_main(lambda: _write(arguments.output_dir, analyses, command))


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/analyze_edits.py`; returns the exit code."""
    return run_main(_analyze, argv)
