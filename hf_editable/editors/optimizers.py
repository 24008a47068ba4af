"""The optimizers that a gradient editor takes its steps with."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..configuration import DEFAULT_EDITOR, EditConfig, EditOptimizer
from .coefficients import ADAM_MOMENTUM, POSITIVE, UNIT
from .gradient import GradientEditor
from .registry import register_editor
from .rmsprop import rmsprop_step, rmsprop_step_


class GradientDescent(GradientEditor):
    """`θ ← θ − α·g` (paper, eq. 1)."""

    sums_gradients = True

    def shares(self, steps: int, state: dict) -> list[float]:
        return [self._value("learning_rate").item()] * steps

    def direction(self, gradients: list[Tensor], state: dict) -> list[Tensor]:
        return gradients


class ScaledGradientDescent(GradientEditor):
    """`θ ← θ − α·g / ‖g_0‖`: gradient descent, scaled by the global norm of the edit's first gradient (paper, 4.1)."""

    sums_gradients = True
    rates = (1e-1, 1e1)

    def shares(self, steps: int, state: dict) -> list[float]:
        return [(self._value("learning_rate") / state["norm"]).item()] * steps

    def direction(self, gradients: list[Tensor], state: dict) -> list[Tensor]:
        if not state:
            squares = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
            state["norm"] = (squares + self.epsilon**2).sqrt()
        return [gradient / state["norm"] for gradient in gradients]


class RProp(GradientEditor):
    """`θ ← θ − α·sign(g)`."""

    rates = (1e-4, 1e-2)

    def direction(self, gradients: list[Tensor], state: dict) -> list[Tensor]:
        return [gradient.sign() for gradient in gradients]


class RMSProp(GradientEditor):
    """`θ ← θ − α·g / sqrt(rms + ε)`, `rms ← β·rms + (1 − β)·g²`, starting from `rms = g_0²` (paper, section 3.1)."""

    rates = (1e-4, 1e-2)
    _coefficients = {"learning_rate": POSITIVE, "beta": UNIT}

    def update(self, values: list[Tensor], gradients: list[Tensor], state: dict) -> list[Tensor]:
        rate, beta, step = self._value("learning_rate"), self._value("beta"), rmsprop_step
        if not torch.is_grad_enabled():
            rate, beta, step = rate.item(), beta.item(), rmsprop_step_
        means = state.get("rms", [None] * len(values))
        steps = [step(*tensors, rate, beta, self.epsilon) for tensors in zip(values, gradients, means, strict=True)]
        values, state["rms"] = (list(tensors) for tensors in zip(*steps, strict=True))
        return values


class Momentum(GradientEditor):
    """`θ ← θ − α·v`, `v ← μ·v + g`, starting from `v = 0`."""

    sums_gradients = True

    _coefficients = {"learning_rate": POSITIVE, "momentum": UNIT}

    def shares(self, steps: int, state: dict) -> list[float]:
        rate, momentum = self._value("learning_rate").item(), self._value("momentum").item()
        # A gradient counts in its own step, and a μ-th of that in each later one.
        return [rate * sum(momentum**later for later in range(steps - step)) for step in range(steps)]

    def direction(self, gradients: list[Tensor], state: dict) -> list[Tensor]:
        momentum = self._value("momentum")
        if state:
            gradients = [momentum * old + new for old, new in zip(state["velocity"], gradients, strict=True)]
        state["velocity"] = gradients
        return gradients


class Adam(GradientEditor):
    """
    `θ ← θ − α·m̂ / sqrt(v̂ + ε)`, with the usual bias correction of both running means; ε is inside the root, so that
    the second derivative exists where a gradient is 0. β1 (`momentum`) stays above 0.1, β2 is `beta`.
    """

    rates = (1e-4, 1e-2)
    _coefficients = {"learning_rate": POSITIVE, "beta": UNIT, "momentum": ADAM_MOMENTUM}

    def direction(self, gradients: list[Tensor], state: dict) -> list[Tensor]:
        beta, momentum = self._value("beta"), self._value("momentum")
        squares = [gradient.square() for gradient in gradients]
        if not state:
            mean, rms = ([torch.zeros_like(gradient) for gradient in gradients] for _ in range(2))
            state |= {"mean": mean, "rms": rms, "step": 0}
        state["mean"] = _running(state["mean"], gradients, momentum)
        state["rms"] = _running(state["rms"], squares, beta)
        state["step"] += 1
        mean_scale = 1 / (1 - momentum ** state["step"])
        rms_scale = 1 / (1 - beta ** state["step"])
        return [
            mean * mean_scale / (rms * rms_scale + self.epsilon).sqrt()
            for mean, rms in zip(state["mean"], state["rms"], strict=True)
        ]


def _running(means: Iterable[Tensor], values: Iterable[Tensor], decay: Tensor) -> list[Tensor]:
    """`decay·mean + (1 − decay)·value`; without a graph, in the place of the means."""
    if not torch.is_grad_enabled():
        return [mean.mul_(decay).add_((1 - decay) * value) for mean, value in zip(means, values, strict=True)]
    return [decay * mean + (1 - decay) * value for mean, value in zip(means, values, strict=True)]


_OPTIMIZERS: dict[str, type[GradientEditor]] = {
    EditOptimizer.GD.value: GradientDescent,
    EditOptimizer.SCALED_GD.value: ScaledGradientDescent,
    EditOptimizer.RPROP.value: RProp,
    EditOptimizer.RMSPROP.value: RMSProp,
    EditOptimizer.MOMENTUM.value: Momentum,
    EditOptimizer.ADAM.value: Adam,
}


def gradient_editor(config: EditConfig, options: Any = None, model: PreTrainedModel | None = None) -> GradientEditor:
    """The gradient editor with the optimizer that a configuration names, and its coefficients."""
    return _OPTIMIZERS[config.optimizer](config, options, model)


register_editor(DEFAULT_EDITOR, None, gradient_editor)
