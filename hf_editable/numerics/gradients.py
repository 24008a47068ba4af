"""Gradients that are had in other ways than by keeping the graph of everything until the backward pass."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def outside_inference(tensor: Tensor | None) -> Tensor | None:
    """The tensor; a copy of one that was made in inference mode, which no gradient could be computed with."""
    return tensor.clone() if tensor is not None and tensor.is_inference() else tensor


class _WithGradients(torch.autograd.Function):
    """A value whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor | None], *inputs: Tensor) -> Tensor:
        ctx.known = [gradient is not None for gradient in gradients]
        ctx.save_for_backward(*(gradient for gradient in gradients if gradient is not None))
        return value.detach().clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        return None, None, *(next(saved) * scale if known else None for known in ctx.known)


def with_gradients(value: Tensor, inputs: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """
    A scalar that a backward pass goes through as if it had a graph; it has none, only its gradients.

    Args:
        value (`torch.Tensor` of shape `()`): the value.
        inputs (`Sequence[torch.Tensor]`): what it depends on.
        gradients (`Sequence[torch.Tensor]`): its derivatives with respect to them; `None` is 0.
    """
    return _WithGradients.apply(value, gradients, *inputs)


class _Branch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


@torch.compiler.disable
def branch(tensor: Tensor) -> Tensor:
    """
    The tensor as one branch of the graph: gradients that arrive here are summed up before they reach the tensor.
    Sparse ones stay sparse that way, where each would make a copy of the dense sum that they are added to. (Compiled
    code knows dense ones only.)
    """
    with torch.enable_grad():
        return _Branch.apply(tensor)


class _Recomputed(torch.autograd.Function):
    """Keeps what a function was given, and runs it again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., list[Tensor]], count: int, *inputs: Tensor) -> tuple[Tensor, ...]:
        device = inputs[0].device.type
        ctx.autocast = {
            "device_type": device,
            "dtype": torch.get_autocast_dtype(device),
            "enabled": torch.is_autocast_enabled(device),
        }
        ctx.function, ctx.count = function, count
        ctx.save_for_backward(*inputs)
        with torch.enable_grad():
            outputs = function(_leaves([tensor.clone() for tensor in inputs[:count]]), False)
        return tuple(output.detach() for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        own, others = _leaves(ctx.saved_tensors[: ctx.count]), ctx.saved_tensors[ctx.count :]
        with torch.enable_grad(), torch.autocast(**ctx.autocast):
            outputs = ctx.function(own, True)
        inputs = [*own, *others]
        wanted = [tensor for tensor in inputs if tensor.requires_grad]
        found = iter(torch.autograd.grad(outputs, wanted, gradients, allow_unused=True))
        return None, None, *(next(found) if tensor.requires_grad else None for tensor in inputs)


def recomputed(
    function: Callable[[list[Tensor], bool], list[Tensor]], inputs: Sequence[Tensor], parameters: Sequence[Tensor]
) -> list[Tensor]:
    """
    What a function gives, without a graph of what it does inside: the backward pass runs it once more. It may take
    derivatives itself, which `torch.utils.checkpoint` does not allow.

    Args:
        function (`Callable`):
            takes tensors in place of `inputs`, which it may change unless it has a graph to keep, and whether
            derivatives that it takes are to be differentiated.
        inputs (`Sequence[torch.Tensor]`): what it is given.
        parameters (`Sequence[torch.nn.Parameter]`): what else its outputs depend on: leaves that it uses as they are.
    """
    return list(_Recomputed.apply(function, len(inputs), *inputs, *parameters))


def _leaves(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors]
