"""Differentiable editors: from an edit problem to edited parameters, through the steps of a gradient optimizer.

An editor asks its problem for `l_e` at some parameters and steps against the gradient until `l_e ≤ 0` (paper, eq. 1).
With `create_graph=True` the edited parameters are a differentiable function of the original ones and of the editor's
own coefficients, which is what Editable Training needs.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from .configuration import EditConfig, EditOptimizer
from .errors import NonFiniteEditError


class EditProblem(Protocol):
    """What an editor solves: find parameters at which `l_e ≤ 0`."""

    parameters: dict[str, Tensor]

    def __call__(self, parameters: dict[str, Tensor]) -> Tensor:
        """`l_e`, a scalar; wherever it is above 0, differentiable with respect to `parameters`."""
        ...


@dataclass
class EditOutcome:
    """
    What an editor gives back.

    Args:
        parameters (`dict[str, torch.Tensor]`): θ', the edited parameters by name.
        loss (`torch.Tensor` of shape `()`): `l_e(θ')`; the edit succeeded if it is at most 0.
        initial_loss (`float`): `l_e(θ)`.
        steps (`int`): how many steps were taken.
    """

    parameters: dict[str, Tensor]
    loss: Tensor
    initial_loss: float
    steps: int


@dataclass(frozen=True)
class _Coefficient:
    """A coefficient as it is learned: a free number that `value` maps into the coefficient's valid range."""

    value: Callable[[Tensor], Tensor]
    raw: Callable[[float], float]


_POSITIVE = _Coefficient(torch.exp, math.log)
_UNIT = _Coefficient(torch.sigmoid, lambda value: math.log(value / (1 - value)))
_ADAM_MOMENTUM = _Coefficient(
    lambda raw: 0.1 + 0.9 * torch.sigmoid(raw), lambda value: math.log((value - 0.1) / (1 - value))
)


class GradientEditor(nn.Module):
    """
    Base class of the editors. Its only parameters are the learnable coefficients of the optimizer, in a form that
    keeps them valid (the learning rate as its logarithm, decays through a sigmoid).

    Args:
        config ([`EditConfig`]): initial coefficients, `epsilon`, `max_steps`, `learn_coefficients`.
    """

    _coefficients: dict[str, _Coefficient] = {"learning_rate": _POSITIVE}

    def __init__(self, config: EditConfig):
        super().__init__()
        self.epsilon = config.epsilon
        self.max_steps = config.max_steps
        self._given = {}
        for name in self._coefficients:
            self.register_parameter(
                f"raw_{name}", nn.Parameter(torch.zeros(()), requires_grad=config.learn_coefficients)
            )
        self.load_coefficients({name: getattr(config, name) for name in self._coefficients})

    def load_coefficients(self, values: dict[str, float]) -> None:
        """Set the coefficients, in place, to those that `coefficients` returned."""
        for name, coefficient in self._coefficients.items():
            raw = torch.tensor(coefficient.raw(values[name]), dtype=torch.float32)
            self._raw(name).data.copy_(raw)
            self._given[name] = (values[name], raw.item())

    @torch.no_grad()
    def coefficients(self) -> dict[str, float]:
        """The coefficients' present values, exact enough that `load_coefficients` restores every bit of them."""
        values = {}
        for name, coefficient in self._coefficients.items():
            given, raw_given = self._given[name]
            raw = self._raw(name)
            # Beyond ±30 a sigmoid is 0 or 1 to the last digit, which is no valid coefficient.
            learned = coefficient.value(raw.double().clamp(-30.0, 30.0)).item()
            values[name] = given if raw.item() == raw_given else learned
        return values

    def _raw(self, name: str) -> nn.Parameter:
        return getattr(self, f"raw_{name}")

    def _value(self, name: str) -> Tensor:
        return self._coefficients[name].value(self._raw(name))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GradientEditor":
        # `model.half()` must move the coefficients, not round them: log(1e-3) in bfloat16 is 3 % off.
        return super()._apply(lambda tensor: tensor.to(fn(tensor.clone()).device), recurse)

    def direction(self, gradients: list[Tensor], state: dict) -> list[Tensor]:
        """
        What the learning rate is multiplied with.

        Args:
            gradients (`list[torch.Tensor]`): gradient of `l_e` with respect to each edited parameter.
            state (`dict`): empty at an edit's first step; the editor keeps its running values in it.
        """
        raise NotImplementedError

    def forward(self, problem: EditProblem, create_graph: bool = False) -> EditOutcome:
        """
        Edit until `l_e ≤ 0` or `max_steps` steps are taken.

        Args:
            problem ([`EditProblem`]): gives `l_e` and the parameters to start from, which stay as they are.
            create_graph (`bool`, *optional*, defaults to `False`):
                Keep the graph of every step, so that the outcome can be differentiated.

        Raises:
            NonFiniteEditError: if `l_e` becomes NaN or infinite.
        """
        originals = problem.parameters
        master = {name: _master(parameter, create_graph) for name, parameter in originals.items()}
        state, steps = {}, 0
        current = {name: tensor.to(originals[name].dtype) for name, tensor in master.items()}
        loss = _finite(problem(current), steps)
        initial_loss = loss.item()
        while loss > 0 and steps < self.max_steps:
            gradients = torch.autograd.grad(
                loss, list(master.values()), create_graph=create_graph, materialize_grads=True
            )  # experts that no token is routed to have no gradient
            with torch.set_grad_enabled(create_graph):
                learning_rate = self._value("learning_rate")
                directions = self.direction(list(gradients), state)
                master = {
                    name: tensor - learning_rate * direction
                    for (name, tensor), direction in zip(master.items(), directions, strict=True)
                }
            if not create_graph:
                master = {name: tensor.requires_grad_() for name, tensor in master.items()}
            current = {name: tensor.to(originals[name].dtype) for name, tensor in master.items()}
            steps += 1
            loss = _finite(problem(current), steps)
        if not create_graph:
            current = {name: tensor.detach() for name, tensor in current.items()}
        return EditOutcome(current, loss, initial_loss, steps)


def _master(parameter: Tensor, differentiable: bool) -> Tensor:
    """The parameter as the optimizer sees it: at least float32, as half precision would swallow small steps."""
    if not (differentiable and parameter.requires_grad):
        parameter = parameter.detach().clone().requires_grad_()
    if parameter.dtype in (torch.float16, torch.bfloat16):
        parameter = parameter.float()
        return parameter if differentiable else parameter.detach().requires_grad_()
    return parameter


def _finite(loss: Tensor, steps: int) -> Tensor:
    if not torch.isfinite(loss):
        raise NonFiniteEditError(
            f"The edit loss is {loss.item()} after {steps} steps; the model is unchanged. Check its weights for NaN, "
            "or lower the learning rate of the edit."
        )
    return loss


class GradientDescent(GradientEditor):
    """`θ ← θ − α·g` (paper, eq. 1)."""

    def direction(self, gradients: list[Tensor], state: dict) -> list[Tensor]:
        return gradients


class ScaledGradientDescent(GradientEditor):
    """`θ ← θ − α·g / ‖g_0‖`: gradient descent, scaled by the global norm of the edit's first gradient (paper, 4.1)."""

    def direction(self, gradients: list[Tensor], state: dict) -> list[Tensor]:
        if not state:
            squares = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
            state["norm"] = (squares + self.epsilon**2).sqrt()
        return [gradient / state["norm"] for gradient in gradients]


class RProp(GradientEditor):
    """`θ ← θ − α·sign(g)`."""

    def direction(self, gradients: list[Tensor], state: dict) -> list[Tensor]:
        return [gradient.sign() for gradient in gradients]


class RMSProp(GradientEditor):
    """`θ ← θ − α·g / sqrt(rms + ε)`, `rms ← β·rms + (1 − β)·g²`, starting from `rms = g_0²` (paper, section 3.1)."""

    _coefficients = {"learning_rate": _POSITIVE, "beta": _UNIT}

    def direction(self, gradients: list[Tensor], state: dict) -> list[Tensor]:
        squares = [gradient.square() for gradient in gradients]
        state["rms"] = _running(state.get("rms", squares), squares, self._value("beta"))
        return [gradient / (rms + self.epsilon).sqrt() for gradient, rms in zip(gradients, state["rms"], strict=True)]


class Momentum(GradientEditor):
    """`θ ← θ − α·v`, `v ← μ·v + g`, starting from `v = 0`."""

    _coefficients = {"learning_rate": _POSITIVE, "momentum": _UNIT}

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

    _coefficients = {"learning_rate": _POSITIVE, "beta": _UNIT, "momentum": _ADAM_MOMENTUM}

    def direction(self, gradients: list[Tensor], state: dict) -> list[Tensor]:
        beta, momentum = self._value("beta"), self._value("momentum")
        zeros = [torch.zeros_like(gradient) for gradient in gradients]
        squares = [gradient.square() for gradient in gradients]
        state["mean"] = _running(state.get("mean", zeros), gradients, momentum)
        state["rms"] = _running(state.get("rms", zeros), squares, beta)
        state["step"] = state.get("step", 0) + 1
        mean_scale = 1 / (1 - momentum ** state["step"])
        rms_scale = 1 / (1 - beta ** state["step"])
        return [
            mean * mean_scale / (rms * rms_scale + self.epsilon).sqrt()
            for mean, rms in zip(state["mean"], state["rms"], strict=True)
        ]


def _running(means: Iterable[Tensor], values: Iterable[Tensor], decay: Tensor) -> list[Tensor]:
    return [decay * mean + (1 - decay) * value for mean, value in zip(means, values, strict=True)]


_EDITORS: dict[str, type[GradientEditor]] = {
    EditOptimizer.GD.value: GradientDescent,
    EditOptimizer.SCALED_GD.value: ScaledGradientDescent,
    EditOptimizer.RPROP.value: RProp,
    EditOptimizer.RMSPROP.value: RMSProp,
    EditOptimizer.MOMENTUM.value: Momentum,
    EditOptimizer.ADAM.value: Adam,
}


def make_editor(config: EditConfig) -> GradientEditor:
    """The editor that `config.optimizer` names, with the configuration's coefficients."""
    return _EDITORS[config.optimizer](config)
