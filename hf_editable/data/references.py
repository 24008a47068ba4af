"""Sentences that edits must leave as they are."""

import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..checks import check_count
from ..errors import EditableValueError
from ..models.private_copies import original
from ..runs.fingerprints import fingerprint_rows
from .collator import DataCollatorForEditableSeq2Seq


Value = TypeVar("Value")


class References:
    """
    Translation pairs that an edit must not disturb, for the editors that take care of them.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): of the model.
        pairs (`Sequence[dict[str, str]]`): rows with `source` and `target`, as those of a [`~datasets.Dataset`].

    Raises:
        EditableValueError: if there are no pairs.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Mapping[str, str]]):
        if not len(pairs):
            raise EditableValueError("There are no pairs to protect; give rows with source and target.")
        self._tokenizer, self._pairs = tokenizer, pairs
        self._known: weakref.WeakKeyDictionary[PreTrainedModel, dict[Hashable, Any]] = weakref.WeakKeyDictionary()

    def fingerprint(self) -> str:
        """A hash of the pairs, in hexadecimal."""
        return fingerprint_rows({key: row[key] for key in ("source", "target")} for row in self._pairs)

    def batch(self, model: PreTrainedModel, num_pairs: int, seed: int) -> dict[str, Tensor]:
        """
        Pairs chosen at random, as `input_ids`, `attention_mask` and `labels`, on the model's device.

        Args:
            model ([`~transformers.PreTrainedModel`]): the model.
            num_pairs (`int`): how many are taken; all, if there are fewer.
            seed (`int`): of the choice.

        Raises:
            EditableValueError: if `num_pairs` is below 1, or a sentence is empty or too long.
        """
        check_count("num_pairs", num_pairs)
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(self._pairs), generator=generator)[:num_pairs].tolist()
        collator, rows = self._encoded(model, chosen)
        return {name: tensor.to(model.device) for name, tensor in collator(rows).items()}

    def batches(self, model: PreTrainedModel, num_pairs: int, batch_size: int) -> Iterator[dict[str, Tensor]]:
        """
        The first pairs in batches of about the same length; see `batch`.

        Args:
            model ([`~transformers.PreTrainedModel`]): the model.
            num_pairs (`int`): how many; all, if there are fewer.
            batch_size (`int`): pairs in a batch.
        """
        collator, rows = self._encoded(model, range(min(check_count("num_pairs", num_pairs), len(self._pairs))))
        rows.sort(key=lambda row: len(row["labels"]))
        for start in range(0, len(rows), batch_size):
            batch = collator(rows[start : start + batch_size])
            yield {name: tensor.to(model.device) for name, tensor in batch.items()}

    def _encoded(
        self, model: PreTrainedModel, chosen: Iterable[int]
    ) -> tuple[DataCollatorForEditableSeq2Seq, list[dict[str, list[int]]]]:
        """Token ids of pairs."""
        pairs = [self._pairs[index] for index in chosen]
        collator = DataCollatorForEditableSeq2Seq(self._tokenizer, model)
        encoded = [collator.encode(name, [pair[name] for pair in pairs]) for name in ("source", "target")]
        return collator, [{"input_ids": x, "labels": y} for x, y in zip(*encoded, strict=True)]

    def once(self, model: PreTrainedModel, key: Hashable, compute: Callable[[], Value]) -> Value:
        """
        What `compute` gives, computed once for a model object, whose working copies count as itself, and a key, with
        the weights it has at that time.
        """
        known = self._known.setdefault(original(model), {})
        if key not in known:
            known[key] = compute()
        return known[key]
