"""Beam search whose beams share what they have in common: positions, keys and values of the source, finished work."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache
from transformers.utils import logging

from ..configuration import EditConfig
from ..errors import EditableError
from ..tail.decoder_tail import Tail
from ..tail.prefix_tree import takes_prefix_trees
from .beams import Beams, Selection
from .encoded_sources import EncodedSources
from .trial import follows_generate, trial_length


logger = logging.get_logger(__name__)


class _Positions(DynamicLayer):
    """
    Keys and values of the positions of the running prefixes of each source, in slots of which the free ones get the
    next positions.
    """

    def take(self, slots: Tensor, count: int) -> None:
        """Where the next positions go, of shape `(sources, positions)`, and how many slots there are then."""
        self.slots, self.count = slots, count

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        rows, heads, _, width = key_states.shape
        if not self.is_initialized:
            self.buffers, self.is_initialized = [key_states.new_zeros((rows, heads, 0, width))] * 2, True
        at = self.slots[:, None, :, None].expand_as(key_states)
        for index, new in enumerate((key_states, value_states)):
            old = self.buffers[index]
            if self.count > old.shape[2]:  # what is in a free slot is masked, so it has to be finite
                self.buffers[index] = old.new_zeros((rows, heads, 2 * self.count, width))
                self.buffers[index][:, :, : old.shape[2]] = old
            self.buffers[index].scatter_(2, at, new)
        self.keys, self.values = (buffer[:, :, : self.count] for buffer in self.buffers)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return 0  # these are not the length of a prefix, by which the decoder might look up embeddings

    def batch_select_indices(self, indices: Tensor) -> None:
        self.buffers = [buffer[indices] for buffer in self.buffers]


class _Before(DynamicLayer):
    """
    Stands for a layer of the trunk, which keeps nothing: what the decoder embeds is thrown away.

    Args:
        length (`int`, *optional*, defaults to 0): how many positions the decoder is to count as cached.
    """

    def __init__(self, length: int = 0):
        super().__init__()
        self.length = length

    def get_seq_length(self) -> int:
        return self.length


class Trunk(Protocol):
    """Where the states come from that the first edited layer is given after a prefix."""

    def start(self, token: int) -> Tensor:
        """Places of the prefixes of the start token alone, of shape `(sources,)`."""

    def extend(self, length: int, parents: Tensor, tokens: Tensor) -> Tensor:
        """Places of the prefixes that are longer by a token than those of `length` tokens at the places `parents`."""

    def hidden(self, length: int, places: Tensor) -> Tensor:
        """States after the last token of prefixes of a length, of shape `(*places.shape, hidden)`."""


class Embeddings:
    """
    The [`Trunk`] of a decoder of which all layers are edited: what its first one is given has nothing of the shorter
    prefixes in it, so none of them is kept.

    Args:
        tail ([`Tail`]): all layers of the decoder.
        sources ([`EncodedSources`]): the sources.
    """

    def __init__(self, tail: Tail, sources: EncodedSources):
        self._tail, self._sources = tail, sources

    def start(self, token: int) -> Tensor:
        places = torch.arange(len(self._sources.indices), device=self._sources.states.device)
        return self.extend(0, places, torch.full_like(places, token))

    def extend(self, length: int, parents: Tensor, tokens: Tensor) -> Tensor:
        # The decoder makes its masks for any source before it gets to its first layer.
        source = (self._sources.states, self._sources.attention_mask)
        states, mask = (part[:1].expand(len(tokens), *part.shape[1:]) for part in source)
        cache = EncoderDecoderCache(Cache(layers=[_Before(length)] * self._tail.num_layers), DynamicCache())
        self._states = self._tail.trunk_step(tokens[:, None], states, mask, cache)[:, 0]
        return torch.arange(len(tokens), device=tokens.device)

    def hidden(self, length: int, places: Tensor) -> Tensor:
        return self._states[places]


class BeamSearch:
    """
    Beam search over a batch of sources, of which only a tail of the decoder runs in full.

    Follows `generate` step by step, with its own selection of beams, logits processors and stopping criteria. Each
    source is dropped when its search is over, beams share the keys and values of their common positions and of their
    source, and what the tail is given comes from the trunk, which may know it from earlier searches. The translations
    are those of `generate`, but where scores that the search compares are closer than rounding can tell apart
    ([`NARROW`]); such sources are reported.

    Args:
        tail ([`Tail`]): the part of the decoder that runs.
        sources ([`EncodedSources`]): the batch.
        trunk ([`Trunk`]): what comes before it.

    Attributes:
        scores (`torch.Tensor` of shape `(batch,)`): of the last search's best translations, as beam search ranks by.
        narrow (`list[int]`): positions in the batch of sources whose last search came down to rounding.
    """

    def __init__(self, tail: Tail, sources: EncodedSources, trunk: Trunk):
        self.model, self.sources, self.trunk = tail.model, sources, trunk
        self.scores = torch.empty(0)
        self.narrow: list[int] = []
        self._tail = tail

    def translate(
        self, num_beams: int, max_new_tokens: int, num_return_sequences: int = 1, skip_narrow: bool = False
    ) -> Tensor:
        """
        Translations with the parameters that the model has now.

        Args:
            num_beams (`int`): beam size, 2 or more.
            max_new_tokens (`int`): the most tokens of a translation.
            num_return_sequences (`int`, *optional*, defaults to 1): how many of each source, the best first.
            skip_narrow (`bool`, *optional*, defaults to `False`):
                whether to give up a source as soon as its search comes down to rounding; it has no translation then.

        Returns:
            `torch.LongTensor` of shape `(batch · num_return_sequences, length)`: token ids.
        """
        options = {"num_beams": num_beams, "num_return_sequences": num_return_sequences, "do_sample": False}
        options |= {"custom_generate": self._search, "skip_narrow": skip_narrow}
        return self.sources.generate(self.model, max_new_tokens, **options)

    def check_exact(self) -> None:
        """See [`Tail.check_exact`], which also finds out whether the logits can be had in parts."""
        mask = self.sources.attention_mask
        labels = mask.new_zeros((len(mask), 2))  # any tokens do
        self._tail.check_exact(self._tail.record(None, mask, labels, self.sources.states))

    def _search(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        skip_narrow: bool,
        **kwargs: Any,
    ) -> Tensor:
        """The loop of `GenerationMixin._beam_search`, as `generate` calls it."""
        selection = Selection(model, logits_processor, stopping_criteria, generation_config)
        cache = self._empty_cache()
        beams = selection.begin(self.trunk.start(int(input_ids[0, 0])), input_ids)
        width = generation_config.max_length
        count = generation_config.num_return_sequences
        output = input_ids.new_full((len(beams.rows), count, width), selection.padding)
        narrow = torch.zeros(len(beams.rows), dtype=torch.bool, device=input_ids.device)
        self.scores = torch.zeros(len(beams.rows), device=input_ids.device)
        source = (self.sources.states, self.sources.attention_mask)
        for length in range(1, width):
            logits = self._logits(beams, length, source, cache)
            parents, over = selection.advance(beams, logits, length)
            if skip_narrow:
                over |= beams.narrow
            if bool(over.all()) or int(over.sum()) * 16 >= len(over):
                done = beams.select(over.nonzero().flatten())
                output[done.rows, :, : length + 1] = done.finished[:, :count, : length + 1]
                narrow[done.rows], self.scores[done.rows] = done.narrow, done.finished_scores[:, 0]
                left = (~over).nonzero().flatten()
                if not len(left):
                    break
                beams, parents, source = beams.select(left), parents[left], tuple(part[left] for part in source)
                for part in (cache.self_attention_cache, cache.cross_attention_cache):
                    part.batch_select_indices(left)
            tokens = beams.running[:, :, length]
            places = beams.places.gather(1, parents)
            beams.places = self.trunk.extend(length, places.flatten(), tokens.flatten()).view_as(places)
        self.narrow = narrow.nonzero().flatten().tolist()
        return output.flatten(0, 1)

    def _logits(
        self, beams: Beams, length: int, source: tuple[Tensor, Tensor], cache: EncoderDecoderCache
    ) -> Iterator[Tensor]:
        """Logits after the running prefixes, or after one where all are the same: see [`Tail.tail_step`]."""
        rows = 1 if length == 1 else beams.places.shape[1]  # at first all beams are the start token
        slots = beams.take(rows)
        for layer in cache.self_attention_cache.layers[self._tail.first_index :]:
            layer.take(slots, beams.ancestors.shape[-1])
        hidden = self.trunk.hidden(length, beams.places[:, :rows])
        visible = torch.zeros(beams.ancestors[:, :rows].shape, dtype=hidden.dtype, device=hidden.device)
        visible.masked_fill_(~beams.ancestors[:, :rows], torch.finfo(hidden.dtype).min)
        return self._tail.tail_step(hidden, beams.running[:, :rows, length - 1], *source, visible[:, None], cache)

    def _empty_cache(self) -> EncoderDecoderCache:
        layers = self._tail.num_layers
        own = Cache(layers=[_Before() if i < self._tail.first_index else _Positions() for i in range(layers)])
        return EncoderDecoderCache(own, DynamicCache())


def whole_decoder(model: PreTrainedModel, sources: EncodedSources, num_beams: int) -> Tail | None:
    """
    The tail that all layers of a decoder are, for a [`BeamSearch`]; `None` if that would not follow `generate`.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model.
        sources ([`EncodedSources`]): a few sources to try it with.
        num_beams (`int`): beam size.
    """
    if num_beams < 2:
        return None
    name = type(model).__name__
    if not takes_prefix_trees(model):
        logger.info(f"Beams of {name} do not share what they have in common: its family is not known to allow it.")
        return None
    try:
        tail = Tail(model, EditConfig(layers_to_transform=0))
    except EditableError as error:  # not every model that translates can be edited
        logger.info(f"Beams of {name} cannot share what they have in common: {error}")
        return None
    search = BeamSearch(tail, sources, Embeddings(tail, sources))
    return tail if follows_generate(search, min(num_beams, 4), trial_length(model, 4)) else None
