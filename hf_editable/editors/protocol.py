"""What an editor solves, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class EditProblem(Protocol):
    """What an editor solves: find parameters at which `l_e ≤ 0`."""

    parameters: dict[str, Tensor]

    def __call__(self, parameters: dict[str, Tensor]) -> Tensor:
        """`l_e`, a scalar; wherever it is above 0, differentiable with respect to `parameters`."""
        ...


@dataclass
class EditTerm:
    """
    `l_e` at some parameters, and how to compute it with a graph.

    Args:
        value (`torch.Tensor` of shape `()`): `l_e`.
        loss (`Callable`): gives it with a graph, from the parameters and tensors in place of `inputs`.
        inputs (`list[torch.Tensor]`): what it depends on that has a graph itself.
        parameters (`list[torch.nn.Parameter]`): what else it depends on.
    """

    value: Tensor
    loss: Callable[[dict[str, Tensor], list[Tensor]], Tensor]
    inputs: list[Tensor]
    parameters: list[Tensor]


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
