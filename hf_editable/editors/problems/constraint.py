"""`l_e` of a model as it is, by full passes: for edits that move more than the tail."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ...decoding.score_rules import ScoreRules
from ...errors import NonFiniteEditError
from ...models.families import beam_search_tokens, decoder_inputs, encoder_output
from ...numerics.scoring import constraint_loss, sequence_scores
from .candidates import candidates
from .translation_problem import joint_loss


@torch.no_grad()
def constraint_value(
    model: PreTrainedModel, edits: Sequence[Mapping[str, Tensor | None]], length_penalty: float
) -> float:
    """
    `l_e` of one or several edits; see [`JointEditProblem`].

    Args:
        model ([`~transformers.PreTrainedModel`]): in evaluation mode.
        edits (`Sequence[dict[str, torch.Tensor]]`):
            `input_ids`, `attention_mask`, `labels` and `alternative_labels` of each.
        length_penalty (`float`): λ of the scores.

    Raises:
        NonFiniteEditError: if it is NaN or infinite.
    """
    value = joint_loss([_constraint(model, edit, length_penalty) for edit in edits]).item()
    return check_finite(value, "l_e")


def _constraint(model: PreTrainedModel, edit: Mapping[str, Tensor | None], length_penalty: float) -> Tensor:
    labels = candidates(edit["labels"], edit["alternative_labels"])
    source, mask = edit["input_ids"], edit["attention_mask"]
    encoded = model.get_encoder()(input_ids=source, attention_mask=mask, return_dict=True)
    rows = labels.shape[0]
    logits = model(
        input_ids=source.expand(rows, -1),
        encoder_outputs=encoder_output(encoded.last_hidden_state.expand(rows, -1, -1)),
        attention_mask=None if mask is None else mask.expand(rows, -1),
        decoder_input_ids=decoder_inputs(model, labels),
        use_cache=False,
        return_dict=True,
    ).logits
    scored, lengths = beam_search_tokens(model, labels)
    rules = ScoreRules(model, source)
    if rules.is_plain:
        return constraint_loss(sequence_scores(rules.logits(logits), scored, length_penalty, lengths))
    log_probs = rules.token_log_probs(logits, labels, scored)
    return constraint_loss(log_probs.sum(-1) / lengths.to(torch.float32) ** length_penalty)


def check_finite(value: float, name: str) -> float:
    """
    Raises:
        NonFiniteEditError: if the value is NaN or infinite.
    """
    if not -float("inf") < value < float("inf"):
        raise NonFiniteEditError(
            f"The {name} of the edit is {value}; the model is unchanged. Check its weights for NaN, or lower the "
            "learning rate of the editor."
        )
    return value
