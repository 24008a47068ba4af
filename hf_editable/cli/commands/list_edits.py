"""List the edits of a store in their order, or show one of them and what it changed.

hf-editable list --store edits
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..shared.operating import describe_edits, describe_impact
from ..shared.running import parse_arguments, run_main, tell


if TYPE_CHECKING:
    from ...operations.store.edit_diff import TensorChange

SHOWN_TENSORS = 5


@dataclass
class ListArguments:
    """Which store, and which edit of it."""

    id: str | None = field(
        init=False, default=None, metadata={"nargs": "?", "help": "Edit to show; the beginning of its id is enough."}
    )
    store: str = field(metadata={"help": "Folder of the store."})


def _moved(tensor: "TensorChange") -> tuple[float, str]:
    """How far an edit moved a tensor, of the tensor's own norm: as a number to sort by, and in words."""
    if tensor.relative_norm is None:
        return math.inf if tensor.norm else 0.0, f"from 0 to a norm of {tensor.norm:.3g}"
    return tensor.relative_norm, f"by {tensor.relative_norm:.2%} of its norm"


def _list(argv: list[str] | None) -> None:
    (arguments,) = parse_arguments([ListArguments], argv, __doc__)
    from ...operations.store.edit_store import EditStore

    store = EditStore.open(arguments.store)
    if arguments.id is None:
        edits = store.edits
        tell(describe_edits(edits), base_model=store.base_model, edits=[each.to_dict() for each in edits])
        tell(f"{len(edits)} edits of {store.base_model or 'a model of unknown name'}")
        return
    diff, impact = store.diff(arguments.id), store.impact(arguments.id)
    tell(describe_edits([diff.edit]), edit=store.show(arguments.id), diff=diff.to_dict())
    if impact is not None:
        tell(describe_impact(impact))
    moved = sorted(diff.tensors, key=lambda tensor: _moved(tensor)[0], reverse=True)
    for tensor in moved[:SHOWN_TENSORS]:
        size = " × ".join(map(str, tensor.shape))
        tell(f"{tensor.name} ({size}) moved {_moved(tensor)[1]}")
    if len(moved) > SHOWN_TENSORS:
        tell(f"… and {len(moved) - SHOWN_TENSORS} other tensors, by less.")


def main(argv: list[str] | None = None) -> int:
    """Entry point of `hf-editable list`; returns the exit code."""
    return run_main(_list, argv)
