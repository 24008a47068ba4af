"""Compare ways to edit one model on the same edits and test set: its editor, with penalties, fine-tuning, a table."""

from dataclasses import dataclass, field

from ...errors import EditableValueError
from ..shared.language_options import LanguageArguments
from ..shared.loading import load_data, load_edits
from ..shared.measuring import (
    METHODS,
    MeasuringArguments,
    MethodArguments,
    ScoreArguments,
    command_line,
    load_editable,
    report_folder,
    write_reports,
)
from ..shared.running import parse_arguments, run_main


@dataclass(kw_only=True)
class MethodsArguments(MeasuringArguments):
    """Which model to edit, and with what."""

    model_name_or_path: str = field(metadata={"help": "Model to edit: a folder, or a name on the Hub."})
    methods: list[str] = field(
        default_factory=lambda: [name for name in METHODS if name != "lora"],
        metadata={"help": f"What to compare: some of {', '.join(METHODS)}. Default: all but lora, which needs PEFT."},
    )

    def __post_init__(self):
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods or len(set(self.methods)) != len(self.methods):
            raise EditableValueError(
                f"--methods {' '.join(self.methods)}: choose some of {', '.join(METHODS)}, each once."
            )


def _compare(argv: list[str] | None) -> None:
    kinds = (MethodsArguments, ScoreArguments, MethodArguments, LanguageArguments)
    arguments, scores, settings, languages = parse_arguments(kinds, argv, __doc__)
    from ...evaluation.single_edits import evaluate_edits
    from ...reporting.methods_plot import plot_methods
    from ...runs.files import check_folder
    from ...runs.processes import on_main

    check_folder(arguments.output_dir)
    test_set = load_data(arguments.data_dir, arguments.split)[arguments.split]
    edits = load_edits(arguments.edits_dir)
    model, tokenizer = load_editable(arguments.model_name_or_path, languages)
    # All are made before the first one runs, so that what is missing is said at once.
    made = {name: settings.make(name, tokenizer, arguments) for name in arguments.methods}
    options = {**arguments.options(), **vars(scores)}
    reports = []
    for name, method in made.items():
        own = {"name": name, "output_dir": report_folder(arguments.output_dir, name), "method": method}
        reports.append(evaluate_edits(model, tokenizer, edits, test_set, **own, **options))
    on_main(lambda: write_reports(arguments.output_dir, reports, command_line(argv), "methods", plot_methods))


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/compare_methods.py`; returns the exit code."""
    return run_main(_compare, argv)
