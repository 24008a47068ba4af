"""The trunk once, the edited tail again and again.

Only some decoder layers move in an edit, so everything before the first of them (the *trunk*: encoder, embeddings,
earlier decoder layers) gives the same states at every step. `Tail` records the call that the first edited layer
receives, and from that record computes the logits under any values of the edited parameters, by running the model's
own code with the earlier layers left out. The logits are those of the full forward pass, bit for bit.

Nothing here changes the model: modules are run through shallow copies that share its tensors, with dropout off.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from ..configuration import EditConfig
from ..errors import EditableTypeError
from ..models.families import BATCH_DIMENSIONS, decoder_inputs, encoder_output
from ..models.layers import find_decoder_layers, layer_indices, select_parameters
from ..numerics.output_projection import TrainedProjection
from ..numerics.scoring import MOST_LOGITS
from .prefix_tree import PrefixAttentionConfig, PrefixTree
from .stand_ins import Recorded, Recorder, Replay, make_embeddings_sparse, shared_copy
from .trunk_states import PrefixStates, TrunkStates


# Classes of models and their decoders whose tail was found to be exact, and whether `project` gives their logits.
_EXACT: dict[tuple[type[nn.Module], type[nn.Module]], bool] = {}


class Tail:
    """
    The part of a sequence-to-sequence model that an edit changes, and what comes after it.

    Args:
        model ([`~transformers.PreTrainedModel`]): an encoder-decoder model whose decoder is a list of layers.
        config ([`EditConfig`]): `layers_to_transform`, `target_modules` and `exclude_modules` say what is edited.

    Attributes:
        model ([`~transformers.PreTrainedModel`]): the model.
        parameters (`dict[str, torch.nn.Parameter]`): the edited parameters, by their names in the model.

    Raises:
        EditableTypeError: if the model is not an encoder-decoder, or its decoder is not a list of layers.
        EditableValueError: if a layer or module name matches nothing, or a matched parameter is tied to another.
    """

    def __init__(self, model: PreTrainedModel, config: EditConfig):
        self.model = model
        path, layers = find_decoder_layers(model)
        edited = layer_indices(config.layers_to_transform, len(layers))
        self.first_layer, self.first_index, self.num_layers = layers[edited[0]], edited[0], len(layers)
        self.parameters = select_parameters(model, [(f"{path}.{i}", layers[i]) for i in edited], config)
        self._recorder, self._checkpoint = Recorder(), config.checkpoint_edits
        self._kinds = (type(model), type(model.get_decoder()))  # an EncoderDecoderModel has any decoder
        trunk_copies: dict[nn.Module, nn.Module] = {}
        self._trunk_layers = [Replay(shared_copy(layer, trunk_copies)) for layer in layers[: edited[0]]]
        trunk_copies[layers] = nn.ModuleList([*self._trunk_layers, self._recorder]).eval()
        self._trunk = shared_copy(model, trunk_copies)
        make_embeddings_sparse(self._trunk)
        encoder = model.get_encoder()
        self._copies: dict[nn.Module, nn.Module] = {encoder: encoder}
        head = model.get_output_embeddings()
        self._head = None
        if isinstance(head, nn.Linear):
            self._copies[head] = self._head = Replay(shared_copy(head, {}))
        self._tail_layers = [Replay(shared_copy(layer, self._copies)) for layer in layers[edited[0] :]]
        self._copies[layers] = nn.ModuleList(self._tail_layers).eval()
        self._tail = shared_copy(model, self._copies)
        self._attention = PrefixAttentionConfig.of([*self._trunk_layers, *self._tail_layers])
        self._slots = {name: self._slot(model, name) for name in self.parameters}

    def _slot(self, model: PreTrainedModel, name: str) -> tuple[nn.Module, str]:
        module_path, _, attribute = name.rpartition(".")
        return self._copies[model.get_submodule(module_path)], attribute

    @property
    def fixed_parameters(self) -> list[nn.Parameter]:
        """The model's other parameters that are trained: what comes after the edited ones depends on some of them."""
        edited = {id(parameter) for parameter in self.parameters.values()}
        return [weight for weight in self.model.parameters() if weight.requires_grad and id(weight) not in edited]

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The encoder's output, of shape `(batch, source_length, hidden)`."""
        encoder = self._trunk.get_encoder()
        return encoder(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).last_hidden_state

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
        encoded = self.encode(input_ids, attention_mask) if encoded is None else encoded
        source = (input_ids, encoded, attention_mask)
        if (rows := labels.shape[0] // encoded.shape[0]) > 1:
            source = [None if tensor is None else tensor.repeat_interleave(rows, dim=0) for tensor in source]
        states = self.states(((), {}), *source, decoder_inputs(self.model, labels))
        return replace(states, call=self._call_in(lambda: self._run(self._trunk, states)))

    def states(
        self,
        call: tuple[tuple, dict[str, Any]],
        input_ids: Tensor | None,
        encoder_states: Tensor,
        attention_mask: Tensor | None,
        decoder_input_ids: Tensor,
    ) -> TrunkStates:
        """A call of the first edited layer that `watch` saw, with what the model was called with then."""
        dimensions = BATCH_DIMENSIONS.get(self.model.config.model_type, {})
        return TrunkStates(call, input_ids, encoder_states, attention_mask, decoder_input_ids, dimensions)

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
            return self._run(self._tail, given).logits

    def hidden(
        self,
        states: TrunkStates | PrefixStates,
        parameters: Mapping[str, Tensor] | None = None,
        double_backward: bool = False,
    ) -> Tensor:
        """What the output projection is given, of shape `(batch, length, hidden)`; see `logits`."""
        with self._at(states, parameters, double_backward) as given:
            return self._entering(lambda: self._run(self._tail, given), [self._head])

    @contextmanager
    def _at(
        self, states: TrunkStates | PrefixStates, parameters: Mapping[str, Tensor] | None, double_backward: bool
    ) -> Iterator[TrunkStates]:
        """With the tail at the recorded states and the parameters; gives what to run it with."""
        self._set(parameters or self.parameters)
        given = states
        if isinstance(states, PrefixStates):
            given = states.source
            self._replay(self._tail_layers, hidden=states.hidden, tree=states.tree)
        else:
            self._replay(self._tail_layers, call=states.call)
        try:
            with sdpa_kernel(SDPBackend.MATH) if double_backward else nullcontext():
                yield given
        finally:
            self._replay(self._tail_layers)

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
        source = (input_ids, self.encode(input_ids, attention_mask) if encoded is None else encoded, attention_mask)
        tokens = decoder_inputs(self.model, labels)
        tree = PrefixTree.of(tokens, needed)
        # What the first layer of all is given has the positions in it; it is computed for every row, and no more.
        rows = [None if tensor is None else tensor.expand(len(tokens), *tensor.shape[1:]) for tensor in source]
        whole = self.states(((), {}), *rows, tokens)
        hidden = self._entering(lambda: self._run(self._trunk, whole), self._trunk_layers[:1])
        hidden = tree.gather(hidden).unsqueeze(0)
        states = PrefixStates(tree, hidden, self.states(((), {}), *source, tokens[:1, :1]))
        if self._trunk_layers:
            self._replay(self._trunk_layers, hidden=hidden, tree=tree)
            states = replace(states, hidden=self._entering(lambda: self._run(self._trunk, states.source)))
        return states

    @property
    def projection(self) -> tuple[Tensor, Tensor | None] | None:
        """
        Weight, of shape `(vocabulary, hidden)`, and bias by which logits come from what `hidden` gives. `None` if they
        do so in another way, or in less than single precision.
        """
        if not _EXACT.get(self._kinds):
            return None
        weight = self._head.layer.weight
        precise = weight.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(weight.device.type)
        return (weight, self._logits_bias()) if precise else None

    @cached_property
    def trained_projection(self) -> TrainedProjection | None:
        """The same for edits that are trained through; `None` too if what they keep is not to be kept."""
        projection = None if self._checkpoint else self.projection
        bias = None if self._head is None else self._head.layer.bias
        if projection is None or (bias is not None and bias.requires_grad):
            return None
        return TrainedProjection(projection[0])

    def _logits_bias(self) -> Tensor | None:
        """What the output projection, and the model after it, add to the logits; `None` if that is 0."""
        own, after = self._head.layer.bias, getattr(self.model, "final_logits_bias", None)
        parts = [part.flatten() for part in (own, after) if part is not None and bool(part.any())]
        return sum(parts) if parts else None

    def _call_in(self, run: Callable[[], Any], before: Sequence[Replay] = ()) -> tuple[tuple, dict[str, Any]]:
        """How the first edited layer is called in a pass of the trunk; or else how the module `before` is called."""
        own = [layer.layer for layer in before]
        for layer in before:
            layer.layer = self._recorder
        try:
            run()
        except Recorded:
            return self._recorder.call
        finally:
            self._replay(self._trunk_layers)
            for layer, original in zip(before, own, strict=True):
                layer.layer = original
        raise EditableTypeError(f"{type(self.model).__name__} skipped its decoder layers, so they cannot be edited.")

    def _entering(self, run: Callable[[], Any], before: Sequence[Replay] = ()) -> Tensor:
        """The hidden states that a module is called with: see `_call_in`."""
        args, kwargs = self._call_in(run, before)
        return args[0] if args else kwargs["hidden_states"]

    def _replay(
        self,
        layers: Sequence[Replay],
        call: tuple[tuple, dict[str, Any]] | None = None,
        hidden: Tensor | None = None,
        tree: PrefixTree | None = None,
    ) -> None:
        """Set what layers are to be called with: the first one the call or the hidden states, and all the tree."""
        for attention in self._attention:
            attention.takes_trees = tree is not None
        for layer in layers:
            layer.call, layer.replaced = call, {}
            layer.replaced |= {} if hidden is None else {"hidden_states": hidden}
            layer.replaced |= {} if tree is None else {"attention_mask": tree}
            call = hidden = None

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
        return self._entering(lambda: self._step(self._trunk, tokens, encoder_states, attention_mask, cache))

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
        self._set(self.parameters)
        self._replay(self._tail_layers, hidden=hidden)
        given = (self._tail, tokens, encoder_states, attention_mask, cache, visible)
        projection = self.projection
        if projection is None:
            yield self._step(*given).logits
            return
        states = self._entering(lambda: self._step(*given), [self._head])
        for part in states.split(max(1, MOST_LOGITS // (states.shape[1] * len(projection[0])))):
            yield nn.functional.linear(part, *projection)

    def _set(self, parameters: Mapping[str, Tensor]) -> None:
        for name, value in parameters.items():
            module, attribute = self._slots[name]
            module._parameters[attribute] = value

    @property
    def is_checked(self) -> bool:
        """Whether `check_exact` has passed for models and decoders of these classes in this process."""
        return self._kinds in _EXACT

    @torch.no_grad()
    def check_exact(self, states: TrunkStates) -> None:
        """
        Hold the tail against a full pass of the decoder, once for each class of models and decoders in a process.

        Raises:
            EditableTypeError: if they differ, as in a decoder that does something of its own between its layers.
        """
        if self.is_checked:
            return
        expected = self._run(shared_copy(self.model, {}), states).logits
        found = self.logits(states)
        difference = (found - expected).nan_to_num().abs().max()  # NaN is the editor's to report
        if difference > 1e-2 * expected.nan_to_num().abs().max():
            raise EditableTypeError(
                f"The decoder of {type(self.model).__name__} is more than a list of layers with something before and "
                "after it, so its last layers alone do not give its predictions, and it cannot be edited. Use another "
                "checkpoint."
            )
        is_linear = self._head is not None
        if is_linear:
            own = nn.functional.linear(self.hidden(states), self._head.layer.weight, self._logits_bias())
            is_linear = bool(torch.isclose(own, found, equal_nan=True).all())
        _EXACT[self._kinds] = is_linear

    @contextmanager
    def watch(self) -> Iterator[list[tuple[tuple, dict[str, Any]]]]:
        """Record the first edited layer's calls in ordinary forward passes of the model inside the block."""
        calls: list[tuple[tuple, dict[str, Any]]] = []
        handle = self.first_layer.register_forward_pre_hook(
            lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
        )
        try:
            yield calls
        finally:
            handle.remove()

    @staticmethod
    def _step(
        model: PreTrainedModel,
        tokens: Tensor,
        encoder_states: Tensor,
        mask: Tensor,
        cache: Cache,
        visible: Tensor | None = None,
    ) -> Any:
        return model(
            encoder_outputs=encoder_output(encoder_states),
            attention_mask=mask,
            decoder_input_ids=tokens,
            decoder_attention_mask=visible,
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
        )

    @staticmethod
    def _run(model: PreTrainedModel, states: TrunkStates) -> Any:
        return model(
            input_ids=states.input_ids,  # not encoded again; FSMT's decoder is causal only if it is there
            encoder_outputs=encoder_output(states.encoder_states),
            attention_mask=states.attention_mask,
            decoder_input_ids=states.decoder_input_ids,
            use_cache=False,
            return_dict=True,
            **({"output_router_logits": False} if hasattr(model.config, "output_router_logits") else {}),
        )
