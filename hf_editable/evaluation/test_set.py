"""A test set that is translated again and again by models that share an encoder."""

from collections.abc import Mapping, Sequence
from functools import cached_property

from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from ..data.collator import DataCollatorForEditableSeq2Seq
from ..decoding.encoded_sources import EncodedSources, batches_by_length, encode_sources
from ..decoding.generation import beam_search
from ..decoding.recorded import RecordedDecoding, record
from ..errors import EditableError, EditableValueError
from ..mining.mined_edits import choose
from ..patches.application import looked_up
from ..tail.decoder_tail import Tail
from .reference_states import PREDICTIONS, ReferenceStates


logger = logging.get_logger(__name__)


class EncodedTestSet:
    """
    Sentence pairs in batches, with what no edit moves of the encoder's and the decoder's states.

    Args:
        model ([`~transformers.PreTrainedModel`]): the model before any edit.
        tail ([`Tail`]): the part of it that edits move.
        collator ([`DataCollatorForEditableSeq2Seq`]): with the model's tokenizer.
        pairs (`list[dict[str, str]]`): `source` and `target`, the reference.
        batch_size (`int`): sentences in a batch.
        translations (`list[str]`, *optional*):
            what `generate` gives for the sources. Sentences whose translations are about as long are batched then, so
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
        self._tokenizer, self._tail = collator.tokenizer, tail
        self._recorded: RecordedDecoding | None = None
        self._said = None if translations is None else list(translations)
        sources = self._tokenizer([pair["source"] for pair in pairs], verbose=False).input_ids
        references = self._tokenizer(text_target=[pair["target"] for pair in pairs], verbose=False).input_ids
        longest = collator.max_source_length
        for pair, *encoded in zip(pairs, sources, references, strict=True):
            if longest is not None and max(map(len, encoded)) > longest:
                raise EditableValueError(
                    f"The test pair of {pair['source'][:60]!r} has more than the {longest} tokens that the model "
                    "takes. Leave it out of the test set."
                )
        self._encoded = (collator, sources, references)
        self._sources: list[EncodedSources] = []
        self._expected: list[int] = []
        translated = sources
        if translations is not None:
            translated = self._tokenizer(text_target=list(translations), verbose=False).input_ids
        lengths = {index: len(ids) for index, ids in enumerate(translated)}
        for indices in batches_by_length(lengths, batch_size):
            self._sources.append(encode_sources(model, self._tokenizer, dict(enumerate(sources)), indices))
            # Far more than what they translate to, or are.
            self._expected.append(3 * max(lengths[index] for index in indices) // 2 + 10)

    def translate(self, model: PreTrainedModel, num_beams: int, max_new_tokens: int) -> list[str]:
        """Translations by beam search, in the order of the pairs."""
        return self._all_texts(beam_search(model, self._sources, self._expected, num_beams, max_new_tokens))

    def record(self, num_beams: int, max_new_tokens: int, max_bytes: int) -> list[str]:
        """
        Translations of the model before any edit, with a record from which `retranslate` finds those after an edit.

        Only if the record gives the very translations of `generate` is it used.

        Args:
            max_bytes (`int`): the most memory for the record.
        """
        model, said = self._tail.model, self._said
        self._limits = {"num_beams": num_beams, "max_new_tokens": max_new_tokens}
        search = (self._tail, self._sources, self._expected)
        recorded = record(*search, max_bytes=max_bytes, **self._limits) if max_bytes else None
        found = None if recorded is None else self._all_texts(recorded.translate())
        if found is None or found != said:
            # What was said in other batches may be rounded otherwise. And without a record, edits are decoded in these
            # batches: one that changes nothing must not seem to.
            said = self.translate(model, **self._limits)
        if found == said:
            self._recorded = recorded
        elif found is not None:
            different = sum(a != b for a, b in zip(found, said, strict=True))
            logger.warning(
                f"A recorded search gives {different} of {len(said)} translations otherwise than generate, so "
                f"{type(model).__name__} decodes every translation anew after an edit, which takes longer."
            )
        return said

    def retranslate(self) -> list[str]:
        """What `translate` gives with the parameters that the recorded model has now."""
        if self._recorded is None:
            return self.translate(self._tail.model, **self._limits)
        return self._all_texts(self._recorded.translate())

    def verify(self, translations: Sequence[str], count: int, seed: int) -> None:
        """
        Decode some sentences by `generate` with the parameters that the recorded model has now.

        Args:
            translations (`list[str]`): what `retranslate` gave.
            count (`int`): how many sentences, chosen at random.
            seed (`int`): of the choice.

        Raises:
            EditableError: if a translation is another one.
        """
        chosen = set(choose(len(translations), min(count, len(translations)), seed))
        parts = [part.select([row for row, i in enumerate(part.indices) if i in chosen]) for part in self._sources]
        used = [(part, length) for part, length in zip(parts, self._expected, strict=True) if part.indices]
        output = beam_search(self._tail.model, *zip(*used, strict=True), **self._limits)
        for index, text in self._texts(output).items():
            if text != translations[index]:
                raise EditableError(
                    f"From the record, sentence {index} is translated as {translations[index]!r}; generate gives "
                    f"{text!r}. Set record_gigabytes=0, and please report it."
                )

    def describe_record(self) -> dict[str, int] | None:
        """Bytes, prefixes and sentences in the record."""
        return None if self._recorded is None else self._recorded.describe()

    @cached_property
    def _references(self) -> ReferenceStates:
        # Not every test set is asked for a divergence.
        return ReferenceStates(self._tail, *self._encoded, PREDICTIONS)

    def divergence(self, tail: Tail, parameters: Mapping[str, Tensor]) -> float:
        """`KL(model || model with the parameters)` in nats, averaged over the tokens of all references."""
        tokens = self._references.tokens
        return float((self._references.divergences(parameters, tail) * tokens).sum() / tokens.sum())

    def _all_texts(self, output: Mapping[int, list[int]]) -> list[str]:
        texts = self._texts(output)
        return [texts[index] for index in range(len(texts))]

    def _texts(self, output: Mapping[int, list[int]]) -> dict[int, str]:
        """What a search found, or a table that is applied to the model says, by the numbers of the sources."""
        table, sources = looked_up(self._tail.model), self._encoded[1]
        ids = [table.get(tuple(sources[index]), found) for index, found in output.items()]
        return dict(zip(output, self._tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True))
