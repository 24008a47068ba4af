"""The trunk once, the edited tail again and again.

Only some decoder layers move in an edit, so everything before the first of them (the *trunk*: encoder, embeddings,
earlier decoder layers) gives the same states at every step. `Tail` records the call that the first edited layer
receives, and from that record computes the logits under any values of the edited parameters, by running the model's
own code with the earlier layers left out. The logits are those of the full forward pass, bit for bit.

Nothing here changes the model: modules are run through shallow copies that share its tensors, with dropout off.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from ..configuration import EditConfig
from ..models.layers import edited_parameters, find_decoder_layers, layer_indices
from ..numerics.output_projection import TrainedProjection
from . import exactness, stepping
from .copies import Call, TailCopy, TrunkCopy
from .forward_passes import whole_pass
from .linear_capture import LinearCalls, captured_calls
from .output_head import OutputHead
from .recording import Recording, watched_calls
from .trunk_states import PrefixStates, TrunkStates


class Tail:
    """
    The part of a sequence-to-sequence model that an edit changes, and what comes after it.

    Args:
        model ([`~transformers.PreTrainedModel`]): an encoder-decoder model whose decoder is a list of layers.
        config ([`EditConfig`]): `layers_to_transform`, `target_modules` and `exclude_modules` say what is edited.

    Attributes:
        model ([`~transformers.PreTrainedModel`]): the model.
        parameters (`dict[str, torch.nn.Parameter]`): the edited parameters, by their names in the model.
        first_index (`int`): index of the first edited layer in the decoder.
        num_layers (`int`): how many layers the decoder has.

    Raises:
        EditableTypeError: if the model is not an encoder-decoder, or its decoder is not a list of layers.
        EditableValueError: if a layer or module name matches nothing, or a matched parameter is tied to another.
    """

    def __init__(self, model: PreTrainedModel, config: EditConfig):
        _, layers = find_decoder_layers(model)
        edited = layer_indices(config.layers_to_transform, len(layers))
        self.model = model
        self.first_index, self.num_layers = edited[0], len(layers)
        self.parameters = edited_parameters(model, config)
        self._first_layer = layers[self.first_index]
        self._trunk = TrunkCopy(model, layers, self.first_index)
        self._tail = TailCopy(model, layers, self.first_index, self.parameters)
        self._recording, self._head = Recording(self._trunk), OutputHead(model, self._tail.head)
        self._classes, self._recomputes = exactness.classes_of(model), config.checkpoint_edits

    def record(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, labels: Tensor, encoded: Tensor | None = None
    ) -> TrunkStates:
        """
        Run the trunk. A single source is encoded once for all translations.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch or 1, source_length)`, *optional*): source tokens.
            attention_mask (`torch.LongTensor` of shape `(batch or 1, source_length)`, *optional*): their mask.
            labels (`torch.LongTensor` of shape `(batch, length)`): translations, −100 on padding.
            encoded (`torch.Tensor`, *optional*): what `encode` gives for them; `None` runs the encoder.
        """
        return self._recording.record(input_ids, attention_mask, labels, encoded)

    def logits(
        self,
        states: TrunkStates | PrefixStates,
        parameters: Mapping[str, Tensor] | None = None,
        double_backward: bool = False,
    ) -> Tensor:
        """
        Logits of the recorded translations; on prefixes the same but for rounding.

        Args:
            states ([`TrunkStates`] or [`PrefixStates`]): what `record`, `watch` or `record_prefixes` recorded.
            parameters (`dict[str, torch.Tensor]`, *optional*): edited parameters; `None` takes the model's own.
            double_backward (`bool`, *optional*, defaults to `False`):
                Use attention kernels that can be differentiated twice, which the fused ones cannot.

        Returns:
            `torch.Tensor` of shape `(batch, length, vocabulary)`, or `(1, prefixes, vocabulary)`.
        """
        with self._at(states, parameters, double_backward) as given:
            return whole_pass(self._tail.model, given).logits

    def hidden(
        self,
        states: TrunkStates | PrefixStates,
        parameters: Mapping[str, Tensor] | None = None,
        double_backward: bool = False,
    ) -> Tensor:
        """What the output projection is given, of shape `(batch, length, hidden)`; see `logits`."""
        with self._at(states, parameters, double_backward) as given:
            return self._tail.ending_hidden(lambda: whole_pass(self._tail.model, given), self._tail.head)

    @contextmanager
    def _at(
        self, states: TrunkStates | PrefixStates, parameters: Mapping[str, Tensor] | None, double_backward: bool
    ) -> Iterator[TrunkStates]:
        """With the tail at the recorded states and the parameters; gives what to run it with."""
        self._tail.set_parameters(parameters or self.parameters)
        given, changes = states, {}
        if isinstance(states, PrefixStates):
            given, changes = states.source, {"hidden": states.hidden, "tree": states.tree}
        else:
            changes = {"call": states.call}
        with self._tail.replaying(**changes), sdpa_kernel(SDPBackend.MATH) if double_backward else nullcontext():
            yield given

    def record_prefixes(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor,
        needed: Tensor,
        encoded: Tensor | None = None,
    ) -> PrefixStates:
        """
        Run the trunk on the distinct prefixes of translations of one source, where
        [`~prefix_tree.takes_prefix_trees`].

        Args:
            input_ids (`torch.LongTensor` of shape `(1, source_length)`): source tokens.
            attention_mask (`torch.LongTensor` of shape `(1, source_length)`, *optional*): their mask.
            labels (`torch.LongTensor` of shape `(batch, length)`): translations, −100 on padding.
            needed (`torch.LongTensor` of shape `(batch, length)`): labels, −100 also on what is not scored.
            encoded (`torch.Tensor`, *optional*): what `encode` gives for the source; `None` runs the encoder.
        """
        return self._recording.record_prefixes(input_ids, attention_mask, labels, needed, encoded)

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The encoder's output, of shape `(batch, source_length, hidden)`."""
        return self._recording.encode(input_ids, attention_mask)

    def watch(self) -> AbstractContextManager[list[Call]]:
        """Record the first edited layer's calls in ordinary forward passes of the model inside the block."""
        return watched_calls(self._first_layer)

    def states(
        self,
        call: Call,
        input_ids: Tensor | None,
        encoder_states: Tensor,
        attention_mask: Tensor | None,
        decoder_input_ids: Tensor,
    ) -> TrunkStates:
        """A call of the first edited layer that `watch` saw, with what the model was called with then."""
        return self._recording.states(call, input_ids, encoder_states, attention_mask, decoder_input_ids)

    def capture_linear(self) -> AbstractContextManager[dict[str, LinearCalls]]:
        """
        Note what the edited linear layers are given, and what they give, when the tail runs inside the block.

        Gives a dictionary by the names of their weights, which [`~linear_capture.linear_factors`] makes gradients of.

        Example:

        ```python
        >>> from hf_editable.tail.linear_capture import linear_factors

        >>> with tail.capture_linear() as calls:  # doctest: +SKIP
        ...     loss = tail.logits(states).logsumexp(-1).sum()
        >>> for name, (inputs, gradients) in linear_factors(loss, calls).items():  # doctest: +SKIP
        ...     gradient_of_weight = gradients.T @ inputs
        ```
        """
        return captured_calls(self._tail.linear_layers())

    @property
    def fixed_parameters(self) -> list[nn.Parameter]:
        """The model's other parameters that are trained: what comes after the edited ones depends on some of them."""
        edited = {id(parameter) for parameter in self.parameters.values()}
        return [weight for weight in self.model.parameters() if weight.requires_grad and id(weight) not in edited]

    @property
    def projection(self) -> tuple[Tensor, Tensor | None] | None:
        """
        Weight, of shape `(vocabulary, hidden)`, and bias by which logits come from what `hidden` gives. `None` if they
        do so in another way, or in less than single precision.
        """
        return self._head.projection() if exactness.has_linear_logits(self._classes) else None

    @cached_property
    def trained_projection(self) -> TrainedProjection | None:
        """
        The projection for edits that are trained through. `None` where there is no `projection`, where training moves
        a bias of it, and under `checkpoint_edits`, which computes again what this would keep.
        """
        projection = None if self._recomputes else self.projection
        return None if projection is None or self._head.trains_bias else TrainedProjection(projection[0])

    @property
    def is_checked(self) -> bool:
        """Whether `check_exact` has passed for models and decoders of these classes in this process."""
        return exactness.is_checked(self._classes)

    @torch.no_grad()
    def check_exact(self, states: TrunkStates) -> None:
        """
        Hold the tail against a full pass of the decoder, once for each class of models and decoders in a process.

        Raises:
            EditableTypeError: if they differ, as in a decoder that does something of its own between its layers.
        """
        if not self.is_checked:
            found = self.logits(states)
            exactness.check_exact(self.model, states, found, lambda: self.hidden(states), self._head)

    def trunk_step(self, tokens: Tensor, encoder_states: Tensor, attention_mask: Tensor, cache: Cache) -> Tensor:
        """
        Run the trunk on the next token of some prefixes.

        Args:
            tokens (`torch.LongTensor` of shape `(rows, 1)`): the tokens.
            encoder_states (`torch.Tensor` of shape `(rows, source_length, hidden)`): the encoder's output.
            attention_mask (`torch.LongTensor` of shape `(rows, source_length)`): the source's mask.
            cache ([`~transformers.EncoderDecoderCache`]): keys and values of the prefixes; gets those of the tokens.

        Returns:
            `torch.Tensor` of shape `(rows, 1, hidden)`: what the first edited layer is given.
        """
        return stepping.trunk_step(self._trunk, tokens, encoder_states, attention_mask, cache)

    def tail_step(
        self,
        hidden: Tensor,
        tokens: Tensor,
        encoder_states: Tensor,
        attention_mask: Tensor,
        visible: Tensor,
        cache: Cache,
    ) -> Iterator[Tensor]:
        """
        Logits after the last tokens of several prefixes of each source, with the parameters that the model has.

        Args:
            hidden (`torch.Tensor` of shape `(batch, prefixes, hidden)`): what the first edited layer is given.
            tokens (`torch.LongTensor` of shape `(batch, prefixes)`): the prefixes' last tokens.
            encoder_states (`torch.Tensor` of shape `(batch, source_length, hidden)`): the encoder's output.
            attention_mask (`torch.LongTensor` of shape `(batch, source_length)`): the source's mask.
            visible (`torch.Tensor` of shape `(batch, 1, prefixes, positions)`):
                which of the positions in the cache each prefix consists of, in additive form: 0, and −∞ elsewhere.
            cache ([`~transformers.EncoderDecoderCache`]): keys and values of positions; gets those of the last tokens.

        Yields:
            `torch.Tensor` of shape `(sources, prefixes, vocabulary)`: those of some of the batch's sources after the
            other, so that no more than [`MOST_LOGITS`] are in memory where the model's projection can be divided.
        """
        self._tail.set_parameters(self.parameters)
        return stepping.tail_step(
            self._tail, self.projection, hidden, tokens, encoder_states, attention_mask, visible, cache
        )
