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
from ..runs.files import check_folder
from ..tail.decoder_tail import Tail
from .edit_variants import EditVariants
from .settings import EvaluationSettings, edit_config, own_options, split_options
from .single_edits import evaluate_edits
from .study import EDIT_COLUMNS, choose_rows, saved
from .tuning import tune_editor


logger = logging.get_logger(__name__)


def compare_variants(
    model: EditableMixin,
    tokenizer: PreTrainedTokenizerBase,
    variants: EditVariants,
    evaluation: EvaluationSettings | None = None,
    *,
    validation_edits: Dataset,
    validation_set: Dataset,
    test_edits: Dataset,
    test_set: Dataset,
    output_dir: str | os.PathLike,
    num_validation_edits: int | None = None,
    num_validation_sentences: int | None = 200,
    target_success: float = 0.95,
    refinements: int = 2,
    max_steps: int = 10,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> Comparison:
    """
    Tune each variant on validation edits ([`tune_editor`]), then measure it on test edits ([`evaluate_edits`]).

    An interrupted comparison goes on where it ended. Every variant has a folder of its own in `output_dir`.

    Args:
        model ([`EditableMixin`]): the model to edit. It is not changed.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        variants (`dict[str, dict[str, Any]]`):
            Fields of [`EditConfig`] by name, as [`optimizer_variants`] and [`parameter_variants`] give them.
        evaluation ([`EvaluationSettings`], *optional*):
            How to measure. Its batch size and seed are those of tuning too; names and folders are the variants' own.
        validation_edits ([`~datasets.Dataset`]): edits to tune with.
        validation_set ([`~datasets.Dataset`]): sentence pairs to tune with.
        test_edits ([`~datasets.Dataset`]): edits to measure with; none of a source of `validation_edits`.
        test_set ([`~datasets.Dataset`]): sentence pairs to measure with.
        output_dir (`str`): folder for the results; see [`Comparison`].
        num_validation_edits (`int`, *optional*): how many validation edits to make; `None` makes all.
        num_validation_sentences (`int`, *optional*, defaults to `200`): how many pairs to tune with.
        target_success (`float`, *optional*, defaults to `0.95`): share of the validation edits that must succeed.
        refinements (`int`, *optional*, defaults to `2`): see [`tune_editor`].
        max_steps (`int`, *optional*, defaults to `10`): the most steps of an edit.
        settings (`dict[str, Any]`, *optional*): what else to keep with the results, such as the command.
        options (*optional*): fields of [`EvaluationSettings`], and what else [`evaluate_edits`] takes.

    Returns:
        [`Comparison`].

    Raises:
        EditableTypeError: if the model is not editable, or a name is neither.
        EditableValueError:
            if there is no variant, a source is among the validation edits and the test edits, or what
            [`tune_editor`] and [`evaluate_edits`] refuse.
    """
    check_model(model)
    evaluation, others = split_options(evaluation, options)
    own = own_options(evaluate_edits)
    edit_config(compare_variants, model, {name: value for name, value in others.items() if name not in own})
    if not variants:
        raise EditableValueError("There is nothing to compare; give at least one variant.")
    check_folder(output_dir)
    check_apart(validation_edits, test_edits)
    tuning = {"num_edits": num_validation_edits, "num_sentences": num_validation_sentences}
    tuning |= {"target_success": target_success, "refinements": refinements}
    tuning |= {"batch_size": evaluation.batch_size, "seed": evaluation.seed}
    compared = []
    for name, fields in variants.items():
        folder, overrides = Path(output_dir) / name, {**fields, "max_steps": max_steps}
        tuned = tune_editor(
            model, tokenizer, validation_edits, validation_set, output_dir=folder, **tuning, **overrides
        )
        if not tuned.reached:
            logger.warning(
                f"{name}: {target_success:.0%} of the edits succeed with none of {len(tuned.tried)} settings."
            )
        measuring = dataclasses.replace(evaluation, name=name, output_dir=folder)
        given = {**overrides, **tuned.chosen.coefficients, **others}
        report = evaluate_edits(model, tokenizer, test_edits, test_set, measuring, **given)
        moved = Tail(model, model.edit_config.replace(**overrides)).parameters.values()
        size = sum(tensor.numel() for tensor in moved)
        compared.append(ComparedVariant(name, fields, size, tuned, report.summary))
    how = {name: compared[0].summary[name] for name in ("seed", "machine", "versions")}
    how |= {"target_success": target_success, "refinements": refinements, **(settings or {})}
    how["num_validation_edits"] = min(num_validation_edits or math.inf, len(validation_edits))
    how["num_validation_sentences"] = min(num_validation_sentences or math.inf, len(validation_set))
    return saved(Comparison(compared, how), output_dir)


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
