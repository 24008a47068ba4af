"""What neurons a model gets from all groups that its edits have added to a feed-forward."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..models.widened import Neurons
from .added_neurons import NEURON_FIELDS, STATE_FIELDS, NeuronGroup, Site


# A neuron is zero this share of the way to a state that it must not change.
SHARE = 0.9
# The least that is left of a neuron's reach, 1 − θ.
LEAST_REACH = 2e-4
# Products of single precision that decide which are computed exactly, at once, and how far they may be off.
_MOST_PRODUCTS, _MARGIN = 2**25, 1e-3

# For pairs of groups by their keys: neurons of the first, and the thresholds that the second raises them to.
Raised = dict[tuple[str, str], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Composition:
    """
    Groups of neurons at one feed-forward, together. What they come to is a function of their set: every neuron has the
    direction and the value that it had alone, and the highest of the threshold that it had and of those with which it
    is zero at all states of all groups that another token follows. So an edit is added, or taken out, by looking at
    its own pairs with the others, and leaves what would be there if it had never been made, bit for bit.

    Args:
        site ([`Site`]): the feed-forward.
        groups (`dict[str, NeuronGroup]`): by their keys.
        raised (`dict`): thresholds that pairs of groups raise.
    """

    site: Site
    groups: Mapping[str, NeuronGroup] = field(default_factory=dict)
    raised: Raised = field(default_factory=dict, repr=False)

    def with_groups(self, groups: Iterable[NeuronGroup]) -> "Composition":
        """With these as well."""
        new = {group.key: group for group in groups if group.key not in self.groups}
        if not new:
            return self
        old = list(self.groups.values())
        raised = self.raised | _raised(list(new.values()), [*old, *new.values()]) | _raised(old, list(new.values()))
        return Composition(self.site, {**self.groups, **new}, raised)

    def without(self, keys: Iterable[str]) -> "Composition":
        """Without those of the keys that are there."""
        gone = set(keys) & self.groups.keys()
        if not gone:
            return self
        kept = {key: group for key, group in self.groups.items() if key not in gone}
        raised = {pair: each for pair, each in self.raised.items() if gone.isdisjoint(pair)}
        return Composition(self.site, kept, raised)

    def thresholds(self) -> dict[str, Tensor]:
        """θ of the neurons of each group, by its key, of shape `(neurons,)`."""
        found = {key: group.thresholds.double() for key, group in self.groups.items()}
        for (key, _), (neurons, raised) in self.raised.items():
            found[key] = found[key].scatter_reduce(0, neurons, raised, "amax")
        return found

    def conflicts(self) -> list[tuple[str, str]]:
        """
        Pairs of groups, by their keys, of which a neuron of the first has no room beside a state of the second: there
        the two want different tokens at what is nearly one state.
        """
        return [pair for pair, (_, thresholds) in self.raised.items() if bool((thresholds >= 1 - LEAST_REACH).any())]

    def neurons(self) -> Neurons | None:
        """What the feed-forward gets, in double precision; `None` without groups."""
        groups = list(self.groups.values())
        if not sum(len(group.tokens) for group in groups):
            return None
        joined = {name: torch.cat([getattr(group, name) for group in groups]) for name in NEURON_FIELDS}
        thresholds = torch.cat(list(self.thresholds().values()))
        order = torch.cat([group.hashes for group in groups]).argsort(stable=True)
        slopes = self.site.sharpness / (1 - thresholds)
        rows = joined["directions"].double() * (joined["direction_steps"].double() * slopes)[:, None]
        bias = (joined["offsets"].double() - thresholds) * slopes
        columns = joined["values"].double() / self.site.sharpness
        return Neurons(rows[order], bias[order], columns[order].T.contiguous())


def reach_to(highest: Tensor) -> Tensor:
    """The threshold of neurons, from the highest `z` at states that they must not change."""
    return (1 - SHARE * (1 - highest)).clamp(max=1 - LEAST_REACH)


def _raised(groups: list[NeuronGroup], others: list[NeuronGroup]) -> Raised:
    """The thresholds of neurons that states of others raise."""
    if not groups or not others:
        return {}
    own = {name: torch.cat([getattr(group, name) for group in groups]) for name in NEURON_FIELDS}
    states = {name: torch.cat([getattr(group, name) for group in others]) for name in STATE_FIELDS}
    raised: Raised = {}
    found = _near(own, states)
    if not len(found):
        return raised
    neurons, places = found.T
    highest = _products(own, states, neurons, places)
    thresholds = reach_to(highest)
    above = thresholds > own["thresholds"].double()[neurons]
    group_of = _owners([len(group.tokens) for group in groups])
    other_of = _owners([len(group.state_tokens) for group in others])
    starts = torch.tensor([0, *(len(group.tokens) for group in groups)]).cumsum(0)
    pairs: dict[tuple[str, str], list[int]] = {}
    for row in above.nonzero().flatten().tolist():
        pair = groups[group_of[neurons[row]]].key, others[other_of[places[row]]].key
        pairs.setdefault(pair, []).append(row)
    for pair, rows in pairs.items():
        local = neurons[rows] - starts[group_of[neurons[rows[0]]]]
        raised[pair] = local, thresholds[rows]
    return raised


def _owners(sizes: list[int]) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.long))


def _near(own: Mapping[str, Tensor], states: Mapping[str, Tensor]) -> Tensor:
    """Pairs of neurons and states of other tokens at which they may not be zero, of shape `(pairs, 2)`."""
    points = states["states"].float() * states["state_steps"][:, None]
    size, found = max(1, _MOST_PRODUCTS // max(1, len(points))), []
    for start in range(0, len(own["tokens"]), size):
        part = {name: tensor[start : start + size] for name, tensor in own.items()}
        z = (part["directions"].float() * part["direction_steps"][:, None]) @ points.T + part["offsets"][:, None]
        # Where θ is raised, 1 − SHARE·(1 − z) is above it.
        least = 1 - (1 - part["thresholds"]) / SHARE - _MARGIN
        near = (z > least[:, None]) & (part["tokens"][:, None] != states["state_tokens"][None])
        pairs = near.nonzero()
        pairs[:, 0] += start
        found.append(pairs)
    return torch.cat(found) if found else torch.empty(0, 2, dtype=torch.long)


def _products(own: Mapping[str, Tensor], states: Mapping[str, Tensor], neurons: Tensor, places: Tensor) -> Tensor:
    """`z` of pairs: the sums are of whole numbers that double precision holds, so that they are exact in any order."""
    sums = torch.cat(
        [
            (own["directions"][rows].double() * states["states"][columns].double()).sum(-1)
            for rows, columns in zip(neurons.split(2**14), places.split(2**14), strict=True)
        ]
    )
    steps = own["direction_steps"].double()[neurons] * states["state_steps"].double()[places]
    return sums * steps + own["offsets"].double()[neurons]
