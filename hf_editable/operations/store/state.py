"""What a model is with so many edits of a store."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from ...patches.added_neurons import AddedNeurons, NeuronGroup, RemovedNeurons, Site
from ...patches.application import added_neurons, looked_up
from ...patches.changes import Change, Lookup, Whole, changed_values, folded_neurons


@dataclass(frozen=True)
class State:
    """
    The model with so many edits of a store.

    Args:
        tensors (`dict[str, torch.Tensor]`): the values of all tensors that edits of the store may change.
        table (`dict[tuple[int, ...], tuple[int, ...]]`, *optional*): what is looked up beside it; see [`Lookup`].
        neurons (`tuple[Change, ...]`, *optional*): those that are added to it; see [`AddedNeurons`].
    """

    tensors: dict[str, Tensor]
    table: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)
    neurons: tuple[Change, ...] = ()

    def after(self, changes: Sequence[Change]) -> "State":
        """The state with further changes."""
        table = dict(self.table)
        for change in changes:
            table |= change.table if isinstance(change, Lookup) else {}
        values = {name: tensor.cpu() for name, tensor in changed_values(changes, self.tensors).items()}
        neurons = folded_neurons([*self.neurons, *changes])
        added = tuple(change for change in neurons if isinstance(change, AddedNeurons))
        return State({**self.tensors, **values}, {source: said for source, said in table.items() if said}, added)

    def changes(self, model: nn.Module) -> tuple[Change, ...]:
        """What brings a model to this state, whatever edits of the store it has."""
        table = {**dict.fromkeys(looked_up(model), ()), **self.table}
        neurons = changes_of_neurons(neurons_of(model), self.neurons)
        return (Whole(self.tensors), *neurons, *([Lookup(table)] if table else []))


def neurons_of(model: nn.Module) -> tuple[Change, ...]:
    """The neurons that edits have added to a model, as changes."""
    return tuple(AddedNeurons(each.site, tuple(each.groups.values())) for each in added_neurons(model))


def changes_of_neurons(before: Sequence[Change], after: Sequence[Change]) -> list[Change]:
    """What takes out the neurons that a model has before and not after, and adds those that it has only after."""
    here, there = (
        {(change.site, group.key): group for change in each for group in change.groups} for each in (before, after)
    )
    gone: dict[Site, list[str]] = {}
    new: dict[Site, list[NeuronGroup]] = {}
    for site, key in here.keys() - there.keys():
        gone.setdefault(site, []).append(key)
    for (site, key), group in there.items():
        if (site, key) not in here:
            new.setdefault(site, []).append(group)
    removed: list[Change] = [RemovedNeurons(site, tuple(sorted(keys))) for site, keys in gone.items()]
    return removed + [AddedNeurons(site, tuple(groups)) for site, groups in new.items()]


def same_neurons(one: Sequence[Change], other: Sequence[Change]) -> bool:
    """Whether neurons are the same."""
    return not changes_of_neurons(one, other) and not changes_of_neurons(other, one)
