"""A test set's translations by edited models, without decoding all of it again after each edit."""

from collections.abc import Sequence

from transformers.utils import logging

from ..numerics.scoring import MOST_LOGITS
from ..tail.decoder_tail import Tail
from .beam_search import BeamSearch
from .encoded_sources import EncodedSources
from .generation import beam_search
from .trial import follows_generate, trial_length
from .visited_prefixes import VisitedPrefixes


logger = logging.get_logger(__name__)

# Numbers in the states of the running prefixes after all edited layers that pay at once: 512 sources with 5 beams and
# one layer of 256. Their attention keeps as many for every position.
_MOST_STATES = 655_360


class RecordedDecoding:
    """
    Beam search over a test set by a model and its edits, on a record of the prefixes that searches have visited.

    Sources that do not fit into the record, and those whose search comes down to rounding, are decoded by `generate`.

    Args:
        tail ([`Tail`]): the part of the model that edits move.
        batches (`list[EncodedSources]`): the sources, those with translations of similar lengths together.
        expected (`list[int]`): for each batch, a number of tokens that its translations hardly ever have.
        num_beams (`int`): beam size.
        max_new_tokens (`int`): the most tokens of a translation.
        max_bytes (`int`): size that the record is kept below.
    """

    def __init__(
        self,
        tail: Tail,
        batches: Sequence[EncodedSources],
        expected: Sequence[int],
        num_beams: int,
        max_new_tokens: int,
        max_bytes: int,
    ):
        self._model = tail.model
        self._limits = (num_beams, max_new_tokens)
        self._max_bytes = max_bytes
        self._plain_size = max(len(part.indices) for part in batches)
        self._expected = {i: length for part, length in zip(batches, expected, strict=True) for i in part.indices}
        together = EncodedSources.join(batches)
        most = _MOST_STATES // (together.states.shape[-1] * (tail.num_layers - tail.first_index))
        if tail.projection is None:  # the logits of all of them are in memory at once
            most = min(most, MOST_LOGITS // tail.model.config.get_text_config(decoder=True).vocab_size)
        self._searches = [_search(tail, sources) for sources in together.split(max(1, most // num_beams))]
        self._plain: list[EncodedSources] = []
        self._is_recorded = False

    def describe(self) -> dict[str, int]:
        """How many sentences and prefixes are recorded, in how many bytes."""
        return {
            "sentences": sum(len(search.sources.indices) for search in self._searches),
            "prefixes": sum(search.trunk.prefixes() for search in self._searches),
            "bytes": sum(search.trunk.nbytes() for search in self._searches),
        }

    def translate(self) -> dict[int, list[int]]:
        """
        Token ids by the sources' indices, with the parameters that the model has now.

        Call it for the model before any edit first. The record keeps for good what that call visits, as far as it
        fits, and drops what later calls add when it gets too large.
        """
        found: dict[int, list[int]] = {}
        narrow: list[EncodedSources] = []
        left = []
        for search in self._searches:
            output = search.translate(*self._limits, skip_narrow=True)
            found |= zip(search.sources.indices, output.tolist(), strict=True)
            narrow += [search.sources.select(search.narrow)] if search.narrow else []
            if not self._is_recorded:
                search.trunk.keep()
                if sum(known.trunk.nbytes() for known in left) + search.trunk.nbytes() > self._max_bytes:
                    self._plain.append(search.sources)
                    continue
            left.append(search)
        if sum(search.trunk.nbytes() for search in left) > self._max_bytes:
            for search in left:
                search.trunk.forget()
        self._searches, self._is_recorded = left, True
        unknown = [source for source in self._plain if not found.keys() >= set(source.indices)]
        # The searches that come down to rounding are few, so they go to the limit at once.
        return found | self._decode(narrow, bounded=False) | self._decode(unknown, bounded=True)

    def _decode(self, parts: Sequence[EncodedSources], bounded: bool) -> dict[int, list[int]]:
        """By `generate`, at first to the expected length if it is to be bounded."""
        if not parts:
            return {}
        batches = EncodedSources.join(parts).split(self._plain_size)
        limit = self._limits[1]
        expected = [max(self._expected[index] for index in part.indices) if bounded else limit for part in batches]
        return beam_search(self._model, batches, expected, *self._limits)


def record(
    tail: Tail, batches: Sequence[EncodedSources], expected: Sequence[int], **limits: int
) -> RecordedDecoding | None:
    """
    A record to be made of the search of a model; `None` if its kind of search cannot be recorded.

    Args:
        tail ([`Tail`]), batches (`list[EncodedSources]`), expected (`list[int]`): see [`RecordedDecoding`].
        limits: `num_beams`, `max_new_tokens` and `max_bytes` of [`RecordedDecoding`].
    """
    if limits["num_beams"] < 2 or tail.first_index == 0:
        return None
    few = batches[0].select(list(range(min(4, len(batches[0].indices)))))
    length = min(trial_length(tail.model, 16), limits["max_new_tokens"])
    if not follows_generate(_search(tail, few), limits["num_beams"], length):
        logger.info(f"All translations by {type(tail.model).__name__} are decoded anew after an edit, more slowly.")
        return None
    return RecordedDecoding(tail, batches, expected, **limits)


def _search(tail: Tail, sources: EncodedSources) -> BeamSearch:
    return BeamSearch(tail, sources, VisitedPrefixes(tail, sources))
