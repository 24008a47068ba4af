"""The objective of Editable Training: base loss, edit loss and locality loss of one batch (paper, eq. 2–4)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from .errors import EditableValueError
from .families import decoder_inputs, routing_inputs, routing_loss
from .scoring import cross_entropy, num_tokens, token_kl
from .tail import Tail, TrunkStates


if TYPE_CHECKING:
    from .modeling import EditableMixin


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


# Under torch.compile, the model's own pass is compiled, and edits are not: compiled code has no second derivatives.
@torch.compiler.disable(recursive=False)
def editable_objective(
    model: "EditableMixin",
    base_forward: Callable[..., Any],
    inputs: dict[str, Any],
    edits: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
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
    if not calls:
        raise EditableValueError(
            "The edited decoder layer was skipped in this pass. Load the model with decoder_layerdrop=0."
        )
    states = tail.states(
        calls[0],
        inputs.get("input_ids"),
        outputs.encoder_last_hidden_state,
        inputs.get("attention_mask"),
        inputs["decoder_input_ids"],
    )
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
    model: "EditableMixin",
    tail: Tail,
    edits: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    states: TrunkStates,
    logits: Tensor,
    labels: Tensor,
) -> dict[str, Tensor]:
    """Sums over the batch's edits: the edit loss, the KL over tokens, successes and steps."""
    create_graph = torch.is_grad_enabled()
    config = model.edit_config
    # Distributed training expects a gradient for each coefficient, also when no edit needed a step.
    unused = sum(parameter for parameter in model.editor.parameters()) * 0.0
    sums = {"edit_loss": unused, "kl": logits.new_zeros((), dtype=torch.float32)}
    sums |= {name: logits.new_zeros((), dtype=torch.float32) for name in ("successes", "steps")}
    chunks = torch.arange(labels.shape[0]).tensor_split(edits[0].shape[0])
    for index, chunk in enumerate(chunks):
        edit = [None if tensor is None else tensor[index : index + 1] for tensor in edits]
        with torch.enable_grad():
            outcome = model.editor(
                model._edit_problem(tail, *edit, config=config, create_graph=create_graph), create_graph=create_graph
            )
        sums["edit_loss"] = sums["edit_loss"] + outcome.loss.clamp(min=0.0)
        sums["successes"] = sums["successes"] + (outcome.loss.detach() <= 0)
        sums["steps"] = sums["steps"] + outcome.steps
        if len(chunk):
            rows = slice(int(chunk[0]), int(chunk[-1]) + 1)
            edited_logits = tail.logits(states.rows(rows), outcome.parameters)
            sums["kl"] = sums["kl"] + token_kl(logits[rows], edited_logits, labels[rows]).sum()
    return sums
