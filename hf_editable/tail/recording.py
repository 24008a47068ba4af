"""What the first edited layer is called with, recorded once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor, nn

from ..models.families import BATCH_DIMENSIONS, decoder_inputs
from .copies import Call, TrunkCopy
from .forward_passes import whole_pass
from .prefix_tree import PrefixTree
from .trunk_states import PrefixStates, TrunkStates


class Recording:
    """
    Runs the trunk and keeps what comes out of it; for the arguments of its methods see those of [`Tail`].

    Args:
        trunk ([`TrunkCopy`]): the model up to its first edited layer.
    """

    def __init__(self, trunk: TrunkCopy):
        self._trunk = trunk

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        encoder = self._trunk.model.get_encoder()
        return encoder(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).last_hidden_state

    def record(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, labels: Tensor, encoded: Tensor | None
    ) -> TrunkStates:
        encoded = self.encode(input_ids, attention_mask) if encoded is None else encoded
        source = (input_ids, encoded, attention_mask)
        if (rows := labels.shape[0] // encoded.shape[0]) > 1:
            source = [None if tensor is None else tensor.repeat_interleave(rows, dim=0) for tensor in source]
        states = self.states(((), {}), *source, decoder_inputs(self._trunk.model, labels))
        return replace(states, call=self._trunk.ending_call(lambda: whole_pass(self._trunk.model, states)))

    def record_prefixes(
        self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor, needed: Tensor, encoded: Tensor | None
    ) -> PrefixStates:
        source = (input_ids, self.encode(input_ids, attention_mask) if encoded is None else encoded, attention_mask)
        tokens = decoder_inputs(self._trunk.model, labels)
        tree = PrefixTree.of(tokens, needed)
        # What the first layer of all is given has the positions in it; it is computed for every row, and no more.
        rows = [None if tensor is None else tensor.expand(len(tokens), *tensor.shape[1:]) for tensor in source]
        whole = self.states(((), {}), *rows, tokens)
        first = self._trunk.layers[0] if self._trunk.layers else None
        hidden = self._trunk.ending_hidden(lambda: whole_pass(self._trunk.model, whole), first)
        hidden = tree.gather(hidden).unsqueeze(0)
        states = PrefixStates(tree, hidden, self.states(((), {}), *source, tokens[:1, :1]))
        if first is None:
            return states
        with self._trunk.replaying(hidden=hidden, tree=tree):
            return replace(
                states, hidden=self._trunk.ending_hidden(lambda: whole_pass(self._trunk.model, states.source))
            )

    def states(
        self,
        call: Call,
        input_ids: Tensor | None,
        encoder_states: Tensor,
        attention_mask: Tensor | None,
        decoder_input_ids: Tensor,
    ) -> TrunkStates:
        dimensions = BATCH_DIMENSIONS.get(self._trunk.model.config.model_type, {})
        return TrunkStates(call, input_ids, encoder_states, attention_mask, decoder_input_ids, dimensions)


@contextmanager
def watched_calls(layer: nn.Module) -> Iterator[list[Call]]:
    """A list that gets the calls of a layer inside the block."""
    calls: list[Call] = []
    handle = layer.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    try:
        yield calls
    finally:
        handle.remove()
