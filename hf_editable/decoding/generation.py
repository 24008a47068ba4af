"""Decoding with the model's own `generate`: to an expected length first, noting the prefixes in the beam, frozen."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from ..checks import check_count
from ..models.families import max_positions
from .encoded_sources import EncodedSources


# Where neither the caller nor the model says how long a translation may get. generate's own default is 20 tokens.
DEFAULT_MAX_NEW_TOKENS = 256


class _CountedSteps(StoppingCriteria):
    """Stops nothing; knows how long the search went on."""

    length = 0

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        self.length = input_ids.shape[1]
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class LivePrefixes(LogitsProcessor):
    """
    Changes nothing; keeps the prefixes that are in the beam before each token.

    Attributes:
        steps (`list[torch.LongTensor]` of shape `(batch · beams, length)`): the prefixes without the start token, of
            each source in turn, the best first.
    """

    def __init__(self):
        self.steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.steps.append(input_ids[:, 1:].cpu())
        return scores


def beam_search(
    model: PreTrainedModel,
    batches: Sequence[EncodedSources],
    expected: Sequence[int],
    num_beams: int,
    max_new_tokens: int,
) -> dict[int, list[int]]:
    """
    What `generate` finds by beam search, without letting a few endless translations hold up all others.

    A search that ends before its limit on the length is the same under any higher limit. So each batch is searched to
    its expected length first; the rows of all batches that reach it are searched together with `max_new_tokens`, and
    the others of their batches again without them.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model.
        batches (`list[EncodedSources]`): the sources.
        expected (`list[int]`): for each batch, a number of tokens that its translations hardly ever have.
        num_beams (`int`): beam size.
        max_new_tokens (`int`): the most tokens of a translation.

    Returns:
        `dict[int, list[int]]`: token ids by the sources' indices.
    """
    settings, bounded = model.generation_config, can_be_bounded(model)
    found: dict[int, list[int]] = {}
    endless: list[EncodedSources] = []
    for sources, length in zip(batches, expected, strict=True):
        limit = min(length, max_new_tokens) if bounded else max_new_tokens
        while sources.indices:
            output, reached = _search(model, sources, num_beams, limit)
            if not reached or limit == max_new_tokens:
                found.update(zip(sources.indices, output.tolist(), strict=True))
                break
            ends = torch.as_tensor(settings.eos_token_id, device=output.device)
            ended = torch.isin(output[:, 1:], ends).any(1)
            if bool(ended.all()):
                limit = max_new_tokens
            else:
                endless.append(sources.select((~ended).nonzero().flatten().tolist()))
                sources = sources.select(ended.nonzero().flatten().tolist())
    most = max((len(sources.indices) for sources in batches), default=1)
    rows = [part.select([row]) for part in endless for row in range(len(part.indices))]
    rows.sort(key=lambda row: int(row.attention_mask.sum()))
    for sources in EncodedSources.join(rows).split(most) if rows else ():
        output, _ = _search(model, sources, num_beams, max_new_tokens)
        found.update(zip(sources.indices, output.tolist(), strict=True))
    return found


def can_be_bounded(model: PreTrainedModel) -> bool:
    """Whether a search that ends before its limit on the length is the same under any higher limit."""
    settings = model.generation_config
    # Some settings look at the limit before it is reached; and without an end token, all translations reach it.
    looks_ahead = settings.early_stopping == "never" or settings.forced_eos_token_id is not None
    return settings.eos_token_id is not None and not looks_ahead


def _search(model: PreTrainedModel, sources: EncodedSources, num_beams: int, limit: int) -> tuple[Tensor, bool]:
    """The translations of a batch, and whether the search was ended by its limit."""
    counted = _CountedSteps()
    criteria = StoppingCriteriaList([counted])
    output = sources.generate(model, limit, num_beams=num_beams, do_sample=False, stopping_criteria=criteria)
    return output, counted.length > limit


def resolve_max_new_tokens(model: PreTrainedModel, max_new_tokens: int | None = None) -> int:
    """
    The most tokens that a translation may have: the caller's number, else the model's own generation setting, else
    256, or what the model has positions for if that is less.

    Raises:
        EditableValueError: if the number is below 1.
    """
    if max_new_tokens is not None:
        return check_count("max_new_tokens", max_new_tokens)
    settings = model.generation_config
    if settings is not None and settings.max_new_tokens is not None:
        return settings.max_new_tokens
    if settings is not None and settings.max_length is not None:
        return settings.max_length - 1  # the start token counts in max_length
    positions = max_positions(model.config, "decoder")
    return DEFAULT_MAX_NEW_TOKENS if positions is None else min(DEFAULT_MAX_NEW_TOKENS, positions - 1)


def until_end(model: PreTrainedModel, ids: list[int]) -> list[int]:
    """A target's tokens up to its end token, as generation has them."""
    ends = model.generation_config.eos_token_id
    places = [place for place, token in enumerate(ids) if token in (ends if isinstance(ends, list) else [ends])]
    return ids[: places[-1] + 1] if places else ids


@contextmanager
def frozen(model: PreTrainedModel) -> Iterator[None]:
    """Dropout off and no gradients inside the block; afterwards each module has its own training mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training
