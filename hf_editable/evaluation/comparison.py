"""Editors, or edited parameters, next to each other: each tuned on validation edits, then measured on test edits."""

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..errors import EditableValueError
from ..modeling.mixin import EditableMixin, check_model
from ..reporting.comparison_report import ComparedVariant, Comparison
from ..reporting.tuned_editor import TunedEditor
from ..runs.files import check_folder
from ..tail.decoder_tail import Tail
from .edit_variants import EditVariants
from .settings import EvaluationSettings, edit_config, own_options, split_options
from .single_edits import evaluate_edits
from .study import EDIT_COLUMNS, choose_rows, saved
from .tuning import TuningSettings, tune_editor


logger = logging.get_logger(__name__)


def compare_variants(
    model: EditableMixin,
    tokenizer: PreTrainedTokenizerBase,
    variants: EditVariants,
    settings: EvaluationSettings | None = None,
    *,
    validation_edits: Dataset,
    validation_set: Dataset,
    test_edits: Dataset,
    test_set: Dataset,
    output_dir: str | os.PathLike,
    tuning: TuningSettings | None = None,
    max_steps: int = 10,
    command: str | None = None,
    **options: Any,
) -> Comparison:
    """
    Tune each variant on validation edits ([`tune_editor`]), then measure it on test edits ([`evaluate_edits`]).
    An interrupted comparison goes on where it ended. Every variant has a folder in `output_dir`.

    Args:
        model ([`EditableMixin`]): the model to edit. It is not changed.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        variants (`dict[str, dict[str, Any]]`): see [`optimizer_variants`] and [`parameter_variants`].
        settings ([`EvaluationSettings`], *optional*): how to measure; its batch size and seed are for tuning too.
        validation_edits, validation_set ([`~datasets.Dataset`]): edits, and sentence pairs, to tune with.
        test_edits, test_set ([`~datasets.Dataset`]): those to measure with; edits of other sources.
        output_dir (`str`): folder for the results; see [`Comparison`].
        tuning ([`TuningSettings`], *optional*): how to tune.
        max_steps (`int`, *optional*, defaults to `10`): the most steps of an edit.
        command (`str`, *optional*): what made the comparison, to keep with the results.
        options (*optional*): fields of [`EvaluationSettings`], and what else [`evaluate_edits`] takes.

    Raises:
        EditableTypeError: if the model is not editable, or a name is neither.
        EditableValueError: if there is no variant, a source is in both kinds of edits, or tuning or measuring refuse.
    """
    check_model(model)
    settings, others = split_options(settings, options)
    own = own_options(evaluate_edits)
    edit_config(compare_variants, model, {name: value for name, value in others.items() if name not in own})
    if not variants:
        raise EditableValueError("There is nothing to compare; give at least one variant.")
    check_folder(output_dir)
    check_apart(validation_edits, test_edits)
    tuning = dataclasses.replace(tuning or TuningSettings(), batch_size=settings.batch_size, seed=settings.seed)
    compared = []
    for name, fields in variants.items():
        folder, overrides = Path(output_dir) / name, {**fields, "max_steps": max_steps}
        how = dataclasses.replace(tuning, output_dir=folder)
        tuned = tune_editor(model, tokenizer, validation_edits, validation_set, how, **overrides)
        _warn_of_missed(name, tuned, tuning.target_success)
        how = dataclasses.replace(settings, name=name, output_dir=folder)
        given = {**overrides, **tuned.chosen.coefficients, **others}
        report = evaluate_edits(model, tokenizer, test_edits, test_set, how, **given)
        tail = Tail(model, model.edit_config.replace(**overrides))
        size = sum(tensor.numel() for tensor in tail.parameters.values())
        compared.append(ComparedVariant(name, fields, size, tuned, report.summary))
    how = _settings(compared, tuning, (len(validation_edits), len(validation_set)), command)
    return saved(Comparison(compared, how), output_dir)


def _warn_of_missed(name: str, tuned: TunedEditor, target_success: float) -> None:
    if not tuned.reached:
        logger.warning(f"{name}: {target_success:.0%} of the edits succeed with none of {len(tuned.tried)} settings.")


def _settings(
    compared: list[ComparedVariant], tuning: TuningSettings, numbers: tuple[int, int], command: str | None
) -> dict[str, Any]:
    """How all variants were compared; `numbers` are those of validation edits and validation sentences."""
    how = {name: compared[0].summary[name] for name in ("seed", "machine", "versions")}
    how |= {"target_success": tuning.target_success, "refinements": tuning.refinements}
    how |= {} if command is None else {"command": command}
    how["num_validation_edits"] = min(tuning.num_edits or math.inf, numbers[0])
    how["num_validation_sentences"] = min(tuning.num_sentences or math.inf, numbers[1])
    return how


def check_apart(validation_edits: Dataset, test_edits: Dataset) -> None:
    """
    Raises:
        EditableValueError: if a source is in both: what is chosen for it would be measured with it.
    """
    edits = {"validation_edits": validation_edits, "test_edits": test_edits}
    sources = [
        {row["source"].strip() for row in choose_rows(name, rows, EDIT_COLUMNS, None, 0).values()}
        for name, rows in edits.items()
    ]
    if common := sources[0] & sources[1]:
        raise EditableValueError(
            f"{len(common)} sources are among the validation edits and the test edits, such as {min(common)[:60]!r}. "
            "Coefficients must not be tuned on what they are measured with: mine validation edits from another split."
        )
