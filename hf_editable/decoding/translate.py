"""Texts to texts, by beam search."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.collator import DataCollatorForEditableSeq2Seq
from .encoded_sources import batches_by_length, encode_sources
from .generation import frozen


def translate_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    num_beams: int,
    batch_size: int,
    max_new_tokens: int,
) -> list[str]:
    """
    Translations by beam search, in the order of the sources.

    Raises:
        EditableValueError: if a source is empty, or has more tokens than the model takes.
    """
    encoded = DataCollatorForEditableSeq2Seq(tokenizer, model).encode("source", sources)
    found: dict[int, str] = {}
    with frozen(model):
        for batch in batches_by_length(dict(enumerate(map(len, encoded))), batch_size):
            sources_of = encode_sources(model, tokenizer, dict(enumerate(encoded)), batch)
            output = sources_of.generate(model, max_new_tokens, num_beams=num_beams, do_sample=False)
            found.update(zip(batch, tokenizer.batch_decode(output, skip_special_tokens=True), strict=True))
    return [found[index] for index in range(len(sources))]
