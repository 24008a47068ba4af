r"""Measure whether edits carry over to variants of their sources, and stay away from other sentences.

    hf-editable generality --model_name_or_path baseline editable --edits_dir edits --data_dir data --num_edits 100 \
        --output_dir results/generality
"""

from dataclasses import dataclass, field
from functools import partial

from ..shared.language_options import LanguageArguments
from ..shared.measuring import MeasuringArguments, NamedModels, measure_models
from ..shared.running import parse_arguments, run_main


@dataclass
class GeneralityArguments(MeasuringArguments):
    """Which variants of the sources to translate."""

    kinds: list[str] | None = field(
        default=None,
        metadata={
            "help": "Kinds of variants: some of first_letter, upper_case, no_punctuation, other_punctuation, typo, "
            "number, neighbour (the nearest other source of --split). Default: all."
        },
    )
    number_words: list[str] | None = field(
        default=None, metadata={"help": "Number words of the source language. Default: German ones."}
    )


def _measure(argv: list[str] | None) -> None:
    kinds = (GeneralityArguments, NamedModels, LanguageArguments)
    arguments, models, languages = parse_arguments(kinds, argv, __doc__)
    from ...evaluation.generality import measure_generality

    given = {key: getattr(arguments, key) for key in ("kinds", "number_words") if getattr(arguments, key) is not None}
    measure_models(arguments, models, languages, partial(measure_generality, **given), argv)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable generality`; returns the exit code."""
    return run_main(_measure, argv)
