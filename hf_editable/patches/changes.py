"""
What an edit does to a model: new values of tensors, matrices of low rank added to others, a table beside it; and, in
`added_neurons`, more neurons.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import EditableValueError
from .added_neurons import AddedNeurons, NeuronGroup, RemovedNeurons, Site
from .beside import BesideParameters


# Columns of a low-rank change's factors, as they are saved.
_LEFT, _RIGHT = ":left", ":right"


@runtime_checkable
class Change(Protocol):
    """
    What an edit does to a model. An [`EditPatch`] holds one or several.

    Attributes:
        kind (`str`): what files call changes of this class.
        fits_plain_checkpoint (`bool`): whether a plain checkpoint of transformers can hold the changed model.
    """

    kind: ClassVar[str]
    fits_plain_checkpoint: ClassVar[bool]

    @property
    def names(self) -> list[str]:
        """The model's parameters that it gives other values."""
        ...

    def values(self, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """
        The parameters' values with the change: the same bits on every machine.

        Args:
            before (`dict[str, torch.Tensor]`): the values without it, those of `names` among them.
        """
        ...

    def check_fit(self, name: str, before: Tensor) -> None:
        """
        Check that a parameter can be changed.

        Raises:
            EditableValueError: if it is of another shape or type, or the change has values that are not finite.
        """
        ...

    def saved(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a file keeps: a description, in plain JSON values, and tensors by name."""
        ...

    @classmethod
    def load(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Change":
        """
        Read what `saved` gave.

        Raises:
            ValueError: if a tensor is missing or of another form.
        """
        ...


@dataclass(eq=False)
class Whole:
    """
    New values of whole tensors.

    Args:
        tensors (`dict[str, torch.Tensor]`): the values, by the tensors' names in the model.
    """

    kind: ClassVar[str] = "whole"
    fits_plain_checkpoint: ClassVar[bool] = True

    tensors: dict[str, Tensor]

    @property
    def names(self) -> list[str]:
        """See [`Change`]."""
        return list(self.tensors)

    def values(self, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See [`Change`]."""
        return dict(self.tensors)

    def check_fit(self, name: str, before: Tensor) -> None:
        """See [`Change`]."""
        tensor = self.tensors[name]
        if tensor.shape != before.shape or tensor.dtype != before.dtype:
            raise EditableValueError(
                f"The patch's {name!r} is {tensor.dtype} of shape {tuple(tensor.shape)}; the model's is "
                f"{before.dtype} of shape {tuple(before.shape)}. Apply the patch to its own base model, loaded with "
                f"dtype={tensor.dtype}, and convert the model after that."
            )
        _check_finite(name, tensor)

    def saved(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """See [`Change`]."""
        return {"kind": self.kind, "tensors": sorted(self.tensors)}, dict(self.tensors)

    @classmethod
    def load(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Whole":
        """See [`Change`]."""
        names = description.get("tensors")
        if not isinstance(names, list) or not all(isinstance(name, str) and name in tensors for name in names):
            raise ValueError(f"the tensors of a whole change are {names!r:.80}")
        return cls({name: tensors[name] for name in names})


@dataclass(eq=False)
class LowRank:
    """
    A matrix of low rank that is added to a matrix: `W ← W + U·Vᵀ`.

    Args:
        name (`str`): the matrix' name in the model.
        left (`torch.Tensor` of shape `(rows, rank)`): U.
        right (`torch.Tensor` of shape `(columns, rank)`): V.
    """

    kind: ClassVar[str] = "low_rank"
    fits_plain_checkpoint: ClassVar[bool] = True

    name: str
    left: Tensor
    right: Tensor

    @property
    def names(self) -> list[str]:
        """See [`Change`]."""
        return [self.name]

    @torch.no_grad()
    def values(self, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See [`Change`]."""
        weight = before[self.name]
        left, right = self.left.to(weight.device), self.right.to(weight.device)
        # One outer product after the other: a product of matrices is summed in another order by another processor.
        total = torch.zeros(weight.shape, dtype=left.dtype, device=weight.device)
        for row, column in zip(left.T, right.T, strict=True):
            total += torch.outer(row, column)
        return {self.name: (weight.to(left.dtype) + total).to(weight.dtype)}

    def check_fit(self, name: str, before: Tensor) -> None:
        """See [`Change`]."""
        shape = (self.left.shape[0], self.right.shape[0])
        if before.shape != shape:
            raise EditableValueError(
                f"The patch changes {name!r} as a matrix of shape {shape}; the model's has {tuple(before.shape)}. "
                "Apply the patch to its own base model."
            )
        for factor in (self.left, self.right):
            _check_finite(name, factor)

    def saved(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """See [`Change`]."""
        factors = {self.name + _LEFT: self.left, self.name + _RIGHT: self.right}
        return {"kind": self.kind, "matrix": self.name}, factors

    @classmethod
    def load(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "LowRank":
        """See [`Change`]."""
        name = description.get("matrix")
        if not isinstance(name, str) or name + _LEFT not in tensors or name + _RIGHT not in tensors:
            raise ValueError(f"the matrix of a low-rank change is {name!r:.80}, and its factors are not all there")
        left, right = tensors[name + _LEFT], tensors[name + _RIGHT]
        if left.dim() != 2 or right.dim() != 2 or left.shape[1] != right.shape[1] or left.dtype != right.dtype:
            raise ValueError(f"the factors of {name!r} are of shapes {tuple(left.shape)} and {tuple(right.shape)}")
        return cls(name, left, right)


@dataclass(eq=False)
class Lookup(BesideParameters):
    """
    A table beside the model: exactly this source gets exactly this translation, whatever the model says.

    It moves no parameter. [`TranslationEditor.translate`] and all that translates texts here ask it; plain `generate`
    does not, and no plain checkpoint can hold it.

    Args:
        table (`dict[tuple[int, ...], tuple[int, ...]]`):
            token ids of translations, by those of their sources; none takes back what an earlier table has.
    """

    kind: ClassVar[str] = "lookup"
    fits_plain_checkpoint: ClassVar[bool] = False

    table: dict[tuple[int, ...], tuple[int, ...]]

    def saved(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """See [`Change`]."""
        return {"kind": self.kind, "table": [[list(source), list(said)] for source, said in self.table.items()]}, {}

    @classmethod
    def load(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Lookup":
        """See [`Change`]."""
        rows = description.get("table")
        if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
            raise ValueError(f"the table of a lookup is {rows!r:.80}")
        return cls({tuple(source): tuple(said) for source, said in rows})


def parameter_of(name: str) -> str:
    """The parameter that a tensor of a patch's file belongs to."""
    return name.removesuffix(_LEFT).removesuffix(_RIGHT)


KINDS: dict[str, type[Change]] = {cls.kind: cls for cls in (Whole, LowRank, Lookup, AddedNeurons, RemovedNeurons)}


def changed_values(changes: Sequence[Change], before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """
    The values that parameters have after changes, made one after the other.

    Args:
        changes (`Sequence[Change]`): the changes.
        before (`dict[str, torch.Tensor]`): the values before them.
    """
    after: dict[str, Tensor] = {}
    for change in changes:
        after |= change.values({**before, **after})
    return after


def fold(changes: Sequence[Change], before: Mapping[str, Tensor]) -> tuple[Change, ...]:
    """
    Changes, made one after the other, as few as do the same, every bit. What one change alone does to a parameter
    stays as it is; where several meet, order matters, and their outcome becomes new values.

    Args:
        changes (`Sequence[Change]`): the changes.
        before (`dict[str, torch.Tensor]`): the parameters' values before them.
    """
    table = {source: said for change in changes if isinstance(change, Lookup) for source, said in change.table.items()}
    counts = Counter(name for change in changes for name in change.names)
    after = changed_values(changes, before)
    single = [change for change in changes if isinstance(change, LowRank) and counts[change.name] == 1]
    whole = {name: after[name] for name in after if name not in {change.name for change in single}}
    folded: list[Change] = [Whole(whole)] if whole else []
    return (*folded, *single, *folded_neurons(changes), *([Lookup(table)] if table else []))


def folded_neurons(changes: Iterable[Change]) -> list[AddedNeurons | RemovedNeurons]:
    """For each feed-forward, the groups that changes take out of it and do not add, and those that they add."""
    added: dict[Site, dict[str, NeuronGroup]] = {}
    removed: dict[Site, dict[str, None]] = {}
    for change in changes:
        if isinstance(change, AddedNeurons):
            added.setdefault(change.site, {}).update({group.key: group for group in change.groups})
        elif isinstance(change, RemovedNeurons):
            own = added.setdefault(change.site, {})
            gone = [key for key in change.keys if own.pop(key, None) is None]
            removed.setdefault(change.site, {}).update(dict.fromkeys(gone))
    out = [RemovedNeurons(site, tuple(keys)) for site, keys in removed.items() if keys]
    return [*out, *(AddedNeurons(site, tuple(groups.values())) for site, groups in added.items() if groups)]


def together(parts: Iterable[Sequence[Change]]) -> tuple[Change, ...]:
    """Several additions of neurons as one."""
    return tuple(folded_neurons(change for part in parts for change in part))


def is_of_neurons(changes: Iterable[Change]) -> bool:
    """Whether changes do nothing but to add neurons, so that they can be taken out whatever came after them."""
    return all(isinstance(change, AddedNeurons) for change in changes)


def is_of_parameters(changes: Iterable[Change]) -> bool:
    """Whether changes add no neurons, and take none out."""
    return not any(isinstance(change, AddedNeurons | RemovedNeurons) for change in changes)


def scaled(changes: Sequence[Change], before: Mapping[str, Tensor], share: float) -> tuple[Change, ...] | None:
    """
    Changes that go a share of the way; `None` if there is nothing between a change and none.

    Args:
        changes (`Sequence[Change]`): the changes.
        before (`dict[str, torch.Tensor]`): the parameters' values before them.
        share (`float`): 0 changes nothing, 1 is all the way.
    """
    if not all(isinstance(change, Whole | LowRank) for change in changes):
        return None
    found: list[Change] = []
    for change in changes:
        if isinstance(change, LowRank):
            found.append(LowRank(change.name, share * change.left, change.right))
        else:
            moved = {name: _between(before[name], end, share) for name, end in change.tensors.items()}
            found.append(Whole(moved))
    return tuple(found)


def same_changes(left: Sequence[Change], right: Sequence[Change]) -> bool:
    """Whether changes are equal, every bit."""
    if len(left) != len(right):
        return False
    for one, other in zip(left, right, strict=True):
        (described, tensors), (expected, others) = one.saved(), other.saved()
        if described != expected or not same_tensors(tensors, others):
            return False
    return True


def same_tensors(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    """Whether tensors of the same names are equal, on whichever devices they are."""
    if left.keys() != right.keys():
        return False
    return all(torch.equal(left[name], right[name].to(left[name].device)) for name in left)


def _between(start: Tensor, end: Tensor, share: float) -> Tensor:
    """A point of the line between two tensors, in their type."""
    exact = torch.promote_types(start.dtype, torch.float32)
    return torch.lerp(start.detach().to(exact), end.to(exact), share).to(start.dtype)


def _check_finite(name: str, tensor: Tensor) -> None:
    if not bool(torch.isfinite(tensor).all()):
        raise EditableValueError(
            f"The patch's {name!r} has NaN or infinite values, so it is not applied. Make the edit anew."
        )


def _is_row(row: Any) -> bool:
    def is_ids(ids: Any) -> bool:
        return isinstance(ids, list) and all(type(token) is int and token >= 0 for token in ids)

    return isinstance(row, list) and len(row) == 2 and all(map(is_ids, row))
