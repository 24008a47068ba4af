"""
Neurons beside those of a feed-forward: products of their own, so that where none of them fires, every bit stays.

The linear maps of the feed-forward become of another class while they have them; their own parameters, and the names
of these, stay as they are.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .private_names import check_private_names


check_private_names(__name__)

_IN, _BIAS, _OUT = "added_rows", "added_bias", "added_columns"


class _WideFirst:
    """A linear map that gives more: what the added neurons are given."""

    def forward(self, states: Tensor) -> Tensor:
        added = nn.functional.linear(states, self._buffers[_IN], self._buffers[_BIAS])
        return torch.cat([super().forward(states), added.to(states.dtype)], dim=-1)


class _WideSecond:
    """A linear map that takes more: what the added neurons give."""

    def forward(self, states: Tensor) -> Tensor:
        width = self.in_features
        output = super().forward(states[..., :width])
        return output + nn.functional.linear(states[..., width:], self._buffers[_OUT])


@dataclass(frozen=True)
class Neurons:
    """
    Neurons to be added to a feed-forward.

    Args:
        rows (`torch.Tensor` of shape `(neurons, hidden)`): rows of its first matrix.
        bias (`torch.Tensor` of shape `(neurons,)`): entries of its first bias.
        columns (`torch.Tensor` of shape `(hidden, neurons)`): columns of its second matrix.
    """

    rows: Tensor
    bias: Tensor
    columns: Tensor


def fitted(model: nn.Module, second: str, neurons: Neurons | None) -> Neurons | None:
    """Neurons on the device and in the type of a feed-forward, to `install`."""
    weight = model.get_submodule(second).weight
    # Of quantised weights, whose type is none to compute in, it is that of the model.
    kind = weight.dtype if weight.is_floating_point() else model.dtype
    return neurons and Neurons(*(each.to(weight.device, kind) for each in vars(neurons).values()))


def install(model: nn.Module, firsts: Sequence[str], second: str, neurons: Neurons | None) -> None:
    """
    Give a feed-forward these neurons in place of those that were added before.

    Args:
        model ([`~torch.nn.Module`]): the model.
        firsts (`Sequence[str]`): paths of its linear maps; of a gate, the added neurons get 1.
        second (`str`): path of the linear map back.
        neurons ([`Neurons`], *optional*): `fitted`; `None` takes all away.
    """
    first, *gates = [model.get_submodule(path) for path in firsts]
    back = model.get_submodule(second)
    if neurons is None:
        for module in (first, *gates, back):
            _narrow(module)
        return
    _widen(first, _WideFirst, {_IN: neurons.rows, _BIAS: neurons.bias})
    for gate in gates:
        _widen(gate, _WideFirst, {_IN: torch.zeros_like(neurons.rows), _BIAS: torch.ones_like(neurons.bias)})
    _widen(back, _WideSecond, {_OUT: neurons.columns})


def installed(model: nn.Module, firsts: Sequence[str], second: str) -> Neurons | None:
    """The neurons that were added to a feed-forward; see `install`."""
    first, second = model.get_submodule(firsts[0]), model.get_submodule(second)
    if _IN not in first._buffers:
        return None
    return Neurons(first._buffers[_IN], first._buffers[_BIAS], second._buffers[_OUT])


def _widen(module: nn.Module, kind: type, tensors: dict[str, Tensor]) -> None:
    """Let a module be of a wider class, with tensors that move with it and are in no checkpoint."""
    module._buffers.update(tensors)
    # A new set: copies of the module have the old one in common with it.
    module._non_persistent_buffers_set = module._non_persistent_buffers_set | tensors.keys()
    if not isinstance(module, kind):
        module.__class__ = wider_class(kind, type(module))


def _narrow(module: nn.Module) -> None:
    if isinstance(module, _WideFirst | _WideSecond):
        module.__class__ = type(module).__bases__[1]
    for name in (_IN, _BIAS, _OUT):
        module._buffers.pop(name, None)


@functools.cache
def wider_class(kind: type, base: type) -> type:
    """A class of linear maps with added neurons; one for each class, so that instances can be pickled."""
    return type(
        f"{kind.__name__.strip('_')}{base.__name__}", (kind, base), {"__module__": __name__, "__reduce_ex__": _reduce}
    )


def _reduce(self: nn.Module, protocol: int) -> tuple:
    kind, base = type(self).__bases__
    return _restored, (kind, base), self.__dict__


def _restored(kind: type, base: type) -> nn.Module:
    wide = wider_class(kind, base)
    return wide.__new__(wide)
