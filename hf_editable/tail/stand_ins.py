"""Modules that stand in for others in copies of a model: they record how they are called, or change it."""

from typing import Any

from torch import Tensor, nn

from ..models.private_names import check_private_names
from ..numerics.gradients import branch


check_private_names(__name__)


# The first arguments of every family's decoder layers. FSMT's have others, so they are given recorded calls only.
_LEADING_ARGUMENTS = ("hidden_states", "attention_mask")


class Recorded(Exception):
    """Ends a forward pass at a `Recorder`."""


class Recorder(nn.Module):
    """Stands in for the module at which a forward pass is to end: ends it, and keeps what it was called with."""

    def forward(self, *args: Any, **kwargs: Any) -> None:
        self._call = (args, kwargs)
        raise Recorded

    def take(self) -> tuple[tuple, dict[str, Any]]:
        """The call that ended the pass; it is kept no longer."""
        call, self._call = self._call, ((), {})
        return call


class Replay(nn.Module):
    """Stands in for a layer: calls it as it was called before, or with some of its arguments replaced."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        self.call: tuple[tuple, dict[str, Any]] | None = None
        self.replaced: dict[str, Any] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.call is not None:
            args, kwargs = self.call
        for name, value in self.replaced.items():
            place = _LEADING_ARGUMENTS.index(name)
            if place < len(args):
                args = (*args[:place], value, *args[place + 1 :])
            else:
                kwargs = {**kwargs, name: value}
        return self.layer(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # Some decoders read attributes of their layers (T5Gemma: `attention_type`).
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


class Given(Replay):
    """Stands in for a layer that does not run: gives what it is told to."""

    output: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.output


def make_embeddings_sparse(twin: nn.Module) -> None:
    """
    Give embeddings of a copy sparse gradients, which reach the shared weights in one sum. With dense ones, each batch
    that is trained through would make a gradient of the size of the vocabulary.
    """
    branches: dict[int, Tensor] = {}
    for module in twin.modules():
        if isinstance(module, nn.Embedding) and module.weight.device.type in ("cpu", "cuda"):
            weight, module.sparse = module.weight, True
            module._parameters["weight"] = branches.setdefault(id(weight), branch(weight))
