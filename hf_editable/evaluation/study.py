"""What all studies share: the rows they choose, the edits they make, and what their rows depend on."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset
from transformers.utils import logging

from ..checks import check_count
from ..data.collator import DataCollatorForEditableSeq2Seq
from ..decoding.generation import resolve_max_new_tokens
from ..editors.result import EditResult
from ..errors import EditableValueError, NonFiniteEditError
from ..mining.mined_edits import choose
from ..modeling.mixin import EditableMixin
from ..runs.fingerprints import fingerprint_model, fingerprint_rows
from ..runs.processes import Job, Result, is_main_process, share_out
from ..runs.provenance import machine, versions
from .methods.base import EditMethod, make_edit, method_arguments, method_name


logger = logging.get_logger(__name__)


def shared_arguments(
    model: EditableMixin,
    edits: Sequence[Any],
    overrides: Mapping[str, Any],
    method: EditMethod | None,
    *,
    name: str,
    num_beams: int,
    batch_size: int,
    max_new_tokens: int | None,
    seed: int,
) -> dict[str, Any]:
    """
    What the rows of an evaluation depend on, as a journal keeps it.

    Args:
        model ([`EditableMixin`]): the model.
        edits (`Sequence`): the edits, as plain JSON values.
        overrides (`dict[str, Any]`): fields of [`EditConfig`] that the evaluation was given.
        method ([`EditMethod`], *optional*): what makes the edits.
        name, num_beams, batch_size, max_new_tokens, seed: see [`evaluate_edits`].

    Raises:
        EditableTypeError: if the model has no `edit`, or an override is no field.
        EditableValueError: if a number is out of range.
    """
    return {
        "name": name,
        "model": fingerprint_model(model),
        "edits": fingerprint_rows(edits),
        "edit_config": model.edit_config.replace(**overrides).to_dict(),
        "num_beams": check_count("num_beams", num_beams),
        "batch_size": check_count("batch_size", batch_size),
        "max_new_tokens": resolve_max_new_tokens(model, max_new_tokens),
        "seed": seed,
        **method_arguments(method),
    }


def shared_summary(model: EditableMixin, arguments: Mapping[str, Any], method: EditMethod | None) -> dict[str, Any]:
    """What every report says of how it was made; `arguments` are those of `shared_arguments`."""
    config = model.edit_config.replace(**arguments["edit_config"])
    return {
        **{key: arguments[key] for key in ("name", "num_beams", "max_new_tokens", "edit_config", "seed")},
        "method": method_name(method),
        "length_penalty": model.edit_length_penalty(config),
        "machine": machine(model.device),
        "versions": versions(),
    }


def choose_rows(
    name: str, dataset: Dataset, columns: Sequence[str], wanted: int | None, seed: int
) -> dict[int, dict[str, Any]]:
    """
    The columns of rows chosen at random, by their index in the dataset.

    Args:
        name (`str`): what the dataset is, for messages.
        dataset ([`~datasets.Dataset`]): has the columns.
        columns (`Sequence[str]`): the columns.
        wanted (`int`, *optional*): how many rows; `None` takes all.
        seed (`int`): of the choice.

    Raises:
        EditableValueError: if a column is missing, the dataset is empty, or `wanted` is below 1.
    """
    missing = [column for column in columns if column not in dataset.column_names]
    if missing or not len(dataset):
        raise EditableValueError(
            f"{name} has {len(dataset)} rows of columns {dataset.column_names}; it needs rows with {list(columns)}."
        )
    indices = choose(len(dataset), wanted, seed)
    return dict(zip(indices, dataset.select(indices).select_columns(list(columns)).to_list(), strict=True))


def try_edit(
    model: EditableMixin,
    collator: DataCollatorForEditableSeq2Seq,
    edit: Mapping[str, Any],
    method: EditMethod | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[EditResult | None, float]:
    """
    An edit, and the milliseconds it took; `None`, with a warning, if it met a value that is not finite.

    Args:
        model ([`EditableMixin`]): the model to edit.
        collator ([`DataCollatorForEditableSeq2Seq`]): with its tokenizer.
        edit (`dict[str, Any]`): `source`, `target` and `alternatives`.
        method ([`EditMethod`], *optional*): what makes the edit.
        overrides (`dict[str, Any]`, *optional*): fields of [`EditConfig`] to edit with.
    """
    inputs = collator.edit_inputs(edit, model.device)
    start = time.perf_counter()
    try:
        result = make_edit(model, inputs, method, overrides)
    except NonFiniteEditError as error:
        logger.warning(f"The edit of {edit['source']!r} failed: {error}")
        result = None
    # A result has numbers in it, so a GPU is done.
    return result, 1000 * (time.perf_counter() - start)


def measured(
    measure: Callable[[Job], Result], jobs: Sequence[Job], total: int, description: str, **options: Any
) -> Iterator[Result]:
    """
    What comes of each job, dealt out to the processes, with a progress bar.

    Args:
        measure (`Callable`): takes a job.
        jobs (`Sequence`): what there is to do.
        total (`int`): how many jobs there are with those that are done.
        description (`str`): of the bar.
        options (*optional*): further arguments of `tqdm`.
    """
    options |= {"total": total, "initial": total - len(jobs), "desc": description, "unit": "edit"}
    with logging.tqdm(**options, disable=not is_main_process()) as progress:
        for row in share_out(measure, jobs):
            yield row
            progress.update()
