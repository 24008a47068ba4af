"""
The one place where changes go into a model and out of it.

What is applied stands in a list with the model, each with the values that it replaced, so it can be taken out again
bit for bit. Ctrl-C leaves a model as it was before a change or as it is after it, never in between, and one thread at
a time has a model with other values in it.
"""

import signal
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import EditableValueError
from .changes import Change, Lookup, changed_values


_APPLIED = "_applied_edit_patches"
_LOCKS: "weakref.WeakKeyDictionary[nn.Module, threading.RLock]" = weakref.WeakKeyDictionary()
_MAKING_LOCKS = threading.Lock()


@dataclass(eq=False)
class Applied:
    """
    Changes that are in a model.

    Args:
        owner (`Any`): what they come from, such as an [`EditPatch`]; `None` for those of a block.
        changes (`tuple[Change, ...]`): the changes.
        originals (`dict[str, torch.Tensor]`): the values that they replaced.
    """

    owner: Any
    changes: tuple[Change, ...]
    originals: dict[str, Tensor]


def applied(model: nn.Module) -> list[Applied]:
    """What is applied to a model and not taken back, the last one on top of the others."""
    return list(model.__dict__.get(_APPLIED, ()))


def lock(model: nn.Module) -> "threading.RLock":
    """The lock that a thread holds while it changes a model, or uses one that it has changed."""
    with _MAKING_LOCKS:
        return _LOCKS.setdefault(model, threading.RLock())


def put(model: nn.Module, changes: Sequence[Change], owner: Any = None, merge: bool = False) -> None:
    """
    Make changes to a model. If anything goes wrong, or the user interrupts it, the model stays as it was.

    Args:
        model ([`~torch.nn.Module`]): the model.
        changes (`Sequence[Change]`): the changes, made one after the other.
        owner (`Any`, *optional*): what they come from.
        merge (`bool`, *optional*, defaults to `False`): whether to take them out with the last ones, as one.

    Raises:
        EditableValueError: if the model lacks a parameter, has it in another form, or has it tied to another one.
    """
    with lock(model):
        targets = parameters_of(model, changes)
        originals = {name: target.detach().clone() for name, target in targets.items()}
        values = changed_values(changes, originals)
        records = model.__dict__.setdefault(_APPLIED, [])
        record = Applied(owner, tuple(changes), originals)
        below = records[-1] if merge and records else None
        if below is not None:
            record = Applied(owner, (*below.changes, *changes), {**originals, **below.originals})
        with _uninterrupted(), _all_or_nothing(targets, originals):
            _copy(values, targets)
            records[len(records) - (below is not None) :] = [record]


def take_back(model: nn.Module, count: int = 0) -> None:
    """
    Take back all but the first `count` changes that are applied to a model, whatever became of its tensors since. If
    the user interrupts it, what is left is as it was.
    """
    with lock(model):
        records = model.__dict__.get(_APPLIED, [])
        while len(records) > count:
            targets = dict(model.named_parameters(remove_duplicate=False))
            targets = {name: targets[name] for name in records[-1].originals}
            before = {name: target.detach().clone() for name, target in targets.items()}
            with _uninterrupted(), _all_or_nothing(targets, before):
                _copy(records[-1].originals, targets)
                records.pop()


@contextmanager
def changed(model: nn.Module, changes: Sequence[Change], owner: Any = None) -> Iterator[None]:
    """
    The changed model inside the block, the original after it, bit for bit, also after an exception. What is applied
    inside the block is taken back too, and other threads wait for its end. See `put` for the arguments and errors.
    """
    with lock(model):
        count = len(applied(model))
        try:
            put(model, changes, owner)
            yield
        finally:
            take_back(model, count)


def looked_up(model: nn.Module) -> dict[tuple[int, ...], tuple[int, ...]]:
    """The tables that are applied to a model: token ids of translations, by those of their sources."""
    table: dict[tuple[int, ...], tuple[int, ...]] = {}
    for record in applied(model):
        for change in record.changes:
            table |= change.table if isinstance(change, Lookup) else {}
    return {source: said for source, said in table.items() if said}


def parameters_of(model: nn.Module, changes: Sequence[Change]) -> dict[str, nn.Parameter]:
    """
    The parameters that changes give other values, by name.

    Raises:
        EditableValueError: if the model lacks one, has it in another form, or has it tied to another one.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names = list(dict.fromkeys(name for change in changes for name in change.names))
    for name in names:
        if name not in parameters:
            raise EditableValueError(
                f"The patch has {name!r:.200}, which {type(model).__name__} does not have. Apply it to the model that "
                "it was made from."
            )
        same = parameters[name]
        # A change that names all of them means all of them.
        aliases = [alias for alias, each in parameters.items() if each is same and alias not in names]
        if aliases:
            raise EditableValueError(
                f"{name!r} is tied to {aliases} in this model, so the patch would change them all. Untie them "
                "(tie_word_embeddings=False), or make the edit with that module in exclude_modules."
            )
        if same.device.type == "meta":
            raise EditableValueError(
                f"The model's {name!r} is not in memory (device 'meta'). Load the model without offloading it."
            )
    for change in changes:
        for name in change.names:
            change.check_fit(name, parameters[name])
    return {name: parameters[name] for name in names}


@contextmanager
def _all_or_nothing(targets: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> Iterator[None]:
    """Put `before` back into `targets` if the block does not end well."""
    try:
        yield
    except BaseException:
        _copy(before, targets)
        raise


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block has ended. Only the main thread ever gets it."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    waiting: list[tuple] = []
    signal.signal(signal.SIGINT, lambda *given: waiting.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if waiting:
            handler(*waiting[-1])


@torch.no_grad()
def _copy(values: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        targets[name].copy_(value)


def numbered(patches: Iterable[Any]) -> str:
    """Things in their order, as messages list them."""
    return ", ".join(f"{number}. {patch}" for number, patch in enumerate(patches, 1))
