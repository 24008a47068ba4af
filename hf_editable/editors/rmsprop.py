"""A step of RMSProp: differentiated as a whole, with few tensors of the parameters' size; or in place."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, gradient: Tensor, mean: Tensor | None, rate: Tensor, beta: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        after = gradient.square()
        if mean is not None:
            after.lerp_(mean, beta.to(after.dtype))
        scale = (after + epsilon).rsqrt_()
        change = (gradient * scale).mul_(rate)
        ctx.save_for_backward(gradient, mean, scale, rate, beta)
        return torch.sub(value, change, out=change), after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_value: Tensor, of_mean: Tensor) -> tuple[Tensor | None, ...]:
        gradient, mean, scale, rate, beta = ctx.saved_tensors
        along = of_value * scale
        bend = along * gradient
        of_rate = -bend.sum() if ctx.needs_input_grad[3] else None
        bend.mul_(scale).mul_(scale).mul_(0.5 * rate).add_(of_mean)  # the derivative with respect to the new mean
        inner = gradient * bend
        of_gradient = inner.mul_(2.0 if mean is None else 2.0 * (1.0 - beta)).sub_(along.mul_(rate))
        if mean is None:
            return of_value, of_gradient, None, of_rate, None, None
        of_beta = (bend * (mean - gradient.square())).sum() if ctx.needs_input_grad[4] else None
        return of_value, of_gradient, bend.mul_(beta), of_rate, of_beta, None


def rmsprop_step(
    value: Tensor, gradient: Tensor, mean: Tensor | None, rate: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """
    `rms ← β·rms + (1 − β)·g²`, `θ ← θ − α·g / sqrt(rms + ε)` (paper, section 3.1), differentiable once.

    Args:
        value (`torch.Tensor`): θ.
        gradient (`torch.Tensor` of its shape): g.
        mean (`torch.Tensor` of its shape, *optional*): rms; `None` is g² itself, from which the first step starts.
        rate, beta (`torch.Tensor` of shape `()`): α and β.
        epsilon (`float`): ε.

    Returns:
        `tuple(torch.Tensor, torch.Tensor)`: the new θ and rms.
    """
    return _Step.apply(value, gradient, mean, rate, beta, epsilon)


@torch.no_grad()
def rmsprop_step_(
    value: Tensor, gradient: Tensor, mean: Tensor | None, rate: float, beta: float, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The same but for rounding, in the places of θ and rms."""
    mean = gradient.square() if mean is None else mean.mul_(beta).addcmul_(gradient, gradient, value=1 - beta)
    return value.addcdiv_(gradient, (mean + epsilon).sqrt_(), value=-rate), mean
