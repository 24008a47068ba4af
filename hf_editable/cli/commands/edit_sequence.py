"""Make edits one after the other on one model, and measure what they cost and whether the earlier ones hold."""

from dataclasses import dataclass, field
from functools import partial

from ..shared.language_options import LanguageArguments
from ..shared.measuring import MeasuringArguments, MethodArguments, ModelsArguments, ScoreArguments, measure_models
from ..shared.running import parse_arguments, run_main


@dataclass
class SequenceArguments(MeasuringArguments):
    """Which edits to make on top of each other, and when to measure."""

    counts: list[int] = field(
        default_factory=lambda: [1, 2, 5, 10, 20, 50, 100],
        metadata={"help": "After how many edits to measure; also before the first, and after the last."},
    )


def _edit(argv: list[str] | None) -> None:
    kinds = (SequenceArguments, ModelsArguments, ScoreArguments, MethodArguments, LanguageArguments)
    arguments, models, scores, method, languages = parse_arguments(kinds, argv, __doc__)
    from ...evaluation.sequences import edit_sequence

    measure = partial(edit_sequence, counts=arguments.counts, **vars(scores))
    measure_models(arguments, models, method, languages, measure, argv)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/edit_sequence.py`; returns the exit code."""
    return run_main(_edit, argv)
