"""Putting changes into a model and taking them out."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import EditableValueError


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
