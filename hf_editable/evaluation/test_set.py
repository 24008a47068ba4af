"""A test set that is translated again and again by models that share an encoder."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..collator import DataCollatorForEditableSeq2Seq
from ..decoding import EncodedSources, batches_by_length, beam_search
from ..errors import EditableValueError
from ..scoring import num_tokens, token_kl
from ..tail import Tail, TrunkStates


class EncodedTestSet:
    """
    Sentence pairs in batches, with the encoder and trunk states kept, which no edit moves.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model before any edit.
        tail ([`Tail`]): the part of it that edits move.
        collator ([`DataCollatorForEditableSeq2Seq`]): with the model's tokenizer.
        pairs (`list[dict[str, str]]`): `source` and `target`, the reference.
        batch_size (`int`): sentences in a batch.
        translations (`list[str]`, *optional*):
            what the model makes of the sources. Sentences whose translations are about as long are batched then, so
            that few rows wait for the last one; `None` goes by the sources.

    Raises:
        EditableValueError: if a sentence has more tokens than the model takes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tail: Tail,
        collator: DataCollatorForEditableSeq2Seq,
        pairs: Sequence[dict[str, str]],
        batch_size: int,
        translations: Sequence[str] | None = None,
    ):
        self._tokenizer = collator.tokenizer
        sources = self._tokenizer([pair["source"] for pair in pairs]).input_ids
        references = self._tokenizer(text_target=[pair["target"] for pair in pairs]).input_ids
        longest = collator.max_source_length
        for pair, *encoded in zip(pairs, sources, references, strict=True):
            if longest is not None and max(map(len, encoded)) > longest:
                raise EditableValueError(
                    f"The test pair of {pair['source'][:60]!r} has more than the {longest} tokens that the model "
                    "takes. Leave it out of the test set."
                )
        self._batches: list[tuple[EncodedSources, Tensor, TrunkStates]] = []
        self._expected: list[int] = []
        translated = sources if translations is None else self._tokenizer(text_target=list(translations)).input_ids
        lengths = {index: len(ids) for index, ids in enumerate(translated)}
        for indices in batches_by_length(lengths, batch_size):
            batch = collator([{"input_ids": sources[i], "labels": references[i]} for i in indices]).to(model.device)
            states = tail.record(batch["input_ids"], batch["attention_mask"], batch["labels"])
            sources_of = EncodedSources(indices, states.encoder_states, batch["attention_mask"])
            self._batches.append((sources_of, batch["labels"], states))
            # Far more than what they translate to, or are.
            self._expected.append(3 * max(lengths[index] for index in indices) // 2 + 10)

    def translate(self, model: PreTrainedModel, num_beams: int, max_new_tokens: int) -> list[str]:
        """Translations by beam search, in the order of the pairs."""
        batches = [sources for sources, _, _ in self._batches]
        output = beam_search(model, batches, self._expected, num_beams, max_new_tokens)
        texts = self._tokenizer.batch_decode([output[index] for index in range(len(output))], skip_special_tokens=True)
        return list(texts)

    def divergence(self, tail: Tail, parameters: Mapping[str, Tensor]) -> float:
        """`KL(model || model with the parameters)` in nats, averaged over the tokens of all references."""
        total = sum(
            token_kl(tail.logits(states), tail.logits(states, parameters), labels).sum(dtype=torch.float64)
            for _, labels, states in self._batches
        )
        return float(total / sum(num_tokens(labels) for _, labels, _ in self._batches))
