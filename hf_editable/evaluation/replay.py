"""Beam search of edited models from a record of the prefixes that earlier searches visited."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache

from ..decoding import EncodedSources
from ..tail import Tail
from .prefixes import PrefixTree


# Sums of log-probabilities closer than this may compare either way: rounding in single precision moves them, by at
# most 7e-6 where it was measured.
NARROW = 5e-5
_IMPOSSIBLE = -1e8  # generate gives −1e9 to what must not be chosen
_BLOCK = 64


class _Positions(DynamicLayer):
    """Keys and values of all positions visited by the search for a source, in one buffer that grows."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        start = 0 if not self.is_initialized else self.size
        self.size = start + key_states.shape[2]
        if not self.is_initialized or self.size > self.buffers[0].shape[2]:
            shape = (*key_states.shape[:2], 2 * self.size + 64, key_states.shape[3])
            buffers = [key_states.new_empty(shape), value_states.new_empty(shape)]
            for buffer, old in zip(buffers, getattr(self, "buffers", ()), strict=False):
                buffer[:, :, :start] = old[:, :, :start]
            self.buffers, self.is_initialized = buffers, True
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start : self.size] = new
        self.keys, self.values = (buffer[:, :, : self.size] for buffer in self.buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        self.buffers = [buffer[indices] for buffer in self.buffers]

    def keep(self, positions: Tensor) -> None:
        """Keep some of the positions, of shape `(batch, positions)`."""
        at = positions[:, None, :, None]
        self.buffers = [torch.take_along_dim(buffer, at, dim=2) for buffer in self.buffers]
        self.size = positions.shape[1]


class _Before(DynamicLayer):
    """Stands for a layer of the trunk, which keeps nothing: what the decoder embeds is thrown away."""

    def get_seq_length(self) -> int:
        return 0


@dataclass
class _Beams:
    """What a search knows of each source that it has not finished; the first dimension is the source."""

    rows: Tensor  # which sources of the batch
    places: Tensor  # (sources, beams): the running prefixes, in the tree
    running: Tensor  # (sources, beams, width): their tokens
    running_scores: Tensor
    finished: Tensor  # (sources, beams, width): the best complete translations
    finished_scores: Tensor
    is_finished: Tensor
    improvable: Tensor  # (sources, 1)
    ancestors: Tensor  # (sources, beams, positions): of which positions the running prefixes consist
    narrow: Tensor  # (sources,): whether rounding may have decided

    def select(self, keep: Tensor) -> "_Beams":
        return _Beams(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})


class RecordedSearch:
    """
    Beam search over a batch of sources that runs only what an edit moves: the edited layers and those after them.

    Follows `generate` step by step, with its own selection of beams, logits processors and stopping criteria. The
    trunk runs for prefixes that no earlier search visited, each source is dropped when its search is over, and beams
    share the keys and values of their common positions. The translations are those of `generate`, but where scores
    that the search compares are closer than rounding can tell apart ([`NARROW`]); such sources are reported.

    Args:
        tail ([`Tail`]): the part that edits move. Its first layer must not be the decoder's first.
        sources ([`EncodedSources`]): the batch.

    Attributes:
        tree ([`PrefixTree`]): the record.
        scores (`torch.Tensor` of shape `(batch,)`): of the last search's translations, as beam search ranks by.
    """

    def __init__(self, tail: Tail, sources: EncodedSources):
        self.sources = sources
        self.tree = PrefixTree(tail, sources)
        self._tail = tail
        self._narrow: list[int] = []
        self.scores = torch.empty(0)

    def translate(self, num_beams: int, max_new_tokens: int) -> tuple[dict[int, list[int]], list[int]]:
        """
        Translations with the parameters that the model has now.

        Args:
            num_beams (`int`): beam size, 2 or more.
            max_new_tokens (`int`): the most tokens of a translation.

        Returns:
            `tuple`: token ids by the sources' indices, and the positions in the batch of sources whose search came
            down to rounding.
        """
        options = {"num_beams": num_beams, "do_sample": False}
        output = self.sources.generate(self._tail.model, max_new_tokens, custom_generate=self._search, **options)
        return dict(zip(self.sources.indices, output.tolist(), strict=True)), self._narrow

    def _search(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **kwargs: Any,
    ) -> Tensor:
        """The loop of `GenerationMixin._beam_search`, as `generate` calls it."""
        selection = _Selection(model, logits_processor, stopping_criteria, generation_config)
        cache = self._empty_cache()
        beams = selection.begin(self.tree.start(int(input_ids[0, 0])), input_ids)
        width = generation_config.max_length
        output = input_ids.new_full((len(beams.rows), width), selection.padding)
        narrow = torch.zeros(len(beams.rows), dtype=torch.bool, device=input_ids.device)
        self.scores = torch.zeros(len(beams.rows), device=input_ids.device)
        for length in range(1, width):
            logits = self._logits(beams, length, cache)
            parents, over = selection.advance(beams, logits, length)
            if bool(over.all()) or int(over.sum()) * 16 >= len(over):
                done = beams.select(over.nonzero().flatten())
                output[done.rows, : length + 1] = done.finished[:, 0, : length + 1]
                narrow[done.rows], self.scores[done.rows] = done.narrow, done.finished_scores[:, 0]
                left = (~over).nonzero().flatten()
                if not len(left):
                    break
                beams, parents = beams.select(left), parents[left]
                for part in (cache.self_attention_cache, cache.cross_attention_cache):
                    part.batch_select_indices(left)
            tokens = beams.running[:, :, length]
            self._prune(beams, cache)
            places = beams.places.gather(1, parents)
            beams.places = self.tree.extend(length, places.flatten(), tokens.flatten()).view_as(places)
        self._narrow = narrow.nonzero().flatten().tolist()
        return output

    def _logits(self, beams: _Beams, length: int, cache: EncoderDecoderCache) -> Tensor:
        """Logits after the running prefixes, of shape `(sources, beams, vocabulary)`."""
        count, width = beams.places.shape
        device = beams.places.device
        if length == 1:  # all beams are the start token
            own = torch.ones((count, width, 1), dtype=torch.bool, device=device)
        else:
            own = torch.eye(width, dtype=torch.bool, device=device).expand(count, -1, -1)
        rows = own.shape[-1]
        beams.ancestors = torch.cat([beams.ancestors, own], dim=-1)
        hidden = self.tree.hidden(length, beams.places[:, :rows])
        visible = torch.zeros(beams.ancestors[:, :rows].shape, dtype=hidden.dtype, device=device)
        visible.masked_fill_(~beams.ancestors[:, :rows], torch.finfo(hidden.dtype).min)
        states, mask = self.sources.states[beams.rows], self.sources.attention_mask[beams.rows]
        tokens = beams.running[:, :rows, length - 1]
        logits = self._tail.tail_step(hidden, tokens, states, mask, visible[:, None], cache)
        return logits.expand(-1, width, -1)

    @staticmethod
    def _prune(beams: _Beams, cache: EncoderDecoderCache) -> None:
        """Forget positions that no running prefix has, once they are the most."""
        used = beams.ancestors.any(1)
        count = int(used.sum(1).max())
        if 2 * count > used.shape[1]:
            return
        positions = used.to(torch.int8).sort(descending=True, stable=True).indices[:, :count]
        beams.ancestors = torch.take_along_dim(beams.ancestors, positions[:, None], dim=2)
        for layer in cache.self_attention_cache.layers:
            if isinstance(layer, _Positions):
                layer.keep(positions)

    def _empty_cache(self) -> EncoderDecoderCache:
        layers = self._tail.num_layers
        own = Cache(layers=[_Before() if i < self._tail.first_index else _Positions() for i in range(layers)])
        return EncoderDecoderCache(own, DynamicCache())


class _Selection:
    """How `generate` goes from the scores of all next tokens to the next beams."""

    def __init__(
        self,
        model: PreTrainedModel,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        config: GenerationConfig,
    ):
        self._model, self._processors, self._criteria, self._config = model, processors, criteria, config
        self._beams = config.num_beams
        ends, padding = config._eos_token_tensor, config._pad_token_tensor
        self._kept = max(2, 1 + (0 if ends is None else len(ends))) * self._beams
        fill = padding if padding is not None else ends
        self.padding = -1 if fill is None else int(fill.flatten()[0])

    def begin(self, places: Tensor, input_ids: Tensor) -> _Beams:
        """Beams of the start token, of which only the first counts."""
        count, beams, device = len(places), self._beams, places.device
        tokens = torch.full((count, beams, 32), self.padding, device=device)
        tokens[:, :, 0] = input_ids[0, 0]
        scores = torch.zeros((count, beams), device=device)
        scores[:, 1:] = -1e9
        return _Beams(
            rows=torch.arange(count, device=device),
            places=places[:, None].expand(-1, beams),
            running=tokens,
            running_scores=scores,
            finished=tokens.clone(),
            finished_scores=torch.full((count, beams), -1e9, device=device),
            is_finished=torch.zeros((count, beams), dtype=torch.bool, device=device),
            improvable=torch.ones((count, 1), dtype=torch.bool, device=device),
            ancestors=torch.zeros((count, beams, 0), dtype=torch.bool, device=device),
            narrow=torch.zeros(count, dtype=torch.bool, device=device),
        )

    def advance(self, beams: _Beams, logits: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """
        Choose the next beams, in place.

        Returns:
            `tuple(torch.LongTensor, torch.BoolTensor)` of shapes `(sources, beams)` and `(sources,)`: which beam each
            comes from, and whether the search of the source is over.
        """
        scores, before = logits.to(torch.float32), beams.running_scores
        normalizers = scores.logsumexp(-1)
        if self._processors:
            scores = scores - normalizers[:, :, None]
            flat = self._processors(beams.running[:, :, :length].flatten(0, 1), scores.flatten(0, 1))
            scores, tokens, parents = self._candidates(flat.view_as(scores), before)
        else:  # what is the same for all tokens does not change their order
            scores, tokens, parents = self._candidates(scores, before - normalizers)
        if length == beams.running.shape[-1]:
            wider = torch.full_like(beams.running, self.padding)
            beams.running, beams.finished = (torch.cat([part, wider], -1) for part in (beams.running, beams.finished))
        kept, came_from = scores[:, : self._kept], parents[:, : self._kept]
        sequences = beams.running.gather(1, came_from[:, :, None].expand(-1, -1, beams.running.shape[-1]))
        sequences[:, :, length] = tokens[:, : self._kept]
        ended = self._criteria(sequences[:, :, : length + 1].flatten(0, 1), None).view(kept.shape)
        beams.narrow |= self._is_narrow(scores, ended)
        model, own = self._model, came_from[:, :, None]
        beams.running, beams.running_scores, chosen = model._get_running_beams_for_next_iteration(
            topk_log_probs=kept,
            topk_running_sequences=sequences,
            topk_running_beam_indices=own,
            next_token_hits_stopping_criteria=ended,
            num_beams=self._beams,
        )
        over = self._finish(beams, kept, sequences, own, ended, length)
        parents = chosen[:, :, 0]
        beams.ancestors = beams.ancestors.gather(1, parents[:, :, None].expand(-1, -1, beams.ancestors.shape[-1]))
        return parents, over

    def _candidates(self, scores: Tensor, running: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best continuations, one more than are kept: sums, tokens and the beams that they continue."""
        count, beams, vocabulary = scores.shape
        each = min(self._kept + 1, vocabulary)
        values, tokens = _largest(scores.flatten(0, 1), each)
        total = (values.view(count, beams, each) + running[:, :, None]).flatten(1)
        best, at = total.topk(min(self._kept + 1, total.shape[1]))
        return best, tokens.view(count, -1).gather(1, at), at // each

    def _finish(
        self, beams: _Beams, kept: Tensor, sequences: Tensor, own: Tensor, ended: Tensor, length: int
    ) -> Tensor:
        """Take in what ended, and say of which sources the search is over."""
        model, config = self._model, self._config
        settings = {"early_stopping": config.early_stopping, "length_penalty": config.length_penalty}
        top = torch.arange(self._kept, device=kept.device) < self._beams
        beams.finished, beams.finished_scores, _, beams.is_finished = model._update_finished_beams(
            sequences=beams.finished,
            topk_running_sequences=sequences,
            beam_scores=beams.finished_scores,
            topk_log_probs=kept,
            beam_indices=own[:, : self._beams],
            topk_running_beam_indices=own,
            is_early_stop_heuristic_unsatisfied=beams.improvable,
            is_sent_finished=beams.is_finished,
            next_token_hits_stopping_criteria=ended,
            top_num_beam_mask=top,
            num_beams=self._beams,
            cur_len=length,
            decoder_prompt_len=1,
            **settings,
        )
        before = beams.improvable
        beams.improvable = model._check_early_stop_heuristic(
            is_early_stop_heuristic_unsatisfied=before,
            running_beam_scores=beams.running_scores,
            beam_scores=beams.finished_scores,
            is_sent_finished=beams.is_finished,
            cur_len=length + 1,
            max_length=config.max_length,
            decoder_prompt_len=1,
            **settings,
        )
        over = ~beams.improvable[:, 0] | ended.all(1)
        if config.early_stopping is True:
            over |= beams.is_finished.all(1)
        # How much the best prefix would have to gain to get in, and how far the two best translations are apart.
        longest = config.max_length - 1 if config.early_stopping == "never" and config.length_penalty > 0 else length
        hope = beams.running_scores[:, 0] / longest**config.length_penalty
        worst = beams.finished_scores.amin(1)
        gaps = torch.stack([(hope - worst).abs(), beams.finished_scores[:, 0] - beams.finished_scores[:, 1]])
        close = gaps * length**config.length_penalty < NARROW
        close &= torch.stack([worst, beams.finished_scores[:, 1]]) > _IMPOSSIBLE
        beams.narrow |= (close[0] & before[:, 0]) | (close[1] & over)
        return over

    def _is_narrow(self, scores: Tensor, ended: Tensor) -> Tensor:
        """Whether what goes on, or what has ended among the best, is decided by less than rounding."""
        kept, beams = scores[:, : self._kept], self._beams
        running, _ = (kept + ended * -1e9).sort(descending=True)
        last = running[:, beams - 1]
        rival = running[:, beams]
        if scores.shape[1] > self._kept:
            rival = torch.maximum(rival, scores[:, self._kept])
        goes_on = (last - rival < NARROW) & (rival > _IMPOSSIBLE)
        boundary = kept[:, beams - 1] - kept[:, beams] < NARROW
        return goes_on | (boundary & ended[:, beams - 1 : beams + 1].any(1) & (kept[:, beams] > _IMPOSSIBLE))


def _largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """
    `values.topk(count)` of each row: the largest of a row are in the blocks with the largest maxima.

    Args:
        values (`torch.Tensor` of shape `(rows, columns)`): numbers.
        count (`int`): how many.
    """
    rows, columns = values.shape
    if columns < 4 * count * _BLOCK:
        return values.topk(count)
    whole = columns // _BLOCK
    blocks = values[:, : whole * _BLOCK].view(rows, whole, _BLOCK)
    best = blocks.amax(-1).topk(count).indices
    chosen = (best[:, :, None] * _BLOCK + torch.arange(_BLOCK, device=values.device)).flatten(1)
    rest = torch.arange(whole * _BLOCK, columns, device=values.device).expand(rows, -1)
    chosen = torch.cat([chosen, rest], dim=1)
    found, at = values.gather(1, chosen).topk(count)
    return found, chosen.gather(1, at)
