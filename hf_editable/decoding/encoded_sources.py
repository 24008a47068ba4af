"""Sources encoded once, sorted by length, and decoded as often as needed with the model's own `generate`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..errors import EditableValueError
from ..models.families import cache_argument, encoder_output
from ..models.private_names import check_private_names


_ALL_NAMES_ARE_THERE = not check_private_names(__name__)


@dataclass
class EncodedSources:
    """
    The encoder's output for a batch of sources.

    Args:
        indices (`list[int]`): which sources these are.
        states (`torch.Tensor` of shape `(batch, source_length, hidden)`): the encoder's output.
        attention_mask (`torch.LongTensor` of shape `(batch, source_length)`): 0 on padding.
        input_ids (`list[list[int]]`, *optional*): their tokens, which some settings of `generate` look at.
    """

    indices: list[int]
    states: Tensor
    attention_mask: Tensor
    input_ids: list[list[int]] | None = None

    def generate(self, model: PreTrainedModel, max_new_tokens: int, **options: Any) -> Tensor:
        """
        `model.generate(**options)` from these states: the encoder is not run again.

        Args:
            max_new_tokens (`int`): the most tokens of a translation.
            options (*optional*): further arguments of [`~transformers.GenerationMixin.generate`].

        Returns:
            `torch.LongTensor` of shape `(batch · num_return_sequences, length)`: token ids.

        Raises:
            EditableValueError: if the model's generation settings ask for what `generate` cannot do.
        """
        if (scale := model.generation_config.guidance_scale) not in (None, 1):
            raise EditableValueError(
                f"guidance_scale={scale} in the model's generation settings: generate has no guidance for "
                "encoder-decoder models. Set model.generation_config.guidance_scale to None."
            )
        # generate expands the encoder output it is given in place, so it gets one of its own; and it warns of a
        # max_length in the model's settings beside max_new_tokens, unless that is taken away.
        encoded = encoder_output(self.states)
        limits = {"max_new_tokens": max_new_tokens, "max_length": None}
        if "custom_generate" not in options and options.get("num_beams") != 1 and _takes_beam_cache(model):
            config = model.config.get_text_config(decoder=True)
            cache = _BeamCache(DynamicCache(config=config), DynamicCache(config=config))
            options[cache_argument(type(model))] = cache
        if looks_at_sources(model) and self.input_ids is not None:
            width, pad = self.states.shape[1], model.config.get_text_config(decoder=True).pad_token_id or 0
            rows = [ids + [pad] * (width - len(ids)) for ids in self.input_ids]
            options["input_ids"] = torch.tensor(rows, device=self.states.device)
        return model.generate(encoder_outputs=encoded, attention_mask=self.attention_mask, **limits, **options)

    def select(self, rows: list[int]) -> "EncodedSources":
        """Some of the sources, by their positions in the batch, padded to the longest of them."""
        mask = self.attention_mask[rows]
        needed = mask.any(0)
        ids = None if self.input_ids is None else [self.input_ids[row] for row in rows]
        indices = [self.indices[row] for row in rows]
        return EncodedSources(indices, self.states[rows][:, needed], mask[:, needed], ids)

    def split(self, size: int) -> list["EncodedSources"]:
        """The sources in turn, in batches of `size` at most."""
        rows = list(range(len(self.indices)))
        return [self.select(rows[start : start + size]) for start in range(0, len(rows), size)]

    @classmethod
    def join(cls, parts: Sequence["EncodedSources"]) -> "EncodedSources":
        """Several batches as one."""
        # Whichever side a row is padded on, its mask goes with it.
        states, masks = (
            pad_sequence([row for part in parts for row in getattr(part, name)], batch_first=True)
            for name in ("states", "attention_mask")
        )
        ids = None if parts[0].input_ids is None else [row for part in parts for row in part.input_ids]
        return cls([index for part in parts for index in part.indices], states, masks, ids)


class _BeamCache(EncoderDecoderCache):
    """
    The cache that generate would make. What it holds of a source is the same for all beams, so it need not follow
    them, as generate has it do, which would move more than all the rest.
    """

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.self_attention_cache.reorder_cache(beam_idx)


def looks_at_sources(model: PreTrainedModel) -> bool:
    """Whether `generate` looks at the tokens of sources, to forbid or to favour them in translations."""
    settings = model.generation_config
    return bool(settings.encoder_no_repeat_ngram_size) or settings.encoder_repetition_penalty not in (None, 1.0)


def _takes_beam_cache(model: PreTrainedModel) -> bool:
    """Whether generate would make a cache of this kind."""
    settings = model.generation_config
    usual = _ALL_NAMES_ARE_THERE and settings.cache_implementation is None and settings.use_cache is not False
    return usual and model._supports_default_dynamic_cache() and not hasattr(model, "_reorder_cache")


def encode_sources(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, input_ids: Mapping[int, list[int]], indices: list[int]
) -> EncodedSources:
    """Run the encoder on the sources `input_ids[i]` of `indices`, padded to the longest of them."""
    batch = tokenizer.pad({"input_ids": [input_ids[i] for i in indices]}, return_tensors="pt").to(model.device)
    encoded = model.get_encoder()(input_ids=batch.input_ids, attention_mask=batch.attention_mask, return_dict=True)
    ids = [list(input_ids[i]) for i in indices]
    return EncodedSources(indices, encoded.last_hidden_state, batch.attention_mask, ids)


def batches_by_length(lengths: dict[int, int], batch_size: int) -> list[list[int]]:
    """
    Indices in batches of similar lengths, the longest first, so that too large a batch fails at once.

    Args:
        lengths (`dict[int, int]`): length of each source, in tokens, by its index.
        batch_size (`int`): sources in a batch.
    """
    order = sorted(lengths, key=lambda index: (-lengths[index], index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
