"""One token more, after prefixes whose keys and values a cache has: what searches run."""

from collections.abc import Iterator

from torch import Tensor, nn
from transformers.cache_utils import Cache

from ..numerics.scoring import MOST_LOGITS
from .copies import TailCopy, TrunkCopy
from .forward_passes import next_token_pass


def trunk_step(
    trunk: TrunkCopy, tokens: Tensor, encoder_states: Tensor, attention_mask: Tensor, cache: Cache
) -> Tensor:
    """See [`Tail.trunk_step`]."""
    return trunk.ending_hidden(lambda: next_token_pass(trunk.model, tokens, encoder_states, attention_mask, cache))


def tail_step(
    tail: TailCopy,
    projection: tuple[Tensor, Tensor | None] | None,
    hidden: Tensor,
    tokens: Tensor,
    encoder_states: Tensor,
    attention_mask: Tensor,
    visible: Tensor,
    cache: Cache,
) -> Iterator[Tensor]:
    """See [`Tail.tail_step`]; logits come in parts where there is a `projection`."""
    given = (tail.model, tokens, encoder_states, attention_mask, cache, visible)
    if projection is None:
        with tail.replaying(hidden=hidden):
            logits = next_token_pass(*given).logits
        yield logits
        return
    with tail.replaying(hidden=hidden):
        states = tail.ending_hidden(lambda: next_token_pass(*given), tail.head)
    for part in states.split(max(1, MOST_LOGITS // (states.shape[1] * len(projection[0])))):
        yield nn.functional.linear(part, *projection)
