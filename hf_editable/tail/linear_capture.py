"""Inputs and outputs of the edited linear layers, token by token, from which the gradients of their weights follow."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class LinearCalls:
    """
    What a linear layer was given and what it gave, one entry for each time that it was called.

    Args:
        inputs (`list[torch.Tensor]` of shape `(tokens, in_features)`): what it was given.
        outputs (`list[torch.Tensor]` of shape `(tokens, out_features)`): what it gave, as a part of the graph.
    """

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


@contextmanager
def captured_calls(layers: Mapping[str, nn.Linear]) -> Iterator[dict[str, LinearCalls]]:
    """
    Note the calls of layers inside the block, by the names that they are given here.

    Args:
        layers (`dict[str, torch.nn.Linear]`): copies, which have hooks in common with the layers of the model.
    """
    calls = {name: LinearCalls() for name in layers}
    before = {name: layer.forward for name, layer in layers.items()}
    for name, layer in layers.items():
        layer.forward = _noting(before[name], calls[name])  # not a hook: the model's own layer would have it too
    try:
        yield calls
    finally:
        for name, layer in layers.items():
            layer.forward = before[name]


def _noting(plain: Callable[[Tensor], Tensor], calls: LinearCalls) -> Callable[[Tensor], Tensor]:
    """A layer's forward pass, with a note of what goes in and out."""

    def forward(given: Tensor) -> Tensor:
        output = plain(given)
        rows = output.flatten(0, -2)
        calls.inputs.append(given.flatten(0, -2))
        calls.outputs.append(rows)
        return rows.view_as(output)  # through the rows, so that the graph has a gradient of theirs

    return forward


def linear_factors(
    loss: Tensor, calls: Mapping[str, LinearCalls], create_graph: bool = False
) -> dict[str, tuple[Tensor, Tensor]]:
    """
    For each layer, its inputs and the gradients of a loss with respect to its outputs: `gradients.T @ inputs` is the
    gradient of its weight, and `gradients.sum(0)` that of its bias. Calls without a graph do not count, and a layer
    with no other calls, such as an expert to which no token was sent, is left out.

    Args:
        loss (`torch.Tensor`): a scalar that was computed from what the tail gave inside the block.
        calls (`dict[str, LinearCalls]`): what [`Tail.capture_linear`] noted in the block.
        create_graph (`bool`, *optional*, defaults to `False`): whether the gradients can be differentiated.

    Returns:
        `dict[str, tuple[torch.Tensor, torch.Tensor]]`: by the name of the weight in the model, the inputs of shape
        `(tokens, in_features)` and the gradients of shape `(tokens, out_features)`.
    """
    pairs = {
        name: [pair for pair in zip(each.inputs, each.outputs, strict=True) if pair[1].requires_grad]
        for name, each in calls.items()
    }
    outputs = [rows for each in pairs.values() for _, rows in each]
    if not outputs:
        return {}
    gradients = iter(torch.autograd.grad(loss, outputs, create_graph=create_graph, materialize_grads=True))
    return {
        name: (torch.cat([given for given, _ in each]), torch.cat([next(gradients) for _ in each]))
        for name, each in pairs.items()
        if each
    }
