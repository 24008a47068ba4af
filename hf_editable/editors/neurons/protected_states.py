"""States that must not change: what the feed-forward is given on the way to translations that are to stay."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...patches.composition import reach_to


_MOST_PRODUCTS = 2**26


@dataclass
class ProtectedStates:
    """
    States of reference translations, and the token that follows each.

    Args:
        states (`torch.Tensor` of shape `(states, hidden)`): `float16`, normed: see [`Space`].
        tokens (`torch.Tensor` of shape `(states,)`): `int32`.
    """

    states: Tensor
    tokens: Tensor

    def thresholds(self, directions: Tensor, offsets: Tensor, tokens: Tensor) -> Tensor:
        """
        The thresholds with which neurons are zero at all of the states but those that their own token follows.

        Args:
            directions (`torch.Tensor` of shape `(neurons, hidden)`), offsets (`torch.Tensor` of shape `(neurons,)`):
                of `z`, in the space of the states.
            tokens (`torch.LongTensor` of shape `(neurons,)`): the neurons' tokens.

        Returns:
            `torch.Tensor` of shape `(neurons,)`.
        """
        highest = torch.full_like(offsets, -torch.inf)
        for states, followed in self._parts(len(offsets)):
            z = directions @ states.T + offsets[:, None]
            z.masked_fill_(tokens[:, None] == followed[None], -torch.inf)
            highest = torch.maximum(highest, z.amax(-1))
        return reach_to(highest)

    def _parts(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        size = max(1, _MOST_PRODUCTS // max(1, count))
        for states, tokens in zip(self.states.split(size), self.tokens.split(size), strict=True):
            yield states.float(), tokens.long()

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean, of shape `(hidden,)`, and covariance of the states."""
        states = self.states.float()
        mean = states.mean(0)
        centred = states - mean
        return mean, centred.T @ centred / len(states)
