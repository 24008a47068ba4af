"""Which layers and parameters of a model an edit may move."""

import math
import time

import regex
from torch import nn
from transformers import PreTrainedModel

from ..configuration import EditConfig
from ..errors import EditableTypeError, EditableValueError
from .families import check_editable


# For all modules together; what is meant to be matched takes a thousandth of it.
MATCHING_SECONDS, MOST_REPEATS = 1, 10_000
_REPEATS = regex.compile(r"\{\s*(\d+)")


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


def edited_parameters(model: PreTrainedModel, config: EditConfig) -> dict[str, nn.Parameter]:
    """The parameters that edits with a configuration move, by name; see `select_parameters` for the errors."""
    path, layers = find_decoder_layers(model)
    edited = layer_indices(config.layers_to_transform, len(layers))
    return select_parameters(model, [(f"{path}.{i}", layers[i]) for i in edited], config)


def matching_paths(paths: list[str], patterns: str | list[str]) -> list[str]:
    """
    The paths that one of several names ends, or that one regular expression matches as a whole.

    Expressions go to an engine that can be stopped, as they may come with a stranger's checkpoint. One that cannot
    take long (re2) has no look-ahead, by which those for PEFT leave modules out.

    Raises:
        EditableValueError: if the expression is none, or takes too long.
    """
    if not isinstance(patterns, str):
        return [path for path in paths if any(path == name or path.endswith(f".{name}") for name in patterns)]
    end = time.monotonic() + MATCHING_SECONDS
    try:
        # What is to be repeated so often is written out by the engine.
        if math.prod(int(least) for least in _REPEATS.findall(patterns) if int(least)) > MOST_REPEATS:
            raise OverflowError(f"it repeats something more than {MOST_REPEATS:,} times")
        pattern = regex.compile(patterns)
        return [path for path in paths if pattern.fullmatch(path, timeout=max(end - time.monotonic(), 1e-3))]
    except TimeoutError as error:
        problem, cause = f"takes more than {MATCHING_SECONDS} second to be matched with the names of modules", error
    except (regex.error, OverflowError, RecursionError, MemoryError) as error:
        problem, cause = f"is no regular expression that can be matched ({error})", error
    raise EditableValueError(f"{patterns!r:.200} {problem}. Give a simpler one, or a list of names.") from cause


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
        roots = matching_paths(paths, patterns)
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
