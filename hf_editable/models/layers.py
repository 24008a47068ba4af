"""Which layers and parameters of a model an edit may move."""

import re

from torch import nn
from transformers import PreTrainedModel

from ..configuration import EditConfig
from ..errors import EditableTypeError, EditableValueError
from .families import check_editable


def find_decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """
    The decoder's list of layers and its path in the model.

    Raises:
        EditableTypeError: if the model cannot be edited, or no single list of layers is found.
    """
    check_editable(model)
    decoder = model.get_decoder()
    inside = [module for module in decoder.modules() if isinstance(module, nn.ModuleList) and len(module)]
    nested = {child for outer in inside for child in outer.modules() if child is not outer}
    lists = [module for module in inside if module not in nested]
    if len(lists) != 1:
        raise EditableTypeError(
            f"The decoder of {type(model).__name__} has {len(lists)} lists of layers; editing needs exactly one."
        )
    path = next(name for name, module in model.named_modules() if module is lists[0])
    return path, lists[0]


def layer_indices(layers_to_transform: int | list[int], count: int) -> list[int]:
    """
    Indices of layers from the first, in order.

    Raises:
        EditableValueError: if there is none, or no layer has one of them.
    """
    wanted = [layers_to_transform] if isinstance(layers_to_transform, int) else list(layers_to_transform)
    if not wanted or any(not -count <= index < count for index in wanted):
        raise EditableValueError(
            f"layers_to_transform={layers_to_transform!r}: the decoder has {count} layers, "
            f"so each index must be from {-count} to {count - 1}."
        )
    return sorted({index % count for index in wanted})


def _matches(path: str, patterns: str | list[str]) -> bool:
    if isinstance(patterns, str):
        return re.fullmatch(patterns, path) is not None
    return any(path == name or path.endswith(f".{name}") for name in patterns)


def select_parameters(
    model: PreTrainedModel, layers: list[tuple[str, nn.Module]], config: EditConfig
) -> dict[str, nn.Parameter]:
    """
    The parameters of layers that an edit may move, by their names in the model.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model.
        layers (`list[tuple[str, torch.nn.Module]]`): the layers and their paths in it.
        config ([`EditConfig`]): `target_modules` and `exclude_modules` choose among their modules.

    Raises:
        EditableValueError: if a name matches nothing, nothing is left, or a parameter is tied to another.
    """
    paths = [f"{path}.{name}" if name else path for path, layer in layers for name, _ in layer.named_modules()]

    def under(patterns: str | list[str]) -> list[str]:
        roots = [path for path in paths if _matches(path, patterns)]
        if not roots:
            inside = sorted({path.rsplit(".", 1)[-1] for path in paths})
            raise EditableValueError(
                f"{patterns!r} matches no module in {[path for path, _ in layers]}. It has {inside}."
            )
        return roots

    def belongs(name: str, roots: list[str]) -> bool:
        return any(name.startswith(f"{root}.") for root in roots)

    targets = [path for path, _ in layers] if config.target_modules is None else under(config.target_modules)
    excluded = [] if config.exclude_modules is None else under(config.exclude_modules)
    named = dict(model.named_parameters(remove_duplicate=False))
    selected = {
        name: parameter for name, parameter in named.items() if belongs(name, targets) and not belongs(name, excluded)
    }
    if not selected:
        raise EditableValueError(
            f"target_modules={config.target_modules!r} without exclude_modules={config.exclude_modules!r} "
            "leaves no parameter to edit. Exclude less."
        )
    owners: dict[int, list[str]] = {}
    for name, parameter in named.items():
        owners.setdefault(id(parameter), []).append(name)
    for name, parameter in selected.items():
        if len(owners[id(parameter)]) > 1:
            raise EditableValueError(
                f"{owners[id(parameter)]} are one tied parameter: editing it would change them all. Exclude {name!r}."
            )
    return selected
