"""Prefixes that push the targets of edits out of the beam, to train and to edit against."""

from typing import Any

from datasets import Dataset, Features, Sequence, Value
from transformers import LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..checks import BEAMS, check_count, checked
from ..data.collator import DataCollatorForEditableSeq2Seq
from ..decoding.encoded_sources import batches_by_length, encode_sources
from ..decoding.generation import LivePrefixes, can_be_bounded, frozen, resolve_max_new_tokens, until_end
from ..errors import EditableValueError


COLUMN = "prefixes"


@checked
def mine_prefixes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: Dataset,
    *,
    num_beams: int = 5,
    batch_size: int = 64,
    max_new_tokens: int | None = None,
) -> Dataset:
    """
    For each edit, the prefixes that its target's own would have to outrank to stay in the beam.

    Sources are translated by beam search. Wherever the target's prefix is not among those in the beam, the lowest
    of them is taken. Edits with this column, `model.edit` and Editable Training have their targets outrank them as
    well, so that beam search finds the target more often ([Wiseman and Rush, 2016](https://arxiv.org/abs/1606.02960)).

    Args:
        model ([`~transformers.PreTrainedModel`]): an encoder-decoder, editable or not. It is not changed.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        edits ([`~datasets.Dataset`]): columns `source` and `target`, as [`mine_edits`] gives them.
        num_beams (`int`, *optional*, defaults to `5`): beam size; 1 is greedy search.
        batch_size (`int`, *optional*, defaults to `64`): sources translated at once.
        max_new_tokens (`int`, *optional*):
            The most tokens of a translation; `None` takes the model's generation settings, or 256 without any.

    Returns:
        [`~datasets.Dataset`]: the edits with a further column `prefixes` (`list[list[int]]`, token ids).

    Raises:
        EditableValueError: if a number is below 1, a column is missing, or a text is empty or too long.
    """
    BEAMS.check("num_beams=", num_beams)
    check_count("batch_size", batch_size)
    if missing := {"source", "target"} - set(edits.column_names):
        raise EditableValueError(f"The edits have no columns {sorted(missing)}, but {edits.column_names}.")
    collator = DataCollatorForEditableSeq2Seq(tokenizer, model)
    sources = dict(enumerate(collator.encode("source", edits["source"])))
    targets = [until_end(model, ids) for ids in collator.encode("target", edits["target"])]
    limit = resolve_max_new_tokens(model, max_new_tokens)
    found: dict[int, list[list[int]]] = {}
    batches = batches_by_length({index: len(ids) for index, ids in sources.items()}, batch_size)
    with frozen(model):
        for batch in logging.tqdm(batches, desc="Mining prefixes", unit="batch"):
            # What comes after a target's last token does not matter.
            needed = max(len(targets[index]) for index in batch) + 1
            longest = min(limit, needed) if can_be_bounded(model) else limit
            live = LivePrefixes()
            encode_sources(model, tokenizer, sources, batch).generate(
                model, longest, num_beams=num_beams, do_sample=False, logits_processor=LogitsProcessorList([live])
            )
            for row, index in enumerate(batch):
                own = slice(row * num_beams, (row + 1) * num_beams)
                found[index] = outranking(targets[index], [step[own].tolist() for step in live.steps])
    rows: list[dict[str, Any]] = [{**row, COLUMN: found[index]} for index, row in enumerate(edits.to_list())]
    features = Features({**edits.features, COLUMN: Sequence(Sequence(Value("int64")))})
    return Dataset.from_list(rows, features=features)


def outranking(target: list[int], live: list[list[list[int]]]) -> list[list[int]]:
    """The lowest-ranked prefix in the beam at each step where the target's is not in it. See `without_prefix`."""
    return [rows[-1] for rows in without_prefix(target, live)]


def without_prefix(target: list[int], live: list[list[list[int]]]) -> list[list[list[int]]]:
    """
    The steps of a search at which no prefix in the beam is the target's.

    Args:
        target (`list[int]`): the target's tokens.
        live (`list[list[list[int]]]`): the prefixes in the beam, best first, at each step.
    """
    lengths = range(1, len(target) + 1)
    return [rows for rows in live if len(rows[0]) in lengths and target[: len(rows[0])] not in rows]
