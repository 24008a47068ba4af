"""Texts to texts, by beam search."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.collator import DataCollatorForEditableSeq2Seq
from ..patches.application import lock, looked_up
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
    Translations by beam search, or from a table that is applied to the model, in the order of the sources.

    Raises:
        EditableValueError: if a source is empty, or has more tokens than the model takes.
    """
    found = best_translations(model, tokenizer, sources, num_beams, 1, batch_size, max_new_tokens)
    return [texts[0] for texts in found]


def best_translations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    num_beams: int,
    count: int,
    batch_size: int,
    max_new_tokens: int,
) -> list[list[str]]:
    """The `count` best translations of each source; see `translate_texts`."""
    encoded = DataCollatorForEditableSeq2Seq(tokenizer, model).encode("source", sources)
    found: dict[int, list[str]] = {}
    with lock(model), frozen(model):
        table = looked_up(model)
        for batch in batches_by_length(dict(enumerate(map(len, encoded))), batch_size):
            output = encode_sources(model, tokenizer, dict(enumerate(encoded)), batch).generate(
                model, max_new_tokens, num_beams=num_beams, num_return_sequences=count, do_sample=False
            )
            texts = tokenizer.batch_decode(output, skip_special_tokens=True)
            for place, index in enumerate(batch):
                found[index] = texts[place * count : (place + 1) * count]
    for index, ids in enumerate(encoded):
        if (said := table.get(tuple(ids))) is not None:
            found[index] = [tokenizer.decode(said, skip_special_tokens=True)] * count
    return [found[index] for index in range(len(sources))]
