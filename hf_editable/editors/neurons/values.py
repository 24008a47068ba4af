"""What neurons add to a feed-forward's output so that a token becomes the most probable one."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...numerics.scoring import MOST_LOGITS


# Of Adam, whose step sizes are shares of the spread of what the values are added to.
STEP, MOST_STEPS = 0.1, 200
_BETAS, _EPSILON = (0.9, 0.99), 1e-12


def find_values(
    logits: Callable[[Tensor, Tensor], Tensor], rests: Tensor, outputs: Tensor, tokens: Tensor, confidence: float
) -> Tensor:
    """
    For each position a small vector with which its token is as probable as wanted; of a position where that is not
    reached, the last one tried.

    Args:
        logits (`Callable`): see [`FinalFeedForward.logits`].
        rests (`torch.Tensor` of shape `(positions, hidden)`), outputs (`torch.Tensor` of the same shape):
            see [`Positions`].
        tokens (`torch.LongTensor` of shape `(positions,)`): the tokens.
        confidence (`float`): the probability that they are brought to.

    Returns:
        `torch.Tensor` of shape `(positions, hidden)`.
    """
    values = torch.zeros_like(outputs)
    if not len(tokens):
        return values
    with torch.no_grad():
        width = logits(rests[:1], outputs[:1]).shape[-1]
    size = max(1, MOST_LOGITS // width)
    for part in torch.arange(len(tokens), device=tokens.device).split(size):
        values[part] = _descend(logits, rests[part], outputs[part], tokens[part], confidence)
    return values


def _descend(
    logits: Callable[[Tensor, Tensor], Tensor], rests: Tensor, outputs: Tensor, tokens: Tensor, confidence: float
) -> Tensor:
    """Adam on the values alone, each until it is enough."""
    values, first, second = (torch.zeros_like(outputs) for _ in range(3))
    steps = STEP * (rests + outputs).std(-1, keepdim=True)
    left = torch.arange(len(tokens), device=tokens.device)
    for count in range(1, MOST_STEPS + 1):
        with torch.enable_grad():
            own = values[left].requires_grad_()
            scores = logits(rests[left], outputs[left] + own).log_softmax(-1)
            losses = -scores.gather(-1, tokens[left, None])[:, 0]
            (gradients,) = torch.autograd.grad(losses.sum(), own)
        unsure = losses.detach().neg().exp() < confidence
        left, gradients = left[unsure], gradients[unsure]
        if not len(left):
            break
        first[left] = _BETAS[0] * first[left] + (1 - _BETAS[0]) * gradients
        second[left] = _BETAS[1] * second[left] + (1 - _BETAS[1]) * gradients.square()
        mean, square = first[left] / (1 - _BETAS[0] ** count), second[left] / (1 - _BETAS[1] ** count)
        values[left] -= steps[left] * mean / (square.sqrt() + _EPSILON)
    return values
