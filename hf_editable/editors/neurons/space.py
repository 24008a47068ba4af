"""The space in which caps are measured: the feed-forward's input as its norm has it before scale and shift."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.feed_forward import FeedForward
from .options import Metric
from .protected_states import ProtectedStates


# Entries of γ that are less than this share of the largest tell nothing.
_LEAST_SCALE = 1e-3
# What is added to the covariance, as a share of its mean variance.
_RIDGE = 0.1


@dataclass
class Space:
    """
    States `n = (x − β)/γ`, all of which have the same length.

    Args:
        scale (`torch.Tensor` of shape `(hidden,)`): γ.
        shift (`torch.Tensor` of shape `(hidden,)`): β.
    """

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, found: FeedForward) -> "Space":
        """That of a feed-forward."""
        scale = found.scale.float()
        scale = scale.where(scale.abs() >= _LEAST_SCALE * scale.abs().max(), torch.inf)
        return cls(scale, found.shift.float())

    def normed(self, states: Tensor) -> Tensor:
        """`n` of states, in single precision."""
        return (states.float() - self.shift) / self.scale

    def back(self, directions: Tensor) -> Tensor:
        """Directions in the space of the states themselves."""
        return directions / self.scale


def directions_to(keys: Tensor, metric: str, protected: ProtectedStates | None) -> tuple[Tensor, Tensor]:
    """
    Directions along which `z = direction·n + offset` falls from 1 at a key.

    By the cosine it falls to 0 at a right angle from the key. In the whitened metric, that of a linear discriminant
    between the key and all protected states, it is 0 at their mean.

    Args:
        keys (`torch.Tensor` of shape `(neurons, hidden)`): normed states.
        metric (`str`): see [`NeuronOptions`].
        protected ([`ProtectedStates`], *optional*): needed for the whitened metric.

    Returns:
        `tuple(torch.Tensor, torch.Tensor)` of shapes `(neurons, hidden)` and `(neurons,)`.
    """
    if metric == Metric.COSINE.value or protected is None:
        return keys / keys.square().sum(-1, keepdim=True), keys.new_zeros(len(keys))
    mean, covariance = protected.moments
    ridge = _RIDGE * covariance.diagonal().mean() * torch.eye(len(mean), device=mean.device)
    directions = torch.linalg.solve(covariance + ridge, (keys - mean).T).T
    directions = directions / (directions * (keys - mean)).sum(-1, keepdim=True)
    return directions, -(directions @ mean)
