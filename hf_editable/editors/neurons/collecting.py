"""The states of reference sentences, collected once for a model."""

import torch

from ...data.references import References
from ...models.weights import fingerprint_weights
from .positions import FinalFeedForward
from .protected_states import ProtectedStates
from .space import Space


# Sentences whose targets are forced at once.
BATCH = 64


def protected_states(final: FinalFeedForward, space: Space, references: References, count: int) -> ProtectedStates:
    """
    The states of the references' translations, and what the model says after each.

    Args:
        final ([`FinalFeedForward`]): of the model, without neurons.
        space ([`Space`]): what the states are measured in.
        references ([`References`]): the references.
        count (`int`): how many of them are used at most, the first ones.
    """

    def collect() -> ProtectedStates:
        states, tokens = [], []
        for batch in references.batches(final.model, count, BATCH):
            found = final.positions(batch)
            states.append(space.normed(found.states).half())
            tokens.append(found.predicted.int())
        return ProtectedStates(torch.cat(states), torch.cat(tokens))

    key = ("protected states", fingerprint_weights(final.model), count)
    return references.once(final.model, key, collect)
