"""How beam search goes from the scores of all next tokens to the next beams, as `generate` does."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

from ..models.private_names import check_private_names


check_private_names(__name__)

# Sums of log-probabilities closer than this may compare either way: rounding in single precision moves them, by at
# most 7e-6 where it was measured.
NARROW = 5e-5
_IMPOSSIBLE = -1e8  # generate gives −1e9 to what must not be chosen
_BLOCK = 64


@dataclass
class Beams:
    """What a search knows of each source that it has not finished; the first dimension is the source."""

    rows: Tensor  # which sources of the batch
    places: Tensor  # (sources, beams): the running prefixes, in the trunk
    running: Tensor  # (sources, beams, width): their tokens
    running_scores: Tensor
    finished: Tensor  # (sources, beams, width): the best complete translations
    finished_scores: Tensor
    is_finished: Tensor
    improvable: Tensor  # (sources, 1)
    ancestors: Tensor  # (sources, beams, slots): in which slots the running prefixes' positions are
    narrow: Tensor  # (sources,): whether rounding may have decided

    def take(self, count: int) -> Tensor:
        """
        Slots that no running prefix needs any more, for the last token of each: `count` is their number, or 1 if all
        are the same.

        Returns:
            `torch.LongTensor` of shape `(sources, count)`.
        """
        free = ~self.ancestors.any(1)
        lacking = count - int(free.sum(1).min())
        if lacking > 0:
            free = pad(free, (0, lacking), value=True)
            self.ancestors = pad(self.ancestors, (0, lacking))
        slots = free.to(torch.int8).sort(descending=True, stable=True).indices[:, :count]
        self.ancestors = self.ancestors.scatter(2, slots[:, :, None].expand(-1, self.places.shape[1], -1), True)
        return slots

    def select(self, keep: Tensor) -> "Beams":
        return Beams(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})


class Selection:
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

    def begin(self, places: Tensor, input_ids: Tensor) -> Beams:
        """Beams of the start token, of which only the first counts."""
        count, beams, device = len(places), self._beams, places.device
        tokens = torch.full((count, beams, 32), self.padding, device=device)
        tokens[:, :, 0] = input_ids[0, 0]
        scores = torch.zeros((count, beams), device=device)
        scores[:, 1:] = -1e9
        return Beams(
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

    def advance(self, beams: Beams, logits: Iterable[Tensor], length: int) -> tuple[Tensor, Tensor]:
        """
        Choose the next beams, in place.

        Args:
            logits (`Iterable[torch.Tensor]` of shape `(sources, beams or 1, vocabulary)`):
                those after the running prefixes, or after the one that all of them are, of some sources after the
                other. They are overwritten.
            length (`int`): of the running prefixes, in tokens.

        Returns:
            `tuple(torch.LongTensor, torch.BoolTensor)` of shapes `(sources, beams)` and `(sources,)`: which beam each
            comes from, and whether the search of the source is over.
        """
        found, start = [], 0
        for part in logits:
            rows = slice(start, start + len(part))
            scores = self._scores(part, beams.running[rows, :, :length])
            found.append(self._candidates(scores, beams.running_scores[rows]))
            start = rows.stop
        scores, tokens, parents = (torch.cat(parts) for parts in zip(*found, strict=True))
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

    def _scores(self, logits: Tensor, prefixes: Tensor) -> Tensor:
        """Log-probabilities as the logits processors leave them, of shape `(sources, beams, vocabulary)`."""
        scores = logits.float()
        # As large as all else, so not made a second time.
        scores = torch.log_softmax(scores, -1, out=scores).expand(-1, self._beams, -1)
        if self._processors:
            scores = self._processors(prefixes.flatten(0, 1), scores.flatten(0, 1)).view_as(scores)
        return scores

    def _candidates(self, scores: Tensor, running: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best continuations, one more than are kept: sums, tokens and the beams that they continue."""
        vocabulary = scores.shape[-1]
        count = min(self._kept + 1, scores[0].numel())
        whole = vocabulary // _BLOCK
        if scores.shape[1] * whole < 4 * count:  # hardly more blocks than are looked into
            best, at = (scores + running[:, :, None]).flatten(1).topk(count)
            return best, at % vocabulary, at // vocabulary
        # The best are in the blocks with the largest maxima, or among the tokens after the last whole block.
        blocks = scores[:, :, : whole * _BLOCK].unflatten(-1, (whole, _BLOCK)).amax(-1) + running[:, :, None]
        chosen = blocks.flatten(1).topk(count).indices
        starts = chosen // whole * vocabulary + chosen % whole * _BLOCK
        every = torch.arange(scores[0].numel(), device=scores.device)
        after = every.view(-1, vocabulary)[:, whole * _BLOCK :].flatten()
        places = torch.cat([(starts[:, :, None] + every[:_BLOCK]).flatten(1), after.expand(len(scores), -1)], dim=1)
        sums = scores.flatten(1).gather(1, places) + running.gather(1, places // vocabulary)
        best, at = sums.topk(count)
        places = places.gather(1, at)
        return best, places % vocabulary, places // vocabulary

    def _finish(
        self, beams: Beams, kept: Tensor, sequences: Tensor, own: Tensor, ended: Tensor, length: int
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
        # At the limit on the length all end, so none goes on.
        goes_on = (last - rival < NARROW) & (rival > _IMPOSSIBLE) & (last > _IMPOSSIBLE)
        boundary = kept[:, beams - 1] - kept[:, beams] < NARROW
        return goes_on | (boundary & ended[:, beams - 1 : beams + 1].any(1) & (kept[:, beams] > _IMPOSSIBLE))
