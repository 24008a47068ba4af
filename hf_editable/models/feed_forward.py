"""The feed-forward of a decoder layer, found by watching the layer run: its linear maps, and the norms around them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from ..errors import EditableTypeError
from .layers import find_decoder_layers
from .private_copies import private_copy


# Of those, the neurons that are added can be made to have a threshold.
ACTIVATIONS = ("relu", "silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu")
# The setting of a family's configuration that holds the width of all its decoder's feed-forwards.
WIDTH_SETTING = "decoder_ffn_dim"


@dataclass(frozen=True)
class FeedForward:
    """
    The feed-forward of a decoder layer: `second(activation(first(x)) · gate(x))`, the gate only where there is one.

    Args:
        firsts (`tuple[str, ...]`): paths of the linear maps of `x`; the activation follows the first, the other gates.
        second (`str`): path of the linear map back.
        activation (`str`): its name in transformers.
        scale (`torch.Tensor` of shape `(hidden,)`): γ of the norm whose output is `x`.
        shift (`torch.Tensor` of shape `(hidden,)`): its β.
        sum (`str`):
            what becomes of its output `y` and the layer's other summand `r`: `"post"` norms `r + y`, `"pre"` is
            `r + y`, `"sandwich"` is `r + norm(y)`.
        norm (`str`, *optional*): path of that norm.
        fits_plain (`bool`): whether a checkpoint of a raised `decoder_ffn_dim` can hold more neurons.
    """

    firsts: tuple[str, ...]
    second: str
    activation: str
    scale: Tensor = field(repr=False)
    shift: Tensor = field(repr=False)
    sum: str
    norm: str | None
    fits_plain: bool

    def joined(self, model: nn.Module, rest: Tensor, output: Tensor) -> Tensor:
        """
        What the layer gives.

        Args:
            model ([`~torch.nn.Module`]): the model.
            rest (`torch.Tensor` of shape `(…, hidden)`): the other summand.
            output (`torch.Tensor` of shape `(…, hidden)`): the feed-forward's output.
        """
        norm = None if self.norm is None else model.get_submodule(self.norm)
        return _JOINS[self.sum](norm, rest, output)


_JOINS: dict[str, Callable[[nn.Module | None, Tensor, Tensor], Tensor]] = {
    "post": lambda norm, rest, output: norm(rest + output),
    "pre": lambda norm, rest, output: rest + output,
    "sandwich": lambda norm, rest, output: rest + norm(output),
}


@dataclass
class _Call:
    """A module's call: its path, what it got first and what it gave first."""

    path: str
    module: nn.Module
    given: Tensor
    output: Tensor


def find_feed_forward(model: PreTrainedModel, batch: Mapping[str, Any]) -> FeedForward:
    """
    The feed-forward of a model's final decoder layer.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model.
        batch (`dict[str, Any]`): arguments of a forward pass, by which the layer is watched.

    Raises:
        EditableTypeError:
            if it is none to which neurons can be added: a mixture of experts, an unknown activation or norm, or one
            whose output goes another way than into the layer's sum.
    """
    path, layers = find_decoder_layers(model)
    layer = f"{path}.{len(layers) - 1}"
    calls = _watch(model, layer, batch)
    linear = [call for call in calls[:-1] if _is_linear(call.module)]
    second = linear[-1]
    if second.given.shape[:-1] != calls[-1].output.shape[:-1]:
        raise _refusal(model, "its feed-forward is a mixture of experts, each for some of the tokens")
    firsts, activation = _firsts(model, linear[:-1], second)
    scale, shift = _normed(model, calls, firsts[0])
    kind, norm = _join(model, calls, second)
    plain = len(firsts) == 1 and firsts[0].module.bias is not None
    return FeedForward(
        firsts=tuple(call.path for call in firsts),
        second=second.path,
        activation=activation,
        scale=scale,
        shift=shift,
        sum=kind,
        norm=norm,
        fits_plain=plain and getattr(model.config, WIDTH_SETTING, None) == second.module.in_features,
    )


def _watch(model: PreTrainedModel, layer: str, batch: Mapping[str, Any]) -> list[_Call]:
    """The calls of the modules in a layer, in the order in which they ended; that of the layer is the last."""
    twin, calls = private_copy(model), []
    for name, module in twin.get_submodule(layer).named_modules(prefix=layer):
        watch(module, _noting(name, module, calls))
    with torch.no_grad():
        twin(**batch, use_cache=False)
    return calls


def _noting(path: str, module: nn.Module, calls: list[_Call]) -> Callable[[Tensor | None, Any], None]:
    def note(given: Tensor | None, output: Any) -> None:
        output = first_tensor(output)
        if given is not None and isinstance(output, Tensor):
            calls.append(_Call(path, module, given, output))

    return note


def watch(module: nn.Module, note: Callable[[Tensor | None, Any], None]) -> None:
    """Have a module, of a copy, tell the first tensor that it is given, and what it gives, whenever it is called."""

    def tell(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        note(next((each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), None), output)

    module.register_forward_hook(tell, with_kwargs=True)


def first_tensor(output: Any) -> Any:
    """What a module gives, or the first of what it gives."""
    return output[0] if isinstance(output, tuple | list) else output


def _is_linear(module: nn.Module) -> bool:
    return hasattr(module, "in_features") and hasattr(module, "out_features")


def _is_norm(module: nn.Module, width: int) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.shape == (width,) and not any(module.children())


def _firsts(model: PreTrainedModel, linear: list[_Call], second: _Call) -> tuple[list[_Call], str]:
    """The linear maps before the activation, and its name."""
    wide = [call for call in linear if call.output.shape == second.given.shape]
    groups = [[call] for call in reversed(wide)] + [list(pair) for pair in permutations(reversed(wide[-2:]), 2)]
    for group in groups:
        for name in ACTIVATIONS:
            made = ACT2FN[name](group[0].output)
            for gate in group[1:]:
                made = made * gate.output
            if _close(made, second.given):
                return group, name
    raise _refusal(model, f"the activation of its feed-forward is none of {', '.join(ACTIVATIONS)}")


def _normed(model: PreTrainedModel, calls: list[_Call], first: _Call) -> tuple[Tensor, Tensor]:
    """γ and β of the norm whose output a linear map is given."""
    width = first.given.shape[-1]
    for call in reversed(calls):
        if not _is_norm(call.module, width) or call.output.data_ptr() != first.given.data_ptr():
            continue
        weight, bias = call.module.weight.detach(), getattr(call.module, "bias", None)
        shift = torch.zeros_like(weight) if bias is None else bias.detach()
        for scale in (weight, 1 + weight):
            if any(_close(normed * scale + shift, call.output) for normed in _normalised(call.given)):
                return scale, shift
    raise _refusal(model, "what its feed-forward is given does not come from a norm")


def _normalised(states: Tensor) -> Iterator[Tensor]:
    """States as a layer norm and as a root-mean-square norm has them."""
    states = states.double()
    for centred in (states - states.mean(-1, keepdim=True), states):
        yield centred / centred.pow(2).mean(-1, keepdim=True).add(1e-6).sqrt()


def _join(model: PreTrainedModel, calls: list[_Call], second: _Call) -> tuple[str, str | None]:
    """How the layer's output comes from that of the feed-forward; see [`FeedForward`]."""
    output, after = calls[-1].output, calls[calls.index(second) + 1 : -1]
    norms = [call for call in after if _is_norm(call.module, output.shape[-1])]
    if not norms:
        return "pre", None
    norm = norms[-1]
    if norm.output.data_ptr() == output.data_ptr():
        return "post", norm.path
    if norm.given.data_ptr() == second.output.data_ptr():
        return "sandwich", norm.path
    raise _refusal(model, "the output of its feed-forward goes neither into a sum nor through one norm")


def _close(found: Tensor, expected: Tensor) -> bool:
    tolerance = {torch.float64: 1e-6, torch.float32: 1e-4}.get(expected.dtype, 2e-2)
    return torch.allclose(found.double(), expected.double(), rtol=tolerance, atol=tolerance)


def _refusal(model: PreTrainedModel, reason: str) -> EditableTypeError:
    return EditableTypeError(
        f"Neurons cannot be added to {type(model).__name__}: {reason}. Edit it by gradients: editor='gradient'."
    )
