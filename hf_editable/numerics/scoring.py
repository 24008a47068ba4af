"""Scores of translations, the constraint that an edit has to meet, and the losses over tokens.

Throughout, `logits` are of shape `(batch, length, vocabulary)` and `labels` of shape `(batch, length)`, with −100 on
padding. Every value is computed in float32 (float64 for float64 logits) and in nats.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import EditableValueError


PADDING = -100
# The most logits at once that pay: tensors of more than 32 MiB are mapped anew for each allocation on Linux, which
# costs as much as filling them.
MOST_LOGITS = 6_400_000


def token_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """
    Log-probability of each token of `labels`, 0 on padding.

    Args:
        logits (`torch.Tensor` of shape `(batch, length, vocabulary)`): unnormalised log-probabilities.
        labels (`torch.LongTensor` of shape `(batch, length)`): token ids, −100 on padding.

    Returns:
        `torch.Tensor` of shape `(batch, length)`.
    """
    logits = full_precision(logits)
    padding = labels == PADDING
    chosen = logits.gather(-1, labels.masked_fill(padding, 0).unsqueeze(-1)).squeeze(-1)
    return (chosen - logits.logsumexp(-1)).masked_fill(padding, 0.0)


def sequence_scores(logits: Tensor, labels: Tensor, length_penalty: float, lengths: Tensor | None = None) -> Tensor:
    """
    Scores `s(y|x) = Σ_t log p(y_t | x, y_<t) / |y|^λ`, by which beam search ranks too; |y| counts the end token.

    Args:
        logits (`torch.Tensor` of shape `(batch, length, vocabulary)`): predictions for the tokens of `labels`.
        labels (`torch.LongTensor` of shape `(batch, length)`): translations with their end tokens, −100 on padding.
        length_penalty (`float`): λ. 0 gives log-probabilities, 1 means per token.
        lengths (`torch.LongTensor` of shape `(batch,)`, *optional*): |y|; `None` counts all tokens but padding.

    Returns:
        `torch.Tensor` of shape `(batch,)`.

    Raises:
        EditableValueError: if a translation has no token.
    """
    lengths = (labels != PADDING).sum(-1) if lengths is None else lengths
    if not bool(lengths.all()):
        empty = (lengths == 0).nonzero().flatten().tolist()
        raise EditableValueError(f"Translations {empty} have no token, so they have no score. Leave empty ones out.")
    return token_log_probs(logits, labels).sum(-1) / lengths.to(torch.float32) ** length_penalty


def constraint_loss(scores: Tensor) -> Tensor:
    """
    `l_e = max_i s(y_i) − s(y_0)`: the edit holds if and only if it is at most 0 (paper, sections 3 and 4.3).

    Args:
        scores (`torch.Tensor` of shape `(1 + alternatives,)`): the target's score, then those of its alternatives.
    """
    return scores[1:].max() - scores[0]


class _Divergence(torch.autograd.Function):
    """`KL(p ‖ q)` of two distributions given as logits, of which only the second is differentiated, by `q − p`."""

    @staticmethod
    def forward(ctx: Any, reference_logits: Tensor, logits: Tensor) -> Tensor:
        log_p = full_precision(reference_logits).log_softmax(-1)
        log_q = full_precision(logits).log_softmax(-1)
        p = log_p.exp()
        divergence = torch.linalg.vecdot(p, log_p.sub_(log_q))
        if ctx.needs_input_grad[1]:
            ctx.dtype = logits.dtype
            ctx.save_for_backward(log_q.exp_().sub_(p))
        return divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        (difference,) = ctx.saved_tensors
        return None, (gradient.unsqueeze(-1) * difference).to(ctx.dtype)


def token_kl(reference_logits: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """
    `KL( p_reference(·|x, y_<t) ‖ p(·|x, y_<t) )` at each token of `labels`, 0 on padding (paper, eq. 4).

    Args:
        reference_logits (`torch.Tensor` of shape `(batch, length, vocabulary)`):
            first argument of the divergence; it gets no gradient.
        logits (`torch.Tensor` of shape `(batch, length, vocabulary)`): second argument.
        labels (`torch.LongTensor` of shape `(batch, length)`): only where it is −100 matters.

    Returns:
        `torch.Tensor` of shape `(batch, length)`.
    """
    return _Divergence.apply(reference_logits, logits).masked_fill(labels == PADDING, 0.0)


def cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, num_items: int | Tensor | None = None
) -> Tensor:
    """
    Token cross-entropy, as a sum over non-padding tokens divided by `num_items`.

    Args:
        logits (`torch.Tensor` of shape `(batch, length, vocabulary)`): predictions.
        labels (`torch.LongTensor` of shape `(batch, length)`): references, −100 on padding.
        label_smoothing (`float`, *optional*, defaults to `0.0`): share of the probability spread over the vocabulary.
        num_items (`int`, *optional*):
            What to divide by; `None` takes this batch's number of tokens. Give the tokens of all batches of an
            optimizer step when gradients accumulate.
    """
    total = torch.nn.functional.cross_entropy(
        full_precision(logits).flatten(0, -2),
        labels.flatten(),
        ignore_index=PADDING,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return total / (num_tokens(labels) if num_items is None else num_items)


def num_tokens(labels: Tensor) -> Tensor:
    """Number of non-padding tokens, at least 1 so that it can divide."""
    return (labels != PADDING).sum().clamp(min=1)


def full_precision(logits: Tensor) -> Tensor:
    """The logits in float32, or as they are in float64."""
    return logits if logits.dtype == torch.float64 else logits.float()
