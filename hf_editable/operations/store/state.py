"""What a model is with so many edits of a store."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from ...patches.application import looked_up
from ...patches.changes import Change, Lookup, Whole, changed_values


@dataclass(frozen=True)
class State:
    """
    The model with so many edits of a store.

    Args:
        tensors (`dict[str, torch.Tensor]`): the values of all tensors that edits of the store may change.
        table (`dict[tuple[int, ...], tuple[int, ...]]`, *optional*): what is looked up beside it; see [`Lookup`].
    """

    tensors: dict[str, Tensor]
    table: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)

    def after(self, changes: Sequence[Change]) -> "State":
        """The state with further changes."""
        table = dict(self.table)
        for change in changes:
            table |= change.table if isinstance(change, Lookup) else {}
        values = {name: tensor.cpu() for name, tensor in changed_values(changes, self.tensors).items()}
        return State({**self.tensors, **values}, {source: said for source, said in table.items() if said})

    def changes(self, model: nn.Module) -> tuple[Change, ...]:
        """What brings a model to this state, whatever edits of the store it has."""
        table = {**dict.fromkeys(looked_up(model), ()), **self.table}
        return (Whole(self.tensors), *([Lookup(table)] if table else []))
