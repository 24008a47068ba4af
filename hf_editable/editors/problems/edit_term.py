"""`l_e` at some parameters, as a value and as a graph."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


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
