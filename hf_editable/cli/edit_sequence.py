"""Make edits one after the other on one model, and measure what they cost and whether the earlier ones hold."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from . import parse_arguments, run_main
from .languages import LanguageArguments
from .loading import load_data, load_edits
from .measuring import MeasuringArguments, MethodArguments, ModelsArguments, ScoreArguments, measure_models


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..evaluation import SequenceReport
    from ..evaluation.methods import EditMethod
    from ..modeling import EditableMixin


@dataclass
class SequenceArguments(MeasuringArguments):
    """Which edits to make on top of each other, and when to measure."""

    counts: list[int] = field(
        default_factory=lambda: [1, 2, 5, 10, 20, 50, 100],
        metadata={"help": "After how many edits to measure; also before the first, and after the last."},
    )


def _measure(
    arguments: SequenceArguments,
    scores: ScoreArguments,
    model: "EditableMixin",
    tokenizer: "PreTrainedTokenizerBase",
    name: str,
    folder: Path,
    method: "EditMethod | None",
) -> "SequenceReport":
    from ..evaluation import edit_sequence

    test_set = load_data(arguments.data_dir, arguments.split)[arguments.split]
    shared = {"name": name, "output_dir": folder, "method": method, "counts": arguments.counts}
    options = {**arguments.options(), **vars(scores), **shared}
    return edit_sequence(model, tokenizer, load_edits(arguments.edits_dir), test_set, **options)


def _edit(argv: list[str] | None) -> None:
    kinds = (SequenceArguments, ModelsArguments, ScoreArguments, MethodArguments, LanguageArguments)
    arguments, models, scores, method, languages = parse_arguments(kinds, argv, __doc__)
    measure_models(arguments, models, method, languages, partial(_measure, arguments, scores), argv)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/edit_sequence.py`; returns the exit code."""
    return run_main(_edit, argv)
