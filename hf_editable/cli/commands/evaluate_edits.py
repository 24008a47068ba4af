"""Measure single edits of one or several models on the same edits and test set: the paper's Table 6."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import EditableValueError
from ..shared.language_options import LanguageArguments
from ..shared.measuring import MeasuringArguments, MethodArguments, ModelsArguments, ScoreArguments, measure_models
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
            "help": "The most memory for the record of the search, in 10^9 bytes. 0 decodes the whole split anew "
            "after every edit."
        },
    )
    verify: int = field(
        default=0, metadata={"help": "Translations to decode anew after every edit, to hold the record against."}
    )
    update_cards: bool = field(
        default=False,
        metadata={
            "help": "Whether to put the numbers into the card (README.md) in each model's folder. A card that a "
            "person wrote is kept as it is."
        },
    )

    def check_cards(self, models: ModelsArguments) -> None:
        """
        Check that there are folders for the cards that are to be updated.

        Raises:
            EditableValueError: if cards are to be updated of models that are no folders.
        """
        elsewhere = [model for model in models.model_name_or_path if not Path(model).is_dir()]
        if self.update_cards and elsewhere:
            raise EditableValueError(f"--update_cards writes into folders, which {elsewhere} are not. Leave it out.")


def _measure(
    arguments: EvaluationArguments, models: ModelsArguments, model: "EditableMixin", *given: Any, **options: Any
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
    kinds = (EvaluationArguments, ModelsArguments, ScoreArguments, MethodArguments, LanguageArguments)
    arguments, models, scores, method, languages = parse_arguments(kinds, argv, __doc__)
    arguments.check_cards(models)
    measure_models(arguments, models, method, languages, partial(_measure, arguments, models, **vars(scores)), argv)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/evaluate_edits.py`; returns the exit code."""
    return run_main(_evaluate, argv)
