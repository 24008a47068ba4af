"""What Editable Training cannot work with, said before it starts."""

from typing import Any

from datasets import Dataset
from torch.distributed.tensor import DTensor
from transformers.utils import logging

from ..errors import EditableTypeError, EditableValueError
from ..modeling.mixin import EditableMixin
from .arguments import EditableSeq2SeqTrainingArguments


logger = logging.get_logger(__name__)


def check_kinds(model: Any, args: Any, collator: Any) -> None:
    """
    Check the kinds of a trainer's objects.

    Raises:
        EditableTypeError: if the model cannot be edited, or the arguments or the collator are of another kind.
    """
    if not isinstance(model, EditableMixin):
        raise EditableTypeError(
            f"{type(model).__name__} cannot be trained for edits. Load it by AutoEditableModelForSeq2SeqLM."
        )
    if not isinstance(args, EditableSeq2SeqTrainingArguments):
        raise EditableTypeError(f"args is a {type(args).__name__}. Give EditableSeq2SeqTrainingArguments.")
    if collator is not None and not hasattr(collator, "collate_edits"):
        raise EditableTypeError(
            f"{type(collator).__name__} cannot collate edits. Give a DataCollatorForEditableSeq2Seq, or none."
        )


def check_whole(model: EditableMixin, n_gpu: int) -> None:
    """
    Check that every process has the whole model, and all of an edit.

    Raises:
        EditableValueError: if one process would use several GPUs, or weights are split over processes.
    """
    if n_gpu > 1:
        raise EditableValueError(
            f"{n_gpu} GPUs in one process: torch.nn.DataParallel would split the edits. Start one process a GPU, by "
            "accelerate launch."
        )
    if split := [name for name, weight in model.named_parameters() if isinstance(weight, DTensor)]:
        raise EditableValueError(
            f"{len(split)} parameters, such as {split[0]}, are split over processes, but an edit needs whole layers. "
            "Load the model without tp_plan or distributed_config."
        )


def check_edits(name: str, edits: Dataset) -> None:
    """
    Check that `edits`, the argument `name`, are mined ones.

    Raises:
        EditableValueError: if there are none, or a column is missing.
    """
    missing = sorted({"source", "target", "alternatives"} - set(edits.column_names))
    if missing:
        raise EditableValueError(f"{name} lacks {missing}; it has {edits.column_names}. mine_edits makes all.")
    if len(edits) == 0:
        raise EditableValueError(f"{name} is empty. Mine edits first, or give None to go without edits.")


def keep_layers(model: EditableMixin) -> None:
    """An edit needs the layers that it edits in every step, so none may be dropped at random (LayerDrop)."""
    decoder = model.get_decoder()
    if getattr(decoder, "layerdrop", 0.0):
        logger.warning(f"Setting the decoder's layerdrop={decoder.layerdrop} to 0: edited layers must not be skipped.")
        decoder.layerdrop = 0.0
