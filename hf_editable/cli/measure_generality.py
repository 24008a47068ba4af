"""Measure whether edits carry over to variants of their sources, and stay away from other sentences."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from . import parse_arguments, run_main
from .languages import LanguageArguments
from .loading import load_data, load_edits
from .measuring import MeasuringArguments, MethodArguments, ModelsArguments, measure_models


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..evaluation import GeneralityReport
    from ..evaluation.methods import EditMethod
    from ..modeling import EditableMixin


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


def _measure(
    arguments: GeneralityArguments,
    model: "EditableMixin",
    tokenizer: "PreTrainedTokenizerBase",
    name: str,
    folder: Path,
    method: "EditMethod | None",
) -> "GeneralityReport":
    from ..evaluation import measure_generality

    corpus = load_data(arguments.data_dir, arguments.split)[arguments.split]
    given = {key: getattr(arguments, key) for key in ("kinds", "number_words") if getattr(arguments, key) is not None}
    options = {**arguments.options(), **given, "name": name, "output_dir": folder, "method": method}
    return measure_generality(model, tokenizer, load_edits(arguments.edits_dir), corpus, **options)


def _measure_all(argv: list[str] | None) -> None:
    kinds = (GeneralityArguments, ModelsArguments, MethodArguments, LanguageArguments)
    arguments, models, method, languages = parse_arguments(kinds, argv, __doc__)
    measure_models(arguments, models, method, languages, partial(_measure, arguments), argv)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/measure_generality.py`; returns the exit code."""
    return run_main(_measure_all, argv)
