"""The objective of Editable Training: base loss, edit loss and locality loss of one batch (paper, eq. 2–4)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils import ModelOutput

from ..configuration import EditConfig
from ..editors.problems.candidates import check_edit
from ..editors.problems.translation_problem import TranslationEditProblem
from ..editors.protocol import Editor
from ..errors import EditableTypeError, EditableValueError
from ..models.families import decoder_inputs, routing_inputs, routing_loss
from ..numerics.gradients import with_gradients
from ..numerics.scoring import MOST_LOGITS, cross_entropy, num_tokens, token_kl
from ..tail.decoder_tail import Tail
from ..tail.trunk_states import TrunkStates


@dataclass
class EditableSeq2SeqLMOutput(ModelOutput):
    """
    Output of an editable model's forward pass.

    Args:
        loss (`torch.Tensor` of shape `()`): `L_base + c_edit·L_edit + c_loc·L_loc`.
        base_loss (`torch.Tensor` of shape `()`): `L_base`, the mean over target tokens, in nats.
        edit_loss (`torch.Tensor` of shape `()`): `L_edit = max(0, l_e(θ'))`, the mean over edits.
        locality_loss (`torch.Tensor` of shape `()`): `L_loc`, the mean over target tokens, in nats.
        edit_success (`torch.Tensor` of shape `()`): share of the edits that hold after at most `max_steps` steps.
        edit_steps (`torch.Tensor` of shape `()`): mean number of steps.
        logits (`torch.Tensor` of shape `(batch, length, vocabulary)`): the unedited model's predictions.
        encoder_last_hidden_state (`torch.Tensor` of shape `(batch, source_length, hidden)`): encoder states.
    """

    loss: Tensor | None = None
    base_loss: Tensor | None = None
    edit_loss: Tensor | None = None
    locality_loss: Tensor | None = None
    edit_success: Tensor | None = None
    edit_steps: Tensor | None = None
    logits: Tensor | None = None
    encoder_last_hidden_state: Tensor | None = None


class EditableModel(Protocol):
    """What the objective asks of a model, beside a forward pass: see [`EditableMixin`]."""

    config: PreTrainedConfig
    edit_config: EditConfig
    editor: Editor

    def edit_problem(self, tail: Tail, *edit: Tensor | None, **options: Any) -> TranslationEditProblem:
        """The problem of one edit."""


# Under torch.compile, the model's own pass is compiled, and edits are not: compiled code has no second derivatives.
@torch.compiler.disable(recursive=False)
def editable_objective(
    model: EditableModel,
    base_forward: Callable[..., Any],
    inputs: dict[str, Any],
    edits: Sequence[Tensor | None],
    label_smoothing: float,
    reference_logits: Tensor | None,
    num_items: int | Tensor | None,
    num_edits: int | Tensor | None,
) -> EditableSeq2SeqLMOutput:
    """
    The objective on one batch. With E edits the batch's rows are dealt out to them in E runs, and each edit's
    locality is measured on its own: so E edits on a batch are what E processes with one edit each compute.

    See [`EditableMixin.forward`] for the arguments.
    """
    labels = inputs.pop("labels", None)
    if labels is None:
        raise EditableValueError("The training objective needs labels of the base batch, given by keyword.")
    if inputs.get("decoder_input_ids") is None:
        inputs["decoder_input_ids"] = decoder_inputs(model, labels)
    config = model.edit_config
    tail = Tail(model, config)
    with tail.watch() as calls:
        routing = routing_inputs(model.config, labels)
        outputs = base_forward(**{**inputs, **routing, "use_cache": False, "return_dict": True})
    tokens = num_tokens(labels) if num_items is None else num_items
    result = EditableSeq2SeqLMOutput(
        base_loss=_base_loss(outputs.logits, labels, label_smoothing, reference_logits, tokens),
        logits=outputs.logits,
        encoder_last_hidden_state=outputs.encoder_last_hidden_state,
    )
    result.base_loss = result.base_loss + routing_loss(model.config, outputs, labels, tokens)
    result.loss = result.base_loss
    if all(tensor is None for tensor in edits):
        return result
    if edits[0] is None:
        raise EditableValueError("Edits need edit_input_ids, their sources, beside their labels.")
    if not model.editor.is_differentiable:
        raise EditableTypeError(
            f"Training cannot be differentiated through edits of the editor {config.editor!r}. Set edit_config to one "
            "with editor='gradient'."
        )
    if not calls:
        raise EditableValueError(
            "The edited decoder layer was skipped in this pass. Load the model with decoder_layerdrop=0."
        )
    sources = (inputs.get("input_ids"), outputs.encoder_last_hidden_state, inputs.get("attention_mask"))
    states = tail.states(calls[0], *sources, inputs["decoder_input_ids"])
    terms = _edit_terms(model, tail, edits, states, outputs.logits.detach(), labels)
    count = edits[0].shape[0] if num_edits is None else num_edits
    result.edit_loss = terms["edit_loss"] / count
    result.locality_loss = terms["kl"] / tokens
    result.edit_success = terms["successes"] / count
    result.edit_steps = terms["steps"] / count
    result.loss = result.base_loss + config.c_edit * result.edit_loss + config.c_loc * result.locality_loss
    return result


def _base_loss(
    logits: Tensor, labels: Tensor, label_smoothing: float, reference_logits: Tensor | None, tokens: int | Tensor
) -> Tensor:
    if reference_logits is None:
        return cross_entropy(logits, labels, label_smoothing, tokens)
    return token_kl(reference_logits, logits, labels).sum() / tokens


@torch.compiler.disable
def _edit_terms(
    model: EditableModel,
    tail: Tail,
    edits: Sequence[Tensor | None],
    states: TrunkStates,
    logits: Tensor,
    labels: Tensor,
) -> dict[str, Tensor]:
    """Sums over the batch's edits: the edit loss, the KL over tokens, successes and steps."""
    create_graph = torch.is_grad_enabled()
    config = model.edit_config
    # Distributed training expects a gradient for each coefficient, also when no edit needed a step.
    # (Each is multiplied on its own: gradients of a sum of them would share memory, in which they accumulate.)
    unused = sum(((parameter * 0.0).sum() for parameter in model.editor.parameters()), logits.new_zeros(()).float())
    sums = {"edit_loss": unused, "kl": logits.new_zeros((), dtype=torch.float32)}
    sums |= {name: logits.new_zeros((), dtype=torch.float32) for name in ("successes", "steps")}
    fixed = _Sums(tail.fixed_parameters)
    each = [[None if tensor is None else tensor[i : i + 1] for tensor in edits] for i in range(len(edits[0]))]
    check_edit(model.config, each[0][0], *each[0][2:4])  # what the encoder is given is as long for all of them
    encoded = tail.encode(*edits[:2])
    chunks = torch.arange(labels.shape[0]).tensor_split(len(each))
    for edit, source, chunk in zip(each, encoded.split(1), chunks, strict=True):
        problem = model.edit_problem(tail, *edit, config=config, create_graph=create_graph, encoded=source)
        with torch.enable_grad():
            outcome = model.editor(problem, create_graph=create_graph)
        sums["edit_loss"] = sums["edit_loss"] + outcome.loss.clamp(min=0.0)
        sums["successes"] = sums["successes"] + (outcome.loss.detach() <= 0)
        sums["steps"] = sums["steps"] + outcome.steps
        if len(chunk):
            rows = slice(int(chunk[0]), int(chunk[-1]) + 1)
            given = (states.rows(rows), outcome.parameters, logits[rows], labels[rows])
            sums["kl"] = sums["kl"] + _divergence(tail, *given, fixed)
    sums["kl"] = with_gradients(sums["kl"], [sums["kl"], *fixed.tensors], [torch.ones_like(sums["kl"]), *fixed.sums])
    return sums


class _Sums:
    """Sums of gradients with respect to tensors; `None` is 0."""

    def __init__(self, tensors: Sequence[Tensor]):
        self.tensors = tensors
        self.sums: list[Tensor | None] = [None] * len(tensors)

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        for index, new in enumerate(gradients):
            if self.sums[index] is None:
                self.sums[index] = None if new is None else new.clone()
            elif new is not None:
                self.sums[index] += new


def _divergence(
    tail: Tail, states: TrunkStates, parameters: dict[str, Tensor], reference: Tensor, labels: Tensor, fixed: _Sums
) -> Tensor:
    """
    The sum of `token_kl` over a batch under edited parameters.

    Its gradients are taken at once, a few rows after the other, so that no more than the logits of a few rows are in
    memory at any time. Those with respect to what edits leave as it is are added to `fixed`, and the value has none.
    """
    size = max(1, MOST_LOGITS // reference[0].numel())
    chunks = [slice(start, start + size) for start in range(0, len(labels), size)]

    def divergence(states: TrunkStates, parameters: dict[str, Tensor], rows: slice) -> Tensor:
        return token_kl(reference[rows], tail.logits(states.rows(rows), parameters), labels[rows]).sum()

    # In half precision, gradients that are not scaled vanish.
    if not torch.is_grad_enabled() or reference.dtype == torch.float16:
        return torch.stack([divergence(states, parameters, rows) for rows in chunks]).sum()
    inputs = [*parameters.values(), *states.differentiable()]
    edited = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
    leaves = [tensor.detach().requires_grad_() for tensor in states.differentiable()]
    states = states.replaced(leaves)
    values, own = [], _Sums([*edited.values(), *leaves])
    for rows in chunks:
        value = divergence(states, edited, rows)
        gradients = torch.autograd.grad(value, [*own.tensors, *fixed.tensors], allow_unused=True)
        own.add(gradients[: len(inputs)])
        fixed.add(gradients[len(inputs) :])
        values.append(value.detach())
    return with_gradients(torch.stack(values).sum(), inputs, own.sums)
