"""What an edit of a store changed, in tensors and in translations."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ..gate.report import ChangedTranslation
from .manifest import StoredEdit


@dataclass(frozen=True)
class TensorChange:
    """
    How far an edit moved one tensor.

    Args:
        name (`str`): its name in the model.
        shape (`tuple[int, ...]`): its shape.
        changed (`float`): share of its entries that changed.
        norm (`float`): L2 norm of the change.
        relative_norm (`float`, *optional*): that over the tensor's norm before the edit; `None` if that was 0.
    """

    name: str
    shape: tuple[int, ...]
    changed: float
    norm: float
    relative_norm: float | None


@dataclass(frozen=True)
class EditDiff:
    """
    What an edit of a store changed.

    Args:
        edit ([`StoredEdit`]): the edit.
        tensors (`list[TensorChange]`): against the model with the edits before it.
        translations (`list[ChangedTranslation]`, *optional*):
            the changed translations of its impact report; `None` if it was stored without one.
    """

    edit: StoredEdit
    tensors: list[TensorChange]
    translations: list[ChangedTranslation] | None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        translations = None if self.translations is None else [asdict(each) for each in self.translations]
        tensors = [{**asdict(each), "shape": list(each.shape)} for each in self.tensors]
        return {"edit": self.edit.to_dict(), "tensors": tensors, "translations": translations}


def tensor_changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[TensorChange]:
    """How far each tensor of `after` is from that of its name in `before`."""
    changes = []
    for name, tensor in after.items():
        old, new = before[name].double(), tensor.double()
        norm, size = (new - old).norm().item(), old.norm().item()
        changed = (new != old).double().mean().item() if new.numel() else 0.0
        changes.append(TensorChange(name, tuple(tensor.shape), changed, norm, norm / size if size else None))
    return changes
