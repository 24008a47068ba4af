"""What a model's generation settings forbid it to say, and how they change the scores that beam search ranks by."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    EncoderRepetitionPenaltyLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
)

from ..errors import EditableValueError
from ..numerics.scoring import PADDING, full_precision
from .encoded_sources import EncodedSources, looks_at_sources
from .generation import resolve_max_new_tokens, until_end


# Settings that move the scores of what may be said, with the values at which they do not. All others only forbid or
# force tokens, and leave the scores of the rest as they are.
_MOVING: dict[str, tuple[Any, ...]] = {
    "renormalize_logits": (None, False),
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "sequence_bias": (None,),
    "exponential_decay_length_penalty": (None,),
    "watermarking_config": (None,),
    "guidance_scale": (None, 1),
}
# Settings that forbid tokens at some places only, and those that do anywhere.
_FORBIDDING: dict[str, tuple[Any, ...]] = {
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "begin_suppress_tokens": (None,),
}
_ANYWHERE = dict.fromkeys(("bad_words_ids", "suppress_tokens", "forced_bos_token_id", "sequence_bias"), (None,))
# The settings that each class is made for, for messages.
_SETTINGS = {
    "NoBadWordsLogitsProcessor": ("bad_words_ids",),
    "NoRepeatNGramLogitsProcessor": ("no_repeat_ngram_size",),
    "EncoderNoRepeatNGramLogitsProcessor": ("encoder_no_repeat_ngram_size",),
    "MinLengthLogitsProcessor": ("min_new_tokens", "min_length"),
    "MinNewTokensLengthLogitsProcessor": ("min_new_tokens",),
    "ForcedBOSTokenLogitsProcessor": ("forced_bos_token_id",),
    "SuppressTokensLogitsProcessor": ("suppress_tokens",),
    "SuppressTokensAtBeginLogitsProcessor": ("begin_suppress_tokens",),
}


def processors_of(model: PreTrainedModel, source: Sequence[int] = (0,)) -> tuple[LogitsProcessorList, int]:
    """
    The logits processors by which `generate` translates, as it makes them itself, and the decoder's start token.

    Args:
        model ([`~transformers.PreTrainedModel`]): has the generation settings.
        source (`Sequence[int]`, *optional*): token ids of the source, which some settings look at.
    """
    found: list[Any] = []

    def caught(model: PreTrainedModel, input_ids: Tensor, logits_processor: LogitsProcessorList, **_: Any) -> Tensor:
        found.extend((logits_processor, int(input_ids[0, 0])))
        return input_ids

    states = torch.zeros(1, len(source), 1, device=model.device)
    one = EncodedSources([0], states, torch.ones_like(states[..., 0], dtype=torch.long), [list(source)])
    one.generate(model, resolve_max_new_tokens(model), num_beams=1, do_sample=False, custom_generate=caught)
    return found[0], found[1]


class SayableTargets:
    """
    Which targets a model's generation settings let it say.

    Args:
        model ([`~transformers.PreTrainedModel`]): has the settings.
    """

    def __init__(self, model: PreTrainedModel):
        self._model = model
        self._all_allowed = not _in_use(model.generation_config, {**_FORBIDDING, **_ANYWHERE})
        self._shared = None if self._all_allowed or looks_at_sources(model) else processors_of(model)
        config = model.config.get_text_config(decoder=True)
        self._size = max(config.vocab_size, getattr(config, "decoder_vocab_size", None) or 0)  # Marian's may differ

    def why_not(self, ids: Sequence[int], source: Sequence[int]) -> str | None:
        """
        Which setting forbids a token of a target; `None` if none does.

        Args:
            ids (`Sequence[int]`): its token ids.
            source (`Sequence[int]`): those of its source.
        """
        if self._all_allowed:
            return None
        ids = until_end(self._model, list(ids))
        processors, start = self._shared or processors_of(self._model, source)
        prefixes = torch.tensor([[start, *ids]], device=self._model.device)
        level = torch.zeros(1, self._size, device=self._model.device)
        for place, token in enumerate(ids):
            for processor in processors:
                if isinstance(processor, ForcedEOSTokenLogitsProcessor):
                    continue  # at the limit on the length
                if processor(prefixes[:, : place + 1], level)[0, token] == -torch.inf:
                    return f"{self._named(processor)} forbids its token {place + 1} ({token})"
        return None

    def _named(self, processor: LogitsProcessor) -> str:
        """The setting that a processor was made for, with its value."""
        settings, name = self._model.generation_config, type(processor).__name__
        given = [each for each in _SETTINGS.get(name, ()) if getattr(settings, each, None) is not None]
        value = f"{given[0]}={getattr(settings, given[0])!r}" if given else name
        return f"{value[:80]} in its generation settings"

    def check(self, ids: Sequence[int], text: str, source: Sequence[int]) -> None:
        """
        Refuse a target, given with its text, that the settings keep the model from ever saying.

        Raises:
            EditableValueError: if one forbids a token of it, or it is longer than they allow.
        """
        length, most = len(until_end(self._model, list(ids))), resolve_max_new_tokens(self._model)
        reason = self.why_not(ids, source)
        if length > most:
            reason = f"it has {length} tokens, and the model's generation settings allow {most}"
        if reason is not None:
            raise EditableValueError(
                f"The model can never say the target {text[:60]!r}: {reason}. Choose other words, or change that in "
                "model.generation_config (generation_config.json of the checkpoint)."
            )


class ScoreRules:
    """
    Log-probabilities of translations as beam search sums them up.

    Settings that only forbid or force tokens leave those of all others as they are. `renormalize_logits` shares the
    probability of tokens that are never allowed (OPUS-MT forbids `<pad>`) out among the others: these are left out of
    the softmax. Where settings move scores in another way, `generate`'s own logits processors are run on them.

    Args:
        model ([`~transformers.PreTrainedModel`]): has the settings.
        source (`torch.LongTensor` of shape `(1, source_length)`): token ids, for settings that look at them.

    Attributes:
        left_out (`torch.LongTensor`, *optional*): tokens without probability.
        is_plain (`bool`): whether no logits processors are needed.
    """

    def __init__(self, model: PreTrainedModel, source: Tensor):
        settings = model.generation_config or GenerationConfig()
        moving = _in_use(settings, _MOVING)
        forbidding = _in_use(settings, _FORBIDDING) or any(len(word) > 1 for word in settings.bad_words_ids or ())
        only_left_out = moving == ["renormalize_logits"] and not forbidding
        self.left_out = _never_allowed(settings, model.device) if only_left_out else None
        self.is_plain = not moving or only_left_out
        self._model = model
        self._processors, self._start = (None, 0) if self.is_plain else processors_of(model, source[0].tolist())

    def check(self, labels: Tensor, source: Tensor) -> None:
        """Refuse a target, of shape `(length,)`, that has no score. See [`SayableTargets`]."""
        if not self.is_plain or (self.left_out is not None and bool(torch.isin(labels, self.left_out).any())):
            ids = labels[labels != PADDING].tolist()
            SayableTargets(self._model).check(ids, f"with the tokens {ids}", source[0].tolist())

    def projection(self, projection: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of an output projection by which what is left out has no probability."""
        if self.left_out is None:
            return projection
        weight, bias = projection
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        return weight, bias.index_fill(0, self.left_out, -1e9)  # finite, as it is multiplied by probabilities of 0

    def logits(self, logits: Tensor) -> Tensor:
        """Logits by which what is left out has no probability."""
        return logits if self.left_out is None else logits.index_fill(-1, self.left_out, -torch.inf)

    def token_log_probs(self, logits: Tensor, labels: Tensor, scored: Tensor) -> Tensor:
        """
        Log-probability of each token, as the logits processors leave it, 0 on what is not scored.

        Args:
            logits (`torch.Tensor` of shape `(batch, length, vocabulary)`): the model's.
            labels (`torch.LongTensor` of shape `(batch, length)`): translations, −100 on padding.
            scored (`torch.LongTensor` of shape `(batch, length)`): the same, −100 also on what is not scored.
        """
        log_probs = full_precision(logits).log_softmax(-1)
        start = labels.new_full((len(labels), 1), self._start)
        prefixes = torch.cat([start, labels.where(labels != PADDING, self._start)], dim=1)
        tokens, parts = scored.where(scored != PADDING, 0), []
        for place in range(labels.shape[1]):
            scores = log_probs[:, place]
            for processor in self._processors:
                scores = _processed(processor, prefixes[:, : place + 1], scores)
            parts.append(scores.gather(-1, tokens[:, place, None]))
        return torch.cat(parts, dim=1).masked_fill(scored == PADDING, 0.0)


def _processed(processor: LogitsProcessor, prefixes: Tensor, scores: Tensor) -> Tensor:
    if not isinstance(processor, RepetitionPenaltyLogitsProcessor | EncoderRepetitionPenaltyLogitsProcessor):
        return processor(prefixes, scores)
    # Their own gradient counts a token as often as it stands in the prefix. They multiply scores.
    fixed = scores.detach()
    return scores * torch.nan_to_num(processor(prefixes, fixed) / fixed, nan=1.0)


def _in_use(settings: GenerationConfig, names: dict[str, tuple[Any, ...]]) -> list[str]:
    return [name for name, neutral in names.items() if getattr(settings, name, None) not in neutral]


def _never_allowed(settings: GenerationConfig, device: torch.device) -> Tensor | None:
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    # generate does not take an end token for a bad word.
    words = [word[0] for word in settings.bad_words_ids or () if len(word) == 1 and word[0] not in ends]
    tokens = sorted({*words, *(settings.suppress_tokens or ())})
    return torch.tensor(tokens, device=device) if tokens else None
