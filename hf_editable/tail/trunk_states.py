"""What the first edited layer was called with: all that an edit needs to know of what comes before it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .prefix_tree import PrefixTree


@dataclass
class TrunkStates:
    """
    What the first edited layer was called with, for a batch of translations.

    Args:
        call (`tuple[tuple, dict]`): positional and keyword arguments of that layer.
        input_ids (`torch.LongTensor` of shape `(batch, source_length)`, *optional*): the source.
        encoder_states (`torch.Tensor` of shape `(batch, source_length, hidden)`): the encoder's output.
        attention_mask (`torch.LongTensor` of shape `(batch, source_length)`, *optional*): the source's mask.
        decoder_input_ids (`torch.LongTensor` of shape `(batch, length)`): the decoder's input tokens.
    """

    call: tuple[tuple, dict[str, Any]]
    input_ids: Tensor | None
    encoder_states: Tensor
    attention_mask: Tensor | None
    decoder_input_ids: Tensor
    batch_dimensions: Mapping[int | str, int | None]

    def differentiable(self) -> list[Tensor]:
        """The tensors among the states through which gradients reach the trunk, each once."""
        found: dict[int, Tensor] = {}

        def note(tensor: Tensor) -> Tensor:
            if tensor.requires_grad:
                found[id(tensor)] = tensor
            return tensor

        _each_tensor(self.call, note)
        note(self.encoder_states)
        return list(found.values())

    def replaced(self, tensors: Sequence[Tensor]) -> "TrunkStates":
        """The states with others in place of `differentiable()`."""
        new = {id(old): tensor for old, tensor in zip(self.differentiable(), tensors, strict=True)}

        def pick(tensor: Tensor) -> Tensor:
            return new.get(id(tensor), tensor)

        return replace(self, call=_each_tensor(self.call, pick), encoder_states=pick(self.encoder_states))

    def rows(self, index: slice | list[int]) -> "TrunkStates":
        """The states of some of the batch's translations."""
        batch = self.decoder_input_ids.shape[0]

        def pick(value: Any, dimension: int | None = 0) -> Any:
            # A layer's batched arguments have two dimensions or more; those with a leading 1 broadcast over the batch.
            if isinstance(value, tuple | list):
                return type(value)(pick(item, dimension) for item in value)
            shared = dimension is None or not isinstance(value, Tensor) or value.dim() < 2
            if shared or value.shape[dimension] != batch:
                return value
            return value[index] if dimension == 0 else value[:, index]

        args, kwargs = self.call
        dimensions = self.batch_dimensions
        return replace(
            self,
            call=(
                tuple(pick(value, dimensions.get(position, 0)) for position, value in enumerate(args)),
                {name: pick(value, dimensions.get(name, 0)) for name, value in kwargs.items()},
            ),
            input_ids=pick(self.input_ids),
            encoder_states=self.encoder_states[index],
            attention_mask=pick(self.attention_mask),
            decoder_input_ids=self.decoder_input_ids[index],
        )


@dataclass
class PrefixStates:
    """
    What the first edited layer is given on the distinct prefixes of translations of one source.

    Args:
        tree ([`PrefixTree`]): the prefixes.
        hidden (`torch.Tensor` of shape `(1, prefixes, hidden)`): the hidden states.
        source ([`TrunkStates`]): the source, beside a decoder input of one token.
    """

    tree: PrefixTree
    hidden: Tensor
    source: TrunkStates

    def differentiable(self) -> list[Tensor]:
        """See [`TrunkStates`]."""
        return self._together().differentiable()

    def replaced(self, tensors: Sequence[Tensor]) -> "PrefixStates":
        """See [`TrunkStates`]."""
        states = self._together().replaced(tensors)
        return replace(self, hidden=states.call[0][0], source=replace(states, call=self.source.call))

    def _together(self) -> TrunkStates:
        return replace(self.source, call=((self.hidden,), {}))

    def rows(self, index: list[int]) -> "PrefixStates":
        """The states of some of the translations' prefixes."""
        tree, chosen = self.tree.select(index)
        return PrefixStates(tree, self.hidden[:, chosen], self.source)


def _each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Nested tuples, lists and dictionaries with all tensors in them changed."""
    if isinstance(value, tuple | list):
        return type(value)(_each_tensor(item, change) for item in value)
    if isinstance(value, dict):
        return {name: _each_tensor(item, change) for name, item in value.items()}
    return change(value) if isinstance(value, Tensor) else value
