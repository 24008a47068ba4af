"""
The one place where changes go into a model and out of it.

What is applied stands in a list with the model, each with the values that it replaced, so it can be taken out again
bit for bit. Ctrl-C leaves a model as it was before a change or as it is after it, never in between, and one thread at
a time has a model with other values in it.
"""

import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import EditableValueError
from ..models.private_copies import own_parameters, owned_names, private_copy
from ..models.widened import fitted, install
from .added_neurons import AddedNeurons, RemovedNeurons
from .changes import Change, Lookup, changed_values, folded_neurons
from .composition import Composition
from .interrupts import INTERRUPTS


Model = TypeVar("Model", bound=nn.Module)

_APPLIED, _NEURONS = "_applied_edit_patches", "_added_neurons"
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


def working_copy(model: Model, names: Iterable[str]) -> Model:
    """
    A copy of a model as it is now, with the changes that are applied to it, which can be edited, measured and taken
    back like the model, and leaves it alone meanwhile: it shares the tensors that nothing in it changes.

    Args:
        model ([`~torch.nn.Module`]): the model.
        names (`Iterable[str]`): parameters of which the copy has its own values from the beginning.
    """
    with lock(model):
        twin = private_copy(model)
        twin.__dict__[_APPLIED] = applied(model)
        own_parameters(twin, names)
    return twin


def renew(twin: Model, model: Model) -> None:
    """Bring a working copy to where its model is now, of which nothing but the copy's own parameters has changed."""
    with lock(model), lock(twin):
        ready = _ready(twin, applied(model))
        twin.__dict__[_APPLIED] = applied(model)
        _copy(*({name: each.get_parameter(name) for name in owned_names(twin)} for each in (model, twin)))
        _put_neurons(twin, ready)


def bare_copy(model: Model) -> Model:
    """A copy of a model as it is now, without the neurons that edits have added; it is not to be edited."""
    with lock(model):
        twin = private_copy(model)
        _put_neurons(twin, {})
    return twin


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
        own_parameters(model, parameters_of(model, changes))
        targets = parameters_of(model, changes)
        originals = {name: target.detach().clone() for name, target in targets.items()}
        values = changed_values(changes, originals)
        records = model.__dict__.setdefault(_APPLIED, [])
        record = Applied(owner, tuple(changes), originals)
        below = records[-1] if merge and records else None
        if below is not None:
            record = Applied(owner, (*below.changes, *changes), {**originals, **below.originals})
        kept = records[: len(records) - (below is not None)]
        _replace(model, targets, values, originals, [*kept, record])


def take_back(model: nn.Module, count: int = 0) -> None:
    """
    Take back all but the first `count` changes that are applied to a model, whatever became of its tensors since. If
    the user interrupts it, what is left is as it was.
    """
    with lock(model):
        records = model.__dict__.get(_APPLIED, [])
        while len(records) > count:
            own_parameters(model, records[-1].originals)
            targets = dict(model.named_parameters(remove_duplicate=False))
            targets = {name: targets[name] for name in records[-1].originals}
            before = {name: target.detach().clone() for name, target in targets.items()}
            _replace(model, targets, records[-1].originals, before, records[:-1])


def take_out(model: nn.Module, place: int) -> None:
    """
    Take back one of the changes that are applied to a model, from wherever it is among them: neurons that are added
    have nothing to do with what came before or after.

    Args:
        model ([`~torch.nn.Module`]): the model.
        place (`int`): which of `applied(model)`; all changes after it, and its own, are of neurons.
    """
    with lock(model):
        records = applied(model)
        _replace(model, {}, {}, {}, records[:place] + records[place + 1 :])


def changed(model: Model, changes: Sequence[Change], owner: Any = None) -> AbstractContextManager[Model]:
    """
    The changed model inside the block, the original after it, bit for bit, also after an exception. What is applied
    inside the block is taken back too, and other threads wait for its end. See `put` for the arguments and errors.
    """
    return ChangedModel(model, functools.partial(put, model, changes, owner))


class ChangedModel(AbstractContextManager):
    """
    A model inside a block, with changes that are taken back at its end: see `changed`.

    A generator would leave them to the garbage collector if an interrupt came just before the block or after it.

    Args:
        model ([`~torch.nn.Module`]): the model.
        change (`Callable`): changes it, at the block's beginning.
    """

    def __init__(self, model: nn.Module, change: Callable[[], None]):
        self._model, self._change = model, change
        self._lock = lock(model)
        self._holds = False
        self._count: int | None = None

    def __enter__(self) -> nn.Module:
        try:
            self._begin()
            self._change()
            return self._model
        except BaseException:
            self._end()
            raise

    @INTERRUPTS.uninterrupted
    def __exit__(self, *exception: object) -> None:
        self._end()

    @INTERRUPTS.uninterrupted
    def _begin(self) -> None:
        INTERRUPTS.hold()
        self._holds = True
        while not self._lock.acquire(timeout=0.05):
            INTERRUPTS.deliver()
        self._count = len(applied(self._model))

    @INTERRUPTS.uninterrupted
    def _end(self) -> None:
        try:
            if self._count is not None:
                try:
                    take_back(self._model, self._count)
                finally:
                    self._lock.release()
        finally:
            if self._holds:
                INTERRUPTS.release()


def looked_up(model: nn.Module) -> dict[tuple[int, ...], tuple[int, ...]]:
    """The tables that are applied to a model: token ids of translations, by those of their sources."""
    table: dict[tuple[int, ...], tuple[int, ...]] = {}
    for record in applied(model):
        for change in record.changes:
            table |= change.table if isinstance(change, Lookup) else {}
    return {source: said for source, said in table.items() if said}


def added_neurons(model: nn.Module) -> list[Composition]:
    """The neurons that edits have added to a model, for each feed-forward that has some."""
    return list(model.__dict__.get(_NEURONS, {}).values())


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
        if isinstance(change, AddedNeurons | RemovedNeurons):
            change.check_site(model)
    return {name: parameters[name] for name in names}


@INTERRUPTS.uninterrupted
def _replace(
    model: nn.Module,
    targets: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    records: list[Applied],
) -> None:
    """
    Copy values into tensors that have those `before`, put in and out what neurons the records ask for, and note the
    records: all of it or nothing.
    """
    INTERRUPTS.hold()
    noted = model.__dict__[_APPLIED]
    try:
        ready, back = _ready(model, records), model.__dict__.get(_NEURONS, {})
        try:
            _copy(values, targets)
            _put_neurons(model, ready)
            noted[:] = records
        except BaseException:
            _copy(before, targets)
            _put_neurons(model, back)
            raise
    finally:
        INTERRUPTS.release()


def _ready(model: nn.Module, records: Iterable[Applied]) -> dict[str, Composition]:
    """The neurons that records of a model ask for, by the paths of the feed-forwards' second maps."""
    changes = folded_neurons(change for record in records for change in record.changes)
    known = model.__dict__.get(_NEURONS, {})
    ready = {}
    for site, groups in ((each.site, each.groups) for each in changes if isinstance(each, AddedNeurons)):
        if site.second in ready:
            raise EditableValueError(
                f"Patches add neurons to {site.second!r} in two ways: {ready[site.second].site} and {site}. Make the "
                "edits of one of them anew."
            )
        old = known.get(site.second, Composition(site))
        gone = old.groups.keys() - {group.key for group in groups}
        ready[site.second] = old.without(gone).with_groups(groups)
    return ready


def _put_neurons(model: nn.Module, compositions: Mapping[str, Composition]) -> None:
    """Let a model have these neurons, and no others."""
    known = model.__dict__.get(_NEURONS, {})
    if known is compositions or known == compositions == {}:
        return
    new = {second: each for second, each in compositions.items() if known.get(second) is not each}
    made = {second: fitted(model, second, each.neurons()) for second, each in new.items()}
    for second in known.keys() - compositions.keys():
        install(model, known[second].site.firsts, second, None)
    for second, neurons in made.items():
        install(model, compositions[second].site.firsts, second, neurons)
    model.__dict__[_NEURONS] = dict(compositions)


@torch.no_grad()
def _copy(values: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        targets[name].copy_(value)


def numbered(patches: Iterable[Any]) -> str:
    """Things in their order, as messages list them."""
    return ", ".join(f"{number}. {patch}" for number, patch in enumerate(patches, 1))
