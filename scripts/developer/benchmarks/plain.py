"""
The plain ways that the package's own are timed against, and have to agree with.

The whole model runs at every step of an edit, for every translation, with the source encoded once for each, and all
translations are in the graph. Nothing here is what the package does; only its configuration is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, kl_div, pad
from transformers import PreTrainedModel

from hf_editable.modeling.mixin import EditableMixin
from hf_editable.models.families import decoder_inputs
from hf_editable.models.layers import find_decoder_layers
from hf_editable.numerics.scoring import PADDING


@dataclass
class PlainOutcome:
    """
    What a plain edit comes to.

    Args:
        parameters (`dict[str, torch.Tensor]`): the edited parameters.
        loss (`torch.Tensor` of shape `()`): `l_e` at them.
        steps (`int`): steps taken.
    """

    parameters: dict[str, Tensor]
    loss: Tensor
    steps: int


def _logits(
    model: PreTrainedModel, parameters: Mapping[str, Tensor], source: Tensor, mask: Tensor, labels: Tensor
) -> Tensor:
    arguments = {
        "input_ids": source,
        "attention_mask": mask,
        "decoder_input_ids": decoder_inputs(model, labels),
        "use_cache": False,
    }
    return functional_call(model, dict(parameters), kwargs=arguments).logits


def _edit_loss(model: EditableMixin, parameters: Mapping[str, Tensor], edit: Mapping[str, Tensor]) -> Tensor:
    target, alternatives = edit["labels"], edit["alternative_labels"][0]
    width = max(target.shape[1], alternatives.shape[1])
    labels = torch.cat([pad(rows, (0, width - rows.shape[1]), value=PADDING) for rows in (target, alternatives)])
    same = (labels == labels[:1]).all(1)
    same[0] = False
    labels = labels[~same]
    source, mask = (edit[name].expand(len(labels), -1) for name in ("input_ids", "attention_mask"))
    log_probs = _logits(model, parameters, source, mask, labels).log_softmax(-1)
    tokens = labels != PADDING
    chosen = log_probs.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    scores = (chosen * tokens).sum(-1) / tokens.sum(-1) ** model.edit_length_penalty()
    return scores[1:].max() - scores[0]


def edited_names(model: EditableMixin) -> list[str]:
    """Names of the parameters of the final decoder layer."""
    path, layers = find_decoder_layers(model)
    return [name for name, _ in model.named_parameters() if name.startswith(f"{path}.{len(layers) - 1}.")]


def edit(model: EditableMixin, inputs: Mapping[str, Tensor], create_graph: bool = False) -> PlainOutcome:
    """
    An edit by RMSProp on the final decoder layer (paper, eq. 1).

    Args:
        model ([`EditableMixin`]): the model, in evaluation mode.
        inputs (`dict[str, torch.Tensor]`): the edit, as the model's own `edit` takes it.
        create_graph (`bool`, *optional*, defaults to `False`): keep the graph of every step.
    """
    config, names = model.edit_config, edited_names(model)
    originals = dict(model.named_parameters())
    parameters = {name: originals[name] for name in names}
    rate, beta = model.editor.raw_learning_rate.exp(), model.editor.raw_beta.sigmoid()
    rms, steps = None, 0
    loss = _edit_loss(model, parameters, inputs)
    while loss > 0 and steps < config.max_steps:
        gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=create_graph)
        with torch.set_grad_enabled(create_graph):
            squares = [gradient**2 for gradient in gradients]
            rms = squares if rms is None else [beta * a + (1 - beta) * b for a, b in zip(rms, squares, strict=True)]
            parameters = {
                name: value - rate * gradient / (mean + config.epsilon).sqrt()
                for (name, value), gradient, mean in zip(parameters.items(), gradients, rms, strict=True)
            }
        if not create_graph:
            parameters = {name: value.requires_grad_() for name, value in parameters.items()}
        steps += 1
        loss = _edit_loss(model, parameters, inputs)
    return PlainOutcome(parameters, loss, steps)


def base_loss(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """The loss of a training step without the objective: the mean cross-entropy of the batch."""
    return model(**batch).loss


def objective(model: EditableMixin, batch: Mapping[str, Tensor], edits: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """
    `L_base + c_edit·L_edit + c_loc·L_loc` of a batch without padding (paper, eq. 2), each edit's locality on its rows.

    Args:
        model ([`EditableMixin`]): the model, without dropout.
        batch (`dict[str, torch.Tensor]`): `input_ids`, `attention_mask` and `labels`.
        edits (`Sequence[dict[str, torch.Tensor]]`): the edits, as the model's own `edit` takes them.
    """
    config = model.edit_config
    inputs = (batch["input_ids"], batch["attention_mask"], batch["labels"])
    logits = _logits(model, {}, *inputs)
    loss = cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    reference, tokens = logits.detach(), batch["labels"].numel()
    chunks = torch.arange(len(logits)).tensor_split(len(edits))
    for one, rows in zip(edits, chunks, strict=True):
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
            outcome = edit(model, one, create_graph=True)
        loss = loss + config.c_edit * outcome.loss.clamp(min=0) / len(edits)
        edited = _logits(model, outcome.parameters, *(tensor[rows] for tensor in inputs)).log_softmax(-1)
        divergence = kl_div(edited, reference[rows].log_softmax(-1), log_target=True, reduction="sum")
        loss = loss + config.c_loc * divergence / tokens
    return loss
