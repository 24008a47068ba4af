"""What all evaluations share: the rows they choose, the edits they make, the texts they translate, the machine."""

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sacrebleu
import torch
import transformers
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .. import __version__
from ..collator import DataCollatorForEditableSeq2Seq
from ..decoding import batches_by_length, check_count, encode_sources, frozen, resolve_max_new_tokens
from ..edit_result import EditResult
from ..errors import EditableTypeError, EditableValueError, NonFiniteEditError
from ..journal import fingerprint_model, fingerprint_rows
from ..mining import choose
from ..modeling import EditableMixin
from ..processes import Job, Result, is_main_process, share_out
from .methods import EditMethod, make_edit, method_arguments, method_name


logger = logging.get_logger(__name__)


def check_model(model: Any) -> None:
    """
    Raises:
        EditableTypeError: if the model has no `edit`.
    """
    if not isinstance(model, EditableMixin):
        raise EditableTypeError(
            f"A {type(model).__name__} has no edit(). Load it with AutoEditableModelForSeq2SeqLM.from_pretrained."
        )


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


def translate_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    num_beams: int,
    batch_size: int,
    max_new_tokens: int,
) -> list[str]:
    """
    Translations by beam search, in the order of the sources.

    Raises:
        EditableValueError: if a source is empty, or has more tokens than the model takes.
    """
    encoded = DataCollatorForEditableSeq2Seq(tokenizer, model).encode("source", sources)
    found: dict[int, str] = {}
    with frozen(model):
        for batch in batches_by_length(dict(enumerate(map(len, encoded))), batch_size):
            sources_of = encode_sources(model, tokenizer, dict(enumerate(encoded)), batch)
            output = sources_of.generate(model, max_new_tokens, num_beams=num_beams, do_sample=False)
            found.update(zip(batch, tokenizer.batch_decode(output, skip_special_tokens=True), strict=True))
    return [found[index] for index in range(len(sources))]


@contextmanager
def weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """
    The model with other values of some parameters inside the block, its own after it, every bit of them.

    Unlike [`EditPatch`], which is for keeps, it also takes tied parameters, by one of their names: all change.

    Raises:
        EditableValueError: if the model has no parameter of a name, or one of another shape or type.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in tensors.items():
        found = parameters.get(name)
        if found is None or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            kind = "no such parameter" if found is None else f"one of {found.dtype} and shape {tuple(found.shape)}"
            raise EditableValueError(
                f"An edit changed {name!r} of {tensor.dtype} and shape {tuple(tensor.shape)}; the model has {kind}. "
                "Give the tensors that the edit was made from."
            )
    originals = {name: parameters[name].detach().clone() for name in tensors}
    try:
        copy_tensors(tensors, parameters)
        yield
    finally:
        copy_tensors(originals, parameters)


@torch.no_grad()
def copy_tensors(values: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    """Write tensors into the parameters of their names."""
    for name, value in values.items():
        parameters[name].copy_(value)


def machine(device: torch.device) -> str:
    """What times were taken on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    return f"{processor}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Versions of what the numbers come from."""
    return {
        "hf_editable": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sacrebleu": sacrebleu.__version__,
        "python": platform.python_version(),
    }
