r"""Measure what single edits cost everything else, for one model or several on the same edits: the paper's Table 6.

    hf-editable evaluate --model_name_or_path baseline editable --edits_dir edits --data_dir data --num_edits 100 \
        --output_dir results/drawdown
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import EditableValueError
from ..shared.language_options import LanguageArguments
from ..shared.measuring import MeasuringArguments, NamedModels, ScoreArguments, measure_models
from ..shared.running import parse_arguments, run_main


if TYPE_CHECKING:
    from ...modeling.mixin import EditableMixin
    from ...reporting.edit_report import EditReport


@dataclass
class EvaluationArguments(MeasuringArguments):
    """With which edits to measure, and what to translate after each."""

    record_gigabytes: float = field(
        default=4.0,
        metadata={
            "help": "The most memory, in 10^9 bytes, for the record of the search, from which translations after an "
            "edit are found. 0: no record; the whole split is decoded anew after every edit."
        },
    )
    verify: int = field(
        default=0,
        metadata={
            "help": "How many translations to decode anew after every edit, to check those found from the record."
        },
    )
    update_cards: bool = field(
        default=False,
        metadata={
            "help": "Put the numbers into the card (README.md) in each model's folder. A card that a person wrote is "
            "kept as it is."
        },
    )

    def check_cards(self, models: NamedModels) -> None:
        """
        Check that there are folders for the cards that are to be updated.

        Raises:
            EditableValueError: if cards are to be updated of models that are no folders.
        """
        elsewhere = [model for model in models.model_name_or_path if not Path(model).is_dir()]
        if self.update_cards and elsewhere:
            raise EditableValueError(f"--update_cards writes into folders, which {elsewhere} are not. Leave it out.")


def _measure(
    arguments: EvaluationArguments, models: NamedModels, model: "EditableMixin", *given: Any, **options: Any
) -> "EditReport":
    from transformers.utils import logging

    from ...evaluation.single_edits import evaluate_edits
    from ...hub.model_card import update_card
    from ...runs.processes import on_main

    record = {"record_gigabytes": arguments.record_gigabytes, "verify": arguments.verify}
    report = evaluate_edits(model, *given, **record, **options)
    path = models.path(options["name"])
    data = Path(arguments.data_dir).name
    if arguments.update_cards and not on_main(lambda: update_card(model, path, report.card(), data)):
        logging.get_logger(__name__).warning(f"The card of {path} was written by a person, so it is kept as it is.")
    return report


def _evaluate(argv: list[str] | None) -> None:
    kinds = (EvaluationArguments, NamedModels, ScoreArguments, LanguageArguments)
    arguments, models, scores, languages = parse_arguments(kinds, argv, __doc__)
    arguments.check_cards(models)
    measure_models(arguments, models, languages, partial(_measure, arguments, models, **vars(scores)), argv)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable evaluate`; returns the exit code."""
    return run_main(_evaluate, argv)
