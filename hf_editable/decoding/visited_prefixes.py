"""Prefixes of translations that beam searches visited, with the trunk states that no edit moves."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache

from ..tail.decoder_tail import Tail
from .encoded_sources import EncodedSources


# Prefixes that the trunk runs on at once: all their keys and values are copied for it.
_MOST_ROWS = 1024


class _Level:
    """
    Prefixes of one length: for each the number of its parent on the level above, its trunk states and attention keys.

    Tensors double in size when they are full; `size` rows of them count.
    """

    def __init__(self, parents: Tensor, sentences: Tensor, hidden: Tensor, attention: Tensor):
        self._columns = {"parents": parents, "sentences": sentences, "hidden": hidden, "attention": attention}
        self.size = len(parents)
        self._codes = torch.empty(0, dtype=torch.long, device=parents.device)
        self._places = self._codes

    def __getitem__(self, column: str) -> Tensor:
        return self._columns[column]

    def index(self, codes: Tensor, places: Tensor) -> None:
        """Remember that the prefixes with these codes are at these places."""
        codes, places = torch.cat([self._codes, codes]), torch.cat([self._places, places])
        self._codes, order = codes.sort()
        self._places = places[order]

    def find(self, codes: Tensor) -> Tensor:
        """Places of the prefixes with these codes; −1 where there is none."""
        if not len(self._codes):
            return torch.full_like(codes, -1)
        at = torch.searchsorted(self._codes, codes).clamp_(max=len(self._codes) - 1)
        return torch.where(self._codes[at] == codes, self._places[at], -1)

    def append(self, **columns: Tensor) -> Tensor:
        """Add prefixes; returns their places."""
        count = len(columns["parents"])
        start, self.size = self.size, self.size + count
        for name, new in columns.items():
            old = self._columns[name]
            if self.size > len(old):
                grown = old.new_empty((max(self.size, 2 * len(old)), *old.shape[1:]))
                grown[:start] = old[:start]
                self._columns[name] = old = grown
            old[start : self.size] = new
        return torch.arange(start, self.size, device=old.device)

    def forget(self, size: int) -> None:
        """Drop all but the first `size` prefixes."""
        known = self._places < size
        self._codes, self._places, self.size = self._codes[known], self._places[known], size
        self._columns = {name: column[:size].clone() for name, column in self._columns.items()}

    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self._columns.values(), self._codes, self._places))


@dataclass
class VisitedPrefixes:
    """
    The prefixes that searches over a batch of sources visited, by length, with the states of the trunk after each.

    The trunk runs once for a prefix, whichever edit it is first visited by: one position each, from the kept keys and
    values of the shorter prefixes.

    Args:
        tail ([`Tail`]): what edits move; everything before it is the trunk.
        sources ([`EncodedSources`]): the sources.
    """

    tail: Tail
    sources: EncodedSources

    def __post_init__(self):
        self._levels: list[_Level] = []
        self._kept: list[int] = []
        self._cross: list[tuple[Tensor, Tensor]] = []
        self._vocabulary = self.tail.model.config.get_text_config(decoder=True).vocab_size

    def nbytes(self) -> int:
        """Size in bytes."""
        cross = sum(tensor.nbytes for pair in self._cross for tensor in pair)
        return cross + sum(level.nbytes() for level in self._levels)

    def prefixes(self) -> int:
        """How many prefixes there are."""
        return sum(level.size for level in self._levels)

    def keep(self) -> None:
        """From now on `forget` leaves the prefixes that are known by now."""
        self._kept = [level.size for level in self._levels]

    def forget(self) -> None:
        """Drop the prefixes that were recorded since `keep`."""
        del self._levels[len(self._kept) :]
        for level, size in zip(self._levels, self._kept, strict=True):
            level.forget(size)

    def start(self, token: int) -> Tensor:
        """Places of the prefixes of the start token alone, one a source."""
        if not self._levels:
            count = len(self.sources.indices)
            sentences = torch.arange(count, device=self.sources.states.device)
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
            hidden, attention = self._run(torch.full_like(sentences, token), self.sources.states, sentences, cache)
            layers = cache.cross_attention_cache.layers
            self._cross = [(layer.keys, layer.values) for layer in layers]
            self._levels.append(_Level(sentences, sentences, hidden, attention))
        return torch.arange(self._levels[0].size, device=self.sources.states.device)

    def extend(self, length: int, parents: Tensor, tokens: Tensor) -> Tensor:
        """
        Places of the prefixes that are longer by a token than known ones. New ones are recorded.

        Args:
            length (`int`): length of the known ones in tokens, the start token among them.
            parents (`torch.LongTensor` of shape `(rows,)`): their places.
            tokens (`torch.LongTensor` of shape `(rows,)`): the tokens to add.

        Returns:
            `torch.LongTensor` of shape `(rows,)`.
        """
        codes = parents * self._vocabulary + tokens
        if length < len(self._levels):
            places = self._levels[length].find(codes)
            new = codes[places < 0].unique()
            if not len(new):
                return places
        else:
            new = codes.unique()
        parents, tokens = new // self._vocabulary, new % self._vocabulary
        sentences = self._levels[length - 1]["sentences"][parents]
        parts = zip(*(column.split(_MOST_ROWS) for column in (parents, tokens, sentences)), strict=True)
        runs = [self._run_on(length, *part) for part in parts]
        hidden, attention = (torch.cat(states) for states in zip(*runs, strict=True))
        if length == len(self._levels):
            self._levels.append(_Level(parents, sentences, hidden, attention))
            added = torch.arange(len(new), device=new.device)
        else:
            added = self._levels[length].append(
                parents=parents, sentences=sentences, hidden=hidden, attention=attention
            )
        self._levels[length].index(new, added)
        return self._levels[length].find(codes)

    def hidden(self, length: int, places: Tensor) -> Tensor:
        """Trunk states after the last token of prefixes of a length, of shape `(*places.shape, hidden)`."""
        return self._levels[length - 1]["hidden"][places]

    def _run_on(self, length: int, parents: Tensor, tokens: Tensor, sentences: Tensor) -> tuple[Tensor, Tensor]:
        """States after one more token than known prefixes have: see `_run`."""
        # The cache has what the layers make of the sources, so any states will do, and need not be copied.
        states = self.sources.states[:1].expand(len(tokens), -1, -1)
        return self._run(tokens, states, sentences, self._cache(length, parents, sentences))

    def _cache(self, length: int, places: Tensor, sentences: Tensor) -> EncoderDecoderCache:
        """The trunk's keys and values of prefixes, with room for the next position."""
        known = self._levels[0]["attention"]
        past = known.new_empty((length + 1, len(places), *known.shape[1:]))
        for place in reversed(range(length)):
            torch.index_select(self._levels[place]["attention"], 0, places, out=past[place])
            places = self._levels[place]["parents"][places]
        past = past.permute(2, 3, 1, 4, 0, 5)  # (layers, 2, rows, heads, positions, head dimension)
        return EncoderDecoderCache(
            Cache(layers=[_KnownButLast(keys, values) for keys, values in past]),
            Cache(layers=[_Known(keys[sentences], values[sentences]) for keys, values in self._cross]),
        )

    def _run(
        self, tokens: Tensor, states: Tensor, sentences: Tensor, cache: EncoderDecoderCache
    ) -> tuple[Tensor, Tensor]:
        """States after one more token: `(rows, hidden)`, and keys and values `(rows, layers, 2, heads, head dim)`."""
        hidden = self.tail.trunk_step(tokens[:, None], states, self.sources.attention_mask[sentences], cache)
        layers = cache.self_attention_cache.layers
        attention = torch.stack(
            [torch.stack([layer.keys[:, :, -1], layer.values[:, :, -1]], dim=1) for layer in layers], dim=1
        )
        return hidden[:, 0], attention


class _Known(DynamicLayer):
    """Known keys and values as a layer of a cache."""

    def __init__(self, keys: Tensor, values: Tensor):
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values


class _KnownButLast(_Known):
    """The same with room for those of the next position, so that `update` copies nothing else."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.keys[:, :, -1:], self.values[:, :, -1:] = key_states, value_states
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.keys.shape[2] - 1
