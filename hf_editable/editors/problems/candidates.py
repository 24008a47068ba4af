"""The translations of an edit, checked and put into one tensor."""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from ...errors import EditableTypeError, EditableValueError
from ...models.families import max_positions
from ...numerics.scoring import PADDING


def check_edit(
    config: PreTrainedConfig, input_ids: Tensor, labels: Tensor | None, alternative_labels: Tensor | None
) -> None:
    """
    Refuse what no model with this configuration can be edited to.

    Raises:
        EditableValueError: if something is missing, of another shape, or longer than the model takes.
    """
    if labels is None or alternative_labels is None:
        raise EditableValueError("An edit needs labels (the wanted translation) and alternative_labels.")
    if input_ids.dim() != 2 or input_ids.shape[0] != 1 or input_ids.shape[1] == 0:
        raise EditableValueError(f"input_ids of shape {tuple(input_ids.shape)}: one edit has (1, source_length).")
    tokens = {
        ("source", "encoder"): input_ids.shape[1],
        ("target", "decoder"): int((labels != PADDING).sum(-1).max()),
        ("longest alternative", "decoder"): int((alternative_labels != PADDING).sum(-1).max()),
    }
    for (name, side), length in tokens.items():
        longest = max_positions(config, side)
        if longest is not None and length > longest:
            raise EditableValueError(f"The edit's {name} is {length} tokens long; the model takes {longest} at most.")


def check_tokens(model: PreTrainedModel, edit: Mapping[str, Tensor | None]) -> None:
    """
    Refuse tensors that are no token ids of a model, which it would fail on somewhere inside.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model.
        edit (`dict[str, torch.Tensor]`): the tensors of an edit, by name; `None` are left out.

    Raises:
        EditableTypeError: if they are no whole numbers.
        EditableValueError: if they are on another device, too large or below 0, or the mask has another shape.
    """
    given = {name: tensor for name, tensor in edit.items() if tensor is not None}
    for name, tensor in given.items():
        if tensor.is_floating_point() or tensor.is_complex():
            raise EditableTypeError(
                f"{name} is of {tensor.dtype}, and token ids are whole numbers. Give {name}.long()."
            )
        if tensor.device != model.device:
            raise EditableValueError(
                f"{name} is on the device {str(tensor.device)!r}, the model on {str(model.device)!r}. Give "
                f"{name}.to({str(model.device)!r})."
            )
        layer = model.get_input_embeddings() if name == "input_ids" else model.get_output_embeddings()
        if name == "attention_mask" or layer is None or not tensor.numel():
            continue
        count = len(layer.weight)
        tokens = tensor[tensor != PADDING] if name != "input_ids" else tensor
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < count:
            raise EditableValueError(
                f"{name} has token ids from {int(tokens.min())} to {int(tokens.max())}; those of the model go from 0 "
                f"to {count - 1}. Encode it by the model's own tokenizer."
            )
    mask = given.get("attention_mask")
    if mask is not None and mask.shape != given["input_ids"].shape:
        raise EditableValueError(
            f"attention_mask of shape {tuple(mask.shape)}, input_ids of shape {tuple(given['input_ids'].shape)}: both "
            "have (1, source_length)."
        )


def candidates(labels: Tensor, alternative_labels: Tensor) -> Tensor:
    """
    The target and its alternatives in one tensor.

    Args:
        labels (`torch.LongTensor` of shape `(1, target_length)`): the target, −100 on padding.
        alternative_labels (`torch.LongTensor` of shape `(1, alternatives, length)`): alternatives.

    Returns:
        `torch.LongTensor` of shape `(1 + alternatives left, longest)`: the target first.

    Raises:
        EditableValueError: if the shapes are others, the target is empty, or no alternative is left.
    """
    if labels.dim() != 2 or alternative_labels.dim() != 3 or not len(labels) == len(alternative_labels) == 1:
        raise EditableValueError(
            f"labels of shape {tuple(labels.shape)}, alternative_labels of shape {tuple(alternative_labels.shape)}: "
            "one edit has (1, target_length) and (1, alternatives, length)."
        )
    width = max(labels.shape[-1], alternative_labels.shape[-1])
    target, alternatives = (
        torch.nn.functional.pad(tensor, (0, width - tensor.shape[-1]), value=PADDING)
        for tensor in (labels[0], alternative_labels[0])
    )
    if bool((target == PADDING).all()):
        raise EditableValueError(
            "The target of the edit is empty. Give the translation that the model should produce."
        )
    useful = (alternatives != PADDING).any(-1) & (alternatives != target).any(-1)
    if not bool(useful.any()):
        raise EditableValueError(
            "Every alternative is empty or equal to the target, so there is nothing for the target to outrank. "
            "Give alternatives that differ from it, such as the model's own translation."
        )
    rows = torch.cat([target.unsqueeze(0), alternatives[useful]])
    return rows[:, : int((rows != PADDING).any(0).nonzero().max()) + 1]


def _with_prefixes(rows: Tensor, prefix_labels: Tensor) -> tuple[Tensor, Tensor]:
    """
    The rows of a problem and those of its prefixes, continued with the target's tokens as some decoders start with the
    last one of their labels; and which tokens the prefixes have.
    """
    if prefix_labels.dim() != 3 or prefix_labels.shape[0] != 1:
        raise EditableValueError(
            f"prefix_labels of shape {tuple(prefix_labels.shape)}: one edit has (1, prefixes, length)."
        )
    target, prefixes = rows[0], prefix_labels[0]
    given, most = int((prefixes != PADDING).any(0).sum()), int((target != PADDING).sum())
    if given > most:
        raise EditableValueError(
            f"A prefix has {given} tokens, the target {most}. Give prefixes no longer than the target."
        )
    prefixes = torch.nn.functional.pad(prefixes[:, :given], (0, len(target) - given), value=PADDING)
    compared = prefixes != PADDING
    competing = (compared & (prefixes != target)).any(-1)
    prefixes, compared = prefixes[competing], compared[competing]
    return torch.cat([rows, torch.where(compared, prefixes, target)]), compared
