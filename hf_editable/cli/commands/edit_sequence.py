r"""Make edits one after the other on one model, and measure what they cost and whether the earlier ones hold.

    hf-editable sequence --model_name_or_path baseline editable --edits_dir edits --data_dir data --num_edits 100 \
        --output_dir results/sequence
"""

from dataclasses import dataclass, field
from functools import partial

from ..shared.language_options import LanguageArguments
from ..shared.measuring import MeasuringArguments, NamedModels, ScoreArguments, measure_models
from ..shared.running import parse_arguments, run_main


@dataclass
class SequenceArguments(MeasuringArguments):
    """Which edits to make on top of each other, and when to measure."""

    counts: list[int] = field(
        default_factory=lambda: [1, 2, 5, 10, 20, 50, 100],
        metadata={
            "help": "After how many edits to measure. Before the first and after the last one it is measured anyway."
        },
    )


def _edit(argv: list[str] | None) -> None:
    kinds = (SequenceArguments, NamedModels, ScoreArguments, LanguageArguments)
    arguments, models, scores, languages = parse_arguments(kinds, argv, __doc__)
    from ...evaluation.sequences import edit_sequence

    measure = partial(edit_sequence, counts=arguments.counts, **vars(scores))
    measure_models(arguments, models, languages, measure, argv)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable sequence`; returns the exit code."""
    return run_main(_edit, argv)
