"""The trunk once, the edited tail again and again.

Only some decoder layers move in an edit, so everything before the first of them (the *trunk*: encoder, embeddings,
earlier decoder layers) gives the same states at every step. `Tail` records the call that the first edited layer
receives, and from that record computes the logits under any values of the edited parameters, by running the model's
own code with the earlier layers left out. The logits are those of the full forward pass, bit for bit.

Nothing here changes the model: modules are run through shallow copies that share its tensors, with dropout off.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from .configuration import EditConfig
from .errors import EditableTypeError, EditableValueError
from .families import BATCH_DIMENSIONS, check_editable, decoder_inputs, encoder_output


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


# Classes of models and their decoders whose tail was found to be exact.
_EXACT: set[tuple[type[nn.Module], type[nn.Module]]] = set()


class _TrunkDone(Exception):
    """Ends a forward pass at the first edited layer."""


class _Record(nn.Module):
    """Stands in for the first edited layer: keeps its call and ends the pass."""

    def forward(self, *args: Any, **kwargs: Any) -> None:
        self.call = (args, kwargs)
        raise _TrunkDone


class _Replay(nn.Module):
    """Stands in for the first edited layer: calls it as it was called before."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        self.call: tuple[tuple, dict[str, Any]] = ((), {})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        replayed_args, replayed_kwargs = self.call
        return self.layer(*replayed_args, **replayed_kwargs)

    def __getattr__(self, name: str) -> Any:
        # Some decoders read attributes of their layers (T5Gemma: `attention_type`).
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


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
        edited = _layer_indices(config.layers_to_transform, len(layers))
        self.first_layer = layers[edited[0]]
        self.parameters = _select_parameters(model, [(f"{path}.{i}", layers[i]) for i in edited], config)
        self._recorder = _Record()
        trunk_copies: dict[nn.Module, nn.Module] = {}
        trunk_layers = [_shared_copy(layer, trunk_copies) for layer in layers[: edited[0]]]
        trunk_copies[layers] = nn.ModuleList([*trunk_layers, self._recorder])
        self._trunk = _shared_copy(model, trunk_copies)
        encoder = model.get_encoder()
        self._copies: dict[nn.Module, nn.Module] = {encoder: encoder}
        tail_layers = [_shared_copy(layer, self._copies) for layer in layers[edited[0] :]]
        self._replay = _Replay(tail_layers[0])
        self._copies[layers] = nn.ModuleList([self._replay, *tail_layers[1:]]).eval()
        self._tail = _shared_copy(model, self._copies)
        self._slots = {name: self._slot(model, name) for name in self.parameters}

    def _slot(self, model: PreTrainedModel, name: str) -> tuple[nn.Module, str]:
        module_path, _, attribute = name.rpartition(".")
        return self._copies[model.get_submodule(module_path)], attribute

    def record(self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor) -> TrunkStates:
        """
        Run the trunk. A single source is encoded once for all translations.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch or 1, source_length)`): source tokens.
            attention_mask (`torch.LongTensor` of shape `(batch or 1, source_length)`, *optional*): their mask.
            labels (`torch.LongTensor` of shape `(batch, length)`): translations, −100 on padding.
        """
        encoded = self._trunk.get_encoder()(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
        source = (input_ids, encoded.last_hidden_state, attention_mask)
        if (rows := labels.shape[0] // input_ids.shape[0]) > 1:
            source = [None if tensor is None else tensor.repeat_interleave(rows, dim=0) for tensor in source]
        states = self.states(((), {}), *source, decoder_inputs(self.model, labels))
        try:
            self._run(self._trunk, states)
        except _TrunkDone:
            return replace(states, call=self._recorder.call)
        raise EditableTypeError(f"{type(self.model).__name__} skipped its decoder layers, so they cannot be edited.")

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
        self, states: TrunkStates, parameters: Mapping[str, Tensor] | None = None, double_backward: bool = False
    ) -> Tensor:
        """
        Logits of the recorded translations.

        Args:
            states ([`TrunkStates`]): what `record` or `watch` recorded.
            parameters (`dict[str, torch.Tensor]`, *optional*): edited parameters; `None` takes the model's own.
            double_backward (`bool`, *optional*, defaults to `False`):
                Use attention kernels that can be differentiated twice, which the fused ones cannot.

        Returns:
            `torch.Tensor` of shape `(batch, length, vocabulary)`.
        """
        for name, value in (parameters or self.parameters).items():
            module, attribute = self._slots[name]
            module._parameters[attribute] = value
        self._replay.call = states.call
        with sdpa_kernel(SDPBackend.MATH) if double_backward else nullcontext():
            return self._run(self._tail, states).logits

    @torch.no_grad()
    def check_exact(self, states: TrunkStates) -> None:
        """
        Hold the tail against a full pass of the decoder, once for each class of models and decoders in a process.

        Raises:
            EditableTypeError: if they differ, as in a decoder that does something of its own between its layers.
        """
        # An EncoderDecoderModel has any decoder.
        kind = (type(self.model), type(self.model.get_decoder()))
        if kind in _EXACT:
            return
        expected = self._run(_shared_copy(self.model, {}), states).logits
        difference = (self.logits(states) - expected).nan_to_num().abs().max()  # NaN is the editor's to report
        if difference > 1e-2 * expected.nan_to_num().abs().max():
            raise EditableTypeError(
                f"The decoder of {type(self.model).__name__} is more than a list of layers with something before and "
                "after it, so its last layers alone do not give its predictions, and it cannot be edited. Use another "
                "checkpoint."
            )
        _EXACT.add(kind)

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


def find_decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """
    The decoder's list of layers and its path in the model.

    Raises:
        EditableTypeError: if the model cannot be edited, or no single list of layers is found.
    """
    check_editable(model)
    decoder = model.get_decoder()
    inside = [module for module in decoder.modules() if isinstance(module, nn.ModuleList) and len(module)]
    nested = {child for outer in inside for child in outer.modules() if child is not outer}
    lists = [module for module in inside if module not in nested]
    if len(lists) != 1:
        raise EditableTypeError(
            f"The decoder of {type(model).__name__} has {len(lists)} lists of layers; editing needs exactly one."
        )
    path = next(name for name, module in model.named_modules() if module is lists[0])
    return path, lists[0]


def _layer_indices(layers_to_transform: int | list[int], count: int) -> list[int]:
    wanted = [layers_to_transform] if isinstance(layers_to_transform, int) else list(layers_to_transform)
    if not wanted or any(not -count <= index < count for index in wanted):
        raise EditableValueError(
            f"layers_to_transform={layers_to_transform!r}: the decoder has {count} layers, "
            f"so each index must be from {-count} to {count - 1}."
        )
    return sorted({index % count for index in wanted})


def _matches(path: str, patterns: str | list[str]) -> bool:
    if isinstance(patterns, str):
        return re.fullmatch(patterns, path) is not None
    return any(path == name or path.endswith(f".{name}") for name in patterns)


def _select_parameters(
    model: PreTrainedModel, layers: list[tuple[str, nn.Module]], config: EditConfig
) -> dict[str, nn.Parameter]:
    paths = [f"{path}.{name}" if name else path for path, layer in layers for name, _ in layer.named_modules()]

    def under(patterns: str | list[str]) -> list[str]:
        roots = [path for path in paths if _matches(path, patterns)]
        if not roots:
            inside = sorted({path.rsplit(".", 1)[-1] for path in paths})
            raise EditableValueError(
                f"{patterns!r} matches no module in {[path for path, _ in layers]}. It has {inside}."
            )
        return roots

    def belongs(name: str, roots: list[str]) -> bool:
        return any(name.startswith(f"{root}.") for root in roots)

    targets = [path for path, _ in layers] if config.target_modules is None else under(config.target_modules)
    excluded = [] if config.exclude_modules is None else under(config.exclude_modules)
    named = dict(model.named_parameters(remove_duplicate=False))
    selected = {
        name: parameter for name, parameter in named.items() if belongs(name, targets) and not belongs(name, excluded)
    }
    if not selected:
        raise EditableValueError(
            f"target_modules={config.target_modules!r} without exclude_modules={config.exclude_modules!r} "
            "leaves no parameter to edit. Exclude less."
        )
    owners: dict[int, list[str]] = {}
    for name, parameter in named.items():
        owners.setdefault(id(parameter), []).append(name)
    for name, parameter in selected.items():
        if len(owners[id(parameter)]) > 1:
            raise EditableValueError(
                f"{owners[id(parameter)]} are one tied parameter: editing it would change them all. Exclude {name!r}."
            )
    return selected


def _shared_copy(module: nn.Module, copies: dict[nn.Module, nn.Module]) -> nn.Module:
    """
    A copy of a module tree in evaluation mode that shares every tensor, with the modules in `copies` replaced.

    Args:
        module (`torch.nn.Module`): what to copy.
        copies (`dict`): replacements by original module; the copies made are added to it.
    """
    if module in copies:
        return copies[module]
    twin = type(module).__new__(type(module))
    # What wraps an instance (Accelerate's mixed precision, torch.compile) is bound to the original.
    twin.__dict__ = {name: value for name, value in module.__dict__.items() if name != "forward"}
    twin._compiled_call_impl = None
    copies[module] = twin
    twin._parameters = dict(module._parameters)
    twin._modules = {
        name: None if child is None else _shared_copy(child, copies) for name, child in module._modules.items()
    }
    twin.training = False
    return twin
