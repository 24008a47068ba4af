"""Decoding that edits are mined by: a model's most likely translations of sources, and sampled ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from ..decoding.beam_search import BeamSearch, Embeddings, whole_decoder
from ..decoding.encoded_sources import EncodedSources, encode_sources
from ..decoding.generation import frozen
from ..numerics.scoring import MOST_LOGITS


class SeededSampling(LogitsProcessor):
    """
    Samples each row's next token from `softmax(logits / temperature)` over the whole vocabulary.

    Adds Gumbel noise to `logits / temperature` and leaves only the greatest: exact sampling (the Gumbel-max trick)
    with greedy decoding, from the row's own stream of noise. So neither batching nor an interrupted run changes what
    a source is given, where `generate(do_sample=True)` draws all rows from one stream; rounding that differs between
    batches hardly ever matters, where it would often move the sums of many small probabilities. The warpers of the
    model's generation settings (top-k, top-p, …) are not in use then; tokens that the settings force or forbid stay
    so.

    Args:
        temperature (`float`): above 1 is flatter than the model's own distribution.
        streams (`list[numpy.random.Generator]`): one of each row.
    """

    def __init__(self, temperature: float, streams: list[np.random.Generator]):
        self.temperature = temperature
        self.streams = streams

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores with all but the sampled token of each row at −∞."""
        # −log of an exponential variable is a Gumbel one. In float32 it would come out infinite now and then.
        noise = np.stack([-np.log(stream.standard_exponential(scores.shape[-1])) for stream in self.streams])
        noisy = scores / self.temperature + torch.from_numpy(noise).to(scores.device, scores.dtype)
        return torch.full_like(scores, -torch.inf).scatter(-1, noisy.argmax(-1, keepdim=True), 0.0)


class Miner:
    """
    Decodes batches of sources, where beams can share what they have in common by [`BeamSearch`], else by `generate`.

    Args:
        model ([`~transformers.PreTrainedModel`]), tokenizer ([`~transformers.PreTrainedTokenizerBase`]): the model.
        encoded (`dict[int, list[int]]`): token ids of the sources, by their indices.
        references (`dict[int, str]`, *optional*): the targets; `None` samples them.
        arguments (`dict`): `num_alternatives`, `max_new_tokens`, and of samples `temperature` and `seed`.
        few (`list[int]`): indices of sources to try the search with.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        encoded: Mapping[int, list[int]],
        references: Mapping[int, str] | None,
        arguments: Mapping[str, Any],
        few: list[int],
    ):
        self.model, self.tokenizer, self.encoded = model, tokenizer, encoded
        self.references, self.arguments = references, arguments
        with frozen(model):
            sources = encode_sources(model, tokenizer, encoded, few)
            self._tail = whole_decoder(model, sources, arguments["num_alternatives"])

    def rows(self, batch: list[int]) -> list[dict[str, Any]]:
        """Raw rows of a batch: the target and the most likely translations of each source."""
        with frozen(self.model):
            sources = encode_sources(self.model, self.tokenizer, self.encoded, batch)
            targets = self._sampled(sources) if self.references is None else [self.references[i] for i in batch]
            alternatives = self._alternatives(sources)
        return [
            {"index": index, "target": target, "alternatives": texts}
            for index, target, texts in zip(batch, targets, alternatives, strict=True)
        ]

    def _sampled(self, sources: EncodedSources) -> list[str]:
        streams = [np.random.default_rng((self.arguments["seed"], index)) for index in sources.indices]
        sampling = LogitsProcessorList([SeededSampling(self.arguments["temperature"], streams)])
        options = {"num_beams": 1, "do_sample": False, "logits_processor": sampling}
        output = sources.generate(self.model, self.arguments["max_new_tokens"], **options)
        return self.tokenizer.batch_decode(output, skip_special_tokens=True)

    def _alternatives(self, sources: EncodedSources) -> list[list[str]]:
        """The translations in the beam, the most likely first, of as many sources at once as pay."""
        count, limit = self.arguments["num_alternatives"], self.arguments["max_new_tokens"]
        options = {"num_beams": count, "num_return_sequences": count}
        vocabulary = self.model.config.get_text_config(decoder=True).vocab_size
        parts = -(-len(sources.indices) * count * vocabulary // MOST_LOGITS)
        texts = []
        for rows in np.array_split(np.arange(len(sources.indices)), min(parts, len(sources.indices))):
            part = sources.select(rows.tolist())
            if self._tail is None:
                output = part.generate(self.model, limit, do_sample=False, **options)
            else:
                output = BeamSearch(self._tail, part, Embeddings(self._tail, part)).translate(
                    max_new_tokens=limit, **options
                )
            texts += self.tokenizer.batch_decode(output, skip_special_tokens=True)
        return [texts[start : start + count] for start in range(0, len(texts), count)]
