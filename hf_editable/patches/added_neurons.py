"""
Neurons that edits add to a feed-forward: in groups, one for each correction, that know of each other only what they
must not disturb. What a model gets follows from the set of its groups, whichever way they came together.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
import xxhash
from torch import Tensor, nn

from ..errors import EditableValueError
from ..runs.fingerprints import fingerprint
from .beside import BesideParameters


# Of whole numbers that keep directions and states.
LEVELS = 2**15 - 1
# Of tokens, where every token is another one.
NO_TOKEN = -1
_MARK = ":neurons."


@dataclass(frozen=True)
class Site:
    """
    A feed-forward that neurons are added to.

    Args:
        firsts (`tuple[str, ...]`): paths of its linear maps; see [`FeedForward`].
        second (`str`): path of the linear map back.
        sharpness (`float`):
            what neurons' inputs are multiplied by, and their outputs divided by: 1 for ReLU, more for activations that
            are smooth around their threshold.
        fits_plain (`bool`): whether a plain checkpoint can hold them.
    """

    firsts: tuple[str, ...]
    second: str
    sharpness: float
    fits_plain: bool


def to_levels(rows: Tensor) -> tuple[Tensor, Tensor]:
    """
    Rows as whole numbers, whose products are exact in every order of summation, and what they are multiples of.

    Args:
        rows (`torch.Tensor` of shape `(rows, columns)`): finite.

    Returns:
        `tuple(torch.Tensor, torch.Tensor)`: `int16` of the same shape, and `float32` of shape `(rows,)`.
    """
    steps = (rows.abs().amax(-1).double() / LEVELS).clamp(min=1e-30).float()
    levels = (rows.double() / steps.double()[:, None]).round().clamp(-LEVELS, LEVELS)
    return levels.to(torch.int16), steps


@dataclass(eq=False)
class NeuronGroup:
    """
    The neurons of one correction. One neuron gives `relu((z − θ)/(1 − θ))` times its value, where
    `z = direction·x + offset` is 1 at the state that it is for.

    Args:
        directions (`torch.Tensor` of shape `(neurons, hidden)`): `int16`, multiples of `direction_steps`.
        direction_steps (`torch.Tensor` of shape `(neurons,)`): `float32`.
        offsets (`torch.Tensor` of shape `(neurons,)`): `float32`.
        thresholds (`torch.Tensor` of shape `(neurons,)`): `float32`, the θ that each has by itself; below 1.
        values (`torch.Tensor` of shape `(neurons, hidden)`): `float16`, added to the feed-forward's output.
        tokens (`torch.Tensor` of shape `(neurons,)`): `int32`, the token that each makes likelier.
        states (`torch.Tensor` of shape `(states, hidden)`):
            `int16`, what the feed-forward is given on the way to the correction's target, which neurons of other
            tokens must not change.
        state_steps (`torch.Tensor` of shape `(states,)`): `float32`.
        state_tokens (`torch.Tensor` of shape `(states,)`): `int32`, the token that follows each.
    """

    directions: Tensor
    direction_steps: Tensor
    offsets: Tensor
    thresholds: Tensor
    values: Tensor
    tokens: Tensor
    states: Tensor
    state_steps: Tensor
    state_tokens: Tensor

    @functools.cached_property
    def key(self) -> str:
        """A hash of all that it holds, by which it is known."""
        return fingerprint({name: getattr(self, name) for name in TYPES})[:32]

    @functools.cached_property
    def hashes(self) -> Tensor:
        """A number for each neuron, which sorts them the same way whatever else there is."""
        columns = [getattr(self, name).contiguous() for name in NEURON_FIELDS]
        rows = [column.view(len(column), -1).view(torch.uint8).numpy() for column in columns]
        numbers = [xxhash.xxh3_64_intdigest(b"".join(row.tobytes() for row in each)) for each in zip(*rows)]
        return torch.tensor([number >> 1 for number in numbers], dtype=torch.long)


NEURON_FIELDS = ("directions", "direction_steps", "offsets", "thresholds", "values", "tokens")
STATE_FIELDS = ("states", "state_steps", "state_tokens")
TYPES = {
    **dict.fromkeys(("directions", "states"), torch.int16),
    **dict.fromkeys(("direction_steps", "offsets", "thresholds", "state_steps"), torch.float32),
    **dict.fromkeys(("tokens", "state_tokens"), torch.int32),
    "values": torch.float16,
}
_MATRICES = ("directions", "states", "values")


@dataclass(eq=False)
class AddedNeurons(BesideParameters):
    """
    Groups of neurons that are added to a feed-forward. They commute: see [`Composition`].

    Args:
        site ([`Site`]): the feed-forward.
        groups (`tuple[NeuronGroup, ...]`): the groups, at least one, in any order.
    """

    kind: ClassVar[str] = "added_neurons"

    site: Site
    groups: tuple[NeuronGroup, ...]

    def __post_init__(self):
        self.groups = tuple(sorted(self.groups, key=lambda group: group.key))

    @property
    def fits_plain_checkpoint(self) -> bool:
        """See [`Change`]."""
        return self.site.fits_plain

    @property
    def count(self) -> int:
        """How many neurons there are."""
        return sum(len(group.tokens) for group in self.groups)

    def check_site(self, model: nn.Module) -> None:
        """
        Raises:
            EditableValueError: if a model has no such feed-forward, or one of another size, or there are values that
                are not finite.
        """
        check_site(model, self.site)
        first, second = model.get_submodule(self.site.firsts[0]), model.get_submodule(self.site.second)
        for group in self.groups:
            found = (group.directions.shape[1], group.states.shape[1], group.values.shape[1])
            if found != (first.in_features, first.in_features, second.out_features):
                raise EditableValueError(
                    f"The patch adds neurons of width {found[0]} to {self.site.second!r}; the model's is "
                    f"{first.in_features}. Apply the patch to its own base model."
                )
            for name, kind in TYPES.items():
                if kind.is_floating_point and not bool(torch.isfinite(getattr(group, name)).all()):
                    raise EditableValueError(
                        f"The patch's neurons have {name} that are NaN or infinite, so it is not applied. Make the "
                        "edit anew."
                    )
            if bool((group.thresholds >= 1).any()):
                raise EditableValueError("The patch's neurons have thresholds of 1 or more. Make the edit anew.")

    def saved(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """See [`Change`]."""
        sizes = [[len(group.tokens), len(group.state_tokens)] for group in self.groups]
        description = {"kind": self.kind, **_described(self.site), "groups": sizes}
        joined = {name: torch.cat([getattr(group, name) for group in self.groups]) for name in TYPES}
        return description, {f"{self.site.second}{_MARK}{name}": tensor for name, tensor in joined.items()}

    @classmethod
    def load(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "AddedNeurons":
        """See [`Change`]."""
        site, sizes = _site(description), description.get("groups")
        if not isinstance(sizes, list) or not sizes or not all(_is_size(size) for size in sizes):
            raise ValueError(f"the groups of added neurons are {sizes!r:.80}")
        names = {name: f"{site.second}{_MARK}{name}" for name in TYPES}
        if missing := [name for name in names.values() if name not in tensors]:
            raise ValueError(f"the added neurons lack {', '.join(missing)}")
        parts = {}
        for name, place in names.items():
            tensor, counts = tensors[place], [size[name in STATE_FIELDS] for size in sizes]
            if tensor.dtype != TYPES[name] or tensor.dim() != 1 + (name in _MATRICES) or len(tensor) != sum(counts):
                raise ValueError(f"{place!r} is {tensor.dtype} of shape {tuple(tensor.shape)}")
            parts[name] = tensor.split(counts)
        groups = [NeuronGroup(**dict(zip(parts, each, strict=True))) for each in zip(*parts.values(), strict=True)]
        return cls(site, tuple(groups))


@dataclass(eq=False)
class RemovedNeurons(BesideParameters):
    """
    Groups of neurons that are taken out of a feed-forward again; of those that are not there, nothing is.

    Args:
        site ([`Site`]): the feed-forward.
        keys (`tuple[str, ...]`): of the groups.
    """

    kind: ClassVar[str] = "removed_neurons"
    fits_plain_checkpoint: ClassVar[bool] = True

    site: Site
    keys: tuple[str, ...]

    def check_site(self, model: nn.Module) -> None:
        """See [`AddedNeurons`]."""
        check_site(model, self.site)

    def saved(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """See [`Change`]."""
        return {"kind": self.kind, **_described(self.site), "keys": sorted(self.keys)}, {}

    @classmethod
    def load(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "RemovedNeurons":
        """See [`Change`]."""
        keys = description.get("keys")
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError(f"the keys of removed neurons are {keys!r:.80}")
        return cls(_site(description), tuple(keys))


def belongs_to_neurons(name: str) -> bool:
    """Whether a tensor of a patch's file belongs to added neurons."""
    return any(name.endswith(f"{_MARK}{field.name}") for field in fields(NeuronGroup))


def check_site(model: nn.Module, site: Site) -> None:
    """
    Raises:
        EditableValueError: if a model has no such feed-forward.
    """
    modules = dict(model.named_modules())
    for path in (*site.firsts, site.second):
        if not hasattr(modules.get(path), "in_features"):
            raise EditableValueError(
                f"The patch adds neurons to {path!r:.200}, which is no linear layer of {type(model).__name__}. Apply "
                "it to the model that it was made from."
            )
    widths = {modules[path].out_features for path in site.firsts} | {modules[site.second].in_features}
    if len(widths) > 1:
        raise EditableValueError(
            f"The patch adds neurons between {', '.join(site.firsts)} and {site.second}, which do not follow each "
            "other in this model. Apply it to the model that it was made from."
        )


def _described(site: Site) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(site).items()}


def _site(description: Mapping[str, Any]) -> Site:
    values = [description.get(item.name) for item in fields(Site)]
    firsts, second, sharpness, fits_plain = values
    paths = [*firsts, second] if isinstance(firsts, list) and firsts else [None]
    numbers = isinstance(sharpness, int | float) and not isinstance(sharpness, bool) and 0 < sharpness < 1e6
    if not all(isinstance(path, str) for path in paths) or not numbers or not isinstance(fits_plain, bool):
        raise ValueError(f"the place of added neurons is {values!r:.200}")
    return Site(tuple(firsts), second, float(sharpness), fits_plain)


def _is_size(size: Any) -> bool:
    return isinstance(size, list) and len(size) == 2 and all(type(count) is int and count >= 0 for count in size)
