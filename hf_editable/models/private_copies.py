"""Copies of modules that share tensors with them."""

import weakref
from collections.abc import Iterable
from types import MethodType
from typing import TypeVar

import torch
from torch import nn

from .private_names import check_private_names


check_private_names(__name__)

_ORIGINAL, _OWN = "_copied_from", "_own_parameters"
Model = TypeVar("Model", bound=nn.Module)


def shared_copy(module: nn.Module, copies: dict[nn.Module, nn.Module]) -> nn.Module:
    """
    A copy of a module tree in evaluation mode that shares every tensor, with the modules in `copies` replaced.

    Args:
        module (`torch.nn.Module`): what to copy.
        copies (`dict`): replacements by original module; the copies made are added to it.
    """
    if module in copies:
        return copies[module]
    twin = type(module).__new__(type(module))
    # What wraps an instance (Accelerate's mixed precision, torch.compile) is bound to the original.
    own = {name: value for name, value in module.__dict__.items() if name != "forward"}
    copies[module] = twin
    own |= {"_compiled_call_impl": None, "_parameters": dict(module._parameters), "training": False}
    own["_modules"] = {
        name: None if child is None else shared_copy(child, copies) for name, child in module._modules.items()
    }
    twin.__dict__.update(own)  # setting attributes of modules is slow
    return twin


def private_copy(model: Model) -> Model:
    """
    A copy of a model, in evaluation mode, that shares all its tensors until `own_parameters` gives it some of its own.
    What is set or hooked in one of the two is not in the other.

    Args:
        model (`torch.nn.Module`): the model, or another such copy.
    """
    copies: dict[nn.Module, nn.Module] = {}
    twin = shared_copy(model, copies)
    for part in copies.values():
        for name, value in part.__dict__.items():
            if isinstance(value, dict):
                part.__dict__[name] = value.copy()
            elif isinstance(value, MethodType) and value.__self__ in copies:
                part.__dict__[name] = MethodType(value.__func__, copies[value.__self__])
    # A weak reference, which a deep copy of the copy does not follow.
    twin.__dict__ |= {_ORIGINAL: weakref.ref(original(model)), _OWN: set()}
    return twin


def original(model: nn.Module) -> nn.Module:
    """The model that a private copy was made of; any other model is its own."""
    reference = model.__dict__.get(_ORIGINAL)
    return (reference and reference()) or model


def own_parameters(model: nn.Module, names: Iterable[str]) -> None:
    """
    Give a private copy its own values of parameters, before they are changed; tied ones stay tied if all are named.
    Other models have their own anyway.

    Args:
        model (`torch.nn.Module`): the model.
        names (`Iterable[str]`): names of its parameters.
    """
    own = model.__dict__.get(_OWN)
    if own is None:
        return
    made: dict[int, nn.Parameter] = {}
    with torch.inference_mode(False):
        for name in set(names) - own:
            path, _, attribute = name.rpartition(".")
            module = model.get_submodule(path)
            shared = module._parameters[attribute]
            if id(shared) not in made:
                made[id(shared)] = nn.Parameter(shared.detach().clone(), requires_grad=shared.requires_grad)
            module._parameters[attribute] = made[id(shared)]
            own.add(name)


def owned_names(model: nn.Module) -> frozenset[str]:
    """The parameters of which a private copy has its own values."""
    return frozenset(model.__dict__.get(_OWN, ()))
