"""Copies of a model of which one part runs: all before the first edited decoder layer, or all from it on."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import EditableTypeError
from ..models.private_copies import shared_copy
from ..models.private_names import check_private_names
from .prefix_tree import PrefixAttentionConfig, PrefixTree
from .stand_ins import Recorded, Recorder, Replay, make_embeddings_sparse


check_private_names(__name__)


# Positional and keyword arguments of a module.
Call = tuple[tuple, dict[str, Any]]


class PartialCopy:
    """
    A copy of a model that shares its tensors, has dropout off, and has only some of the decoder's layers.

    Args:
        model ([`~transformers.PreTrainedModel`]): the copy, to be called as the whole model is.
        layers (`list[Replay]`): the decoder layers that it has.
        recorder (`Recorder`): ends passes, in its own place among the layers or in that of another module.
    """

    def __init__(self, model: PreTrainedModel, layers: Sequence[Replay], recorder: Recorder):
        self.model, self.layers = model, layers
        self._recorder = recorder
        self._attention = PrefixAttentionConfig.of(layers)

    @contextmanager
    def replaying(
        self, call: Call | None = None, hidden: Tensor | None = None, tree: PrefixTree | None = None
    ) -> Iterator[None]:
        """
        Change what the layers are called with inside the block.

        Args:
            call (`tuple[tuple, dict]`, *optional*): what the first of them is called with.
            hidden (`torch.Tensor`, *optional*): or only its hidden states.
            tree ([`PrefixTree`], *optional*): what takes the place of the attention mask in all of them.
        """
        self._replay(call, hidden, tree)
        try:
            yield
        finally:
            self._replay()

    def _replay(self, call: Call | None = None, hidden: Tensor | None = None, tree: PrefixTree | None = None) -> None:
        for attention in self._attention:
            attention.takes_trees = tree is not None
        for layer in self.layers:
            layer.call, layer.replaced = call, {}
            layer.replaced |= {} if hidden is None else {"hidden_states": hidden}
            layer.replaced |= {} if tree is None else {"attention_mask": tree}
            call = hidden = None

    def ending_call(self, run: Callable[[], Any], end: Replay | None = None) -> Call:
        """
        What the module that ends a pass is called with.

        Args:
            run (`Callable`): runs the pass.
            end (`Replay`, *optional*): the module; `None` where the copy has its recorder in place of one.
        """
        ended = None if end is None else end.layer
        if end is not None:
            end.layer = self._recorder
        try:
            run()
        except Recorded:
            return self._recorder.take()
        finally:
            if end is not None:
                end.layer = ended
        raise EditableTypeError(f"{type(self.model).__name__} skipped its decoder layers, so they cannot be edited.")

    def ending_hidden(self, run: Callable[[], Any], end: Replay | None = None) -> Tensor:
        """The hidden states that the module is called with: see `ending_call`."""
        args, kwargs = self.ending_call(run, end)
        return args[0] if args else kwargs["hidden_states"]


class TrunkCopy(PartialCopy):
    """
    The encoder, the embeddings and the decoder layers before the first edited one, at which a pass ends.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model.
        layers (`torch.nn.ModuleList`): all layers of its decoder.
        first (`int`): index of the first edited one.
    """

    def __init__(self, model: PreTrainedModel, layers: nn.ModuleList, first: int):
        copies: dict[nn.Module, nn.Module] = {}
        kept, recorder = [Replay(shared_copy(layer, copies)) for layer in layers[:first]], Recorder()
        copies[layers] = nn.ModuleList([*kept, recorder]).eval()
        super().__init__(shared_copy(model, copies), kept, recorder)
        make_embeddings_sparse(self.model)


class TailCopy(PartialCopy):
    """
    The decoder layers from the first edited one on, and what comes after them.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model.
        layers (`torch.nn.ModuleList`): all layers of its decoder.
        first (`int`): index of the first edited one.
        names (`Iterable[str]`): names of the edited parameters in the model.

    Attributes:
        head (`Replay`, *optional*): stands for the output projection, if that is a linear layer.
    """

    def __init__(self, model: PreTrainedModel, layers: nn.ModuleList, first: int, names: Iterable[str]):
        encoder, head = model.get_encoder(), model.get_output_embeddings()
        copies: dict[nn.Module, nn.Module] = {encoder: encoder}
        self.head: Replay | None = None
        if isinstance(head, nn.Linear):
            copies[head] = self.head = Replay(shared_copy(head, {}))
        kept = [Replay(shared_copy(layer, copies)) for layer in layers[first:]]
        copies[layers] = nn.ModuleList(kept).eval()
        super().__init__(shared_copy(model, copies), kept, Recorder())
        self._places: dict[str, tuple[nn.Module, str]] = {}
        for name in names:
            path, _, attribute = name.rpartition(".")
            self._places[name] = copies[model.get_submodule(path)], attribute

    def set_parameters(self, values: Mapping[str, Tensor]) -> None:
        """Let the copy's edited parameters be these tensors; the model's are left alone."""
        for name, value in values.items():
            module, attribute = self._places[name]
            module._parameters[attribute] = value

    def linear_layers(self) -> dict[str, nn.Linear]:
        """The copy's linear layers whose weight is edited, by its name in the model."""
        return {
            name: module
            for name, (module, attribute) in self._places.items()
            if isinstance(module, nn.Linear) and attribute == "weight"
        }
