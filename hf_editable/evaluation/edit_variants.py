"""What is compared: the editors of the paper's Table 1, and the parts of the decoder of its Table 2."""

import re
from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..configuration import EditOptimizer
from ..errors import EditableTypeError, EditableValueError
from ..models.layers import find_decoder_layers


# Fields of EditConfig, by the name of what is compared.
EditVariants = dict[str, dict[str, Any]]


def optimizer_variants(names: list[str] | None = None) -> EditVariants:
    """
    The optimizers that an edit can take its steps with.

    Args:
        names (`list[str]`, *optional*): some of them; `None` takes all.

    Returns:
        `dict[str, dict[str, Any]]`: fields of [`EditConfig`] by name.

    Raises:
        EditableValueError: if there is no editor of a name.
    """
    return _wanted({kind.value: lambda value=kind.value: {"optimizer": value} for kind in EditOptimizer}, names)


def parameter_variants(model: PreTrainedModel, names: list[str] | None = None) -> EditVariants:
    """
    Parts of the decoder that an edit can move.

    They are `layer_1` to the final layer, each alone, `last_two_layers`, `all_layers`, and, in the final layer,
    `last_self_attention`, `last_cross_attention` and `last_feed_forward`, each without the layer norms beside it.

    Args:
        model ([`~transformers.PreTrainedModel`]): an encoder-decoder.
        names (`list[str]`, *optional*): some of them; `None` takes all.

    Returns:
        `dict[str, dict[str, Any]]`: fields of [`EditConfig`] by name.

    Raises:
        EditableTypeError: if the model has no decoder layers, or none with a wanted part in them.
        EditableValueError: if there is no part of a name.
    """
    path, layers = find_decoder_layers(model)
    count = len(layers)
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        f"layer_{index + 1}": lambda index=index: {"layers_to_transform": index} for index in range(count)
    }
    if count > 2:
        makers["last_two_layers"] = lambda: {"layers_to_transform": [count - 2, count - 1]}
    for part in ("self_attention", "cross_attention", "feed_forward"):
        makers[f"last_{part}"] = lambda part=part: {
            "layers_to_transform": count - 1,
            "target_modules": _pattern(model, f"{path}.{count - 1}", part),
        }
    if count > 1:
        makers["all_layers"] = lambda: {"layers_to_transform": list(range(count))}
    return _wanted(makers, names)


def _wanted(makers: dict[str, Callable[[], dict[str, Any]]], names: list[str] | None) -> EditVariants:
    names = list(makers) if names is None else names
    if unknown := [name for name in names if name not in makers]:
        raise EditableValueError(f"There is no {', '.join(map(repr, unknown))} to compare, but {', '.join(makers)}.")
    return {name: makers[name]() for name in names}


def _pattern(model: PreTrainedModel, path: str, part: str) -> str:
    """A regular expression that matches the modules of one part of a layer, and no others."""
    layer = model.get_submodule(path)
    found = [name for name in _parts(layer) if _kind(name, layer.get_submodule(name)) == part]
    if not found:
        inside = ", ".join(name for name, _ in layer.named_children())
        raise EditableTypeError(
            f"The decoder layers of {type(model).__name__} have no {part.replace('_', '-')} of their own: they hold "
            f"{inside}. Leave last_{part} out of what is compared."
        )
    return "|".join(re.escape(f"{path}.{name}") for name in found)


def _parts(module: nn.Module, prefix: str = "") -> list[str]:
    """The largest submodules that are attention, or have parameters but neither attention nor norms in them."""
    parts = []
    for name, child in module.named_children():
        inside = [_kind(path, submodule) for path, submodule in child.named_modules(prefix=name)]
        if next(child.parameters(), None) is None or inside[0] == "norm":
            continue
        if inside[0] == "feed_forward" and set(inside) != {"feed_forward"}:
            parts += _parts(child, f"{prefix}{name}.")
        else:
            parts.append(f"{prefix}{name}")
    return parts


def _kind(path: str, module: nn.Module) -> str:
    """What a module of a decoder layer is, by the last part of its path: families differ in little but spelling."""
    name = path.rpartition(".")[2].lower()
    if "norm" in name or "norm" in type(module).__name__.lower():
        return "norm"
    if "attn" in name or "attention" in name:
        return "cross_attention" if "cross" in name or "enc" in name else "self_attention"
    return "feed_forward"
