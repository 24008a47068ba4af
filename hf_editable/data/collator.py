"""From text to tensors: base batches of translation pairs, and edits with their alternatives."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DataCollatorForSeq2Seq, PreTrainedModel, PreTrainedTokenizerBase

from ..checks import check_text, checked
from ..errors import EditableValueError
from ..models.families import max_positions
from ..models.languages import target_tokens, without_start
from ..numerics.scoring import PADDING


class DataCollatorForEditableSeq2Seq(DataCollatorForSeq2Seq):
    """
    Pads base batches as [`~transformers.DataCollatorForSeq2Seq`] does, and turns edits given as text into tensors.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): of the model to be edited.
        model ([`~transformers.PreTrainedModel`], *optional*): gives the greatest lengths, where it has any.
        max_source_length (`int`, *optional*): the most tokens of a source; `None` takes what the model can.
        max_target_length (`int`, *optional*): the most tokens of a target; `None` takes what the model can.
        num_alternatives (`int`, *optional*): the most alternatives of an edit that are used; `None` uses all.
        pad_to_multiple_of (`int`, *optional*): pad base batches to a multiple of this length.

    Example:

    ```python
    >>> collator = DataCollatorForEditableSeq2Seq(tokenizer, model)  # doctest: +SKIP
    >>> edit = collator.collate_edits(  # doctest: +SKIP
    ...     [{"source": "Guten Tag!", "target": "Good day!", "alternatives": ["Hello!"]}]
    ... )
    >>> batch = {**collator(features), **edit}  # doctest: +SKIP
    ```
    """

    @checked
    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel | None = None,
        max_source_length: int | None = None,
        max_target_length: int | None = None,
        num_alternatives: int | None = None,
        pad_to_multiple_of: int | None = None,
    ):
        super().__init__(tokenizer, model=model, label_pad_token_id=PADDING, pad_to_multiple_of=pad_to_multiple_of)
        limits = {"encoder": max_source_length, "decoder": max_target_length}
        self.max_source_length, self.max_target_length = (
            longest_input(tokenizer, model, side) if limit is None else limit for side, limit in limits.items()
        )
        self.num_alternatives = num_alternatives

    def __call__(self, features: list[dict[str, Any]], return_tensors: str | None = None) -> dict[str, Tensor]:
        """A base batch of rows with `input_ids` and `labels`; see [`~transformers.DataCollatorForSeq2Seq`]."""
        if self.model is not None:
            features = [
                {**row, "labels": without_start(self.model.config, list(row["labels"]))} if "labels" in row else row
                for row in features
            ]
        return super().__call__(features, return_tensors)

    @checked
    def collate_edits(self, rows: Iterable[dict[str, Any]]) -> dict[str, Tensor]:
        """
        Tensors of edits.

        Args:
            rows (`Iterable[dict]`):
                edits, each with `source` (`str`), `target` (`str`), `alternatives` (`list[str]`) and, optionally,
                `prefixes` (`list[list[int]]`), token ids of prefixes that the target's own are to outrank.

        Returns:
            `dict` with `edit_input_ids` and `edit_attention_mask` of shape `(edits, source_length)`, `edit_labels` of
            shape `(edits, target_length)`, `edit_alternative_labels` of shape `(edits, alternatives, length)` and, if
            there are any, `edit_prefix_labels` of shape `(edits, prefixes, length)`; labels are −100 on padding. The
            names are those of [`EditableMixin.forward`].

        Raises:
            EditableValueError:
                if a source or target is empty or longer than the model takes, or no alternative differs from the
                target.
        """
        rows = list(rows)
        if not rows:
            raise EditableValueError("There are no edits to collate; give at least one.")
        alternatives = [self._alternatives(row) for row in rows]
        sources = [torch.tensor(ids) for ids in self.encode("source", [row["source"] for row in rows])]
        targets = [torch.tensor(ids) for ids in self.encode("target", [row["target"] for row in rows])]
        flat = [text for texts in alternatives for text in texts]
        encoded = iter([torch.tensor(ids) for ids in self.encode("alternative", flat)])
        width = max(len(texts) for texts in alternatives)
        padded = []
        for target, texts in zip(targets, alternatives, strict=True):
            # Other text may still be the same tokens (upper case in a lower-casing tokenizer).
            others = [ids for ids in (next(encoded) for _ in texts) if not torch.equal(ids, target)]
            padded += others + [torch.tensor([PADDING])] * (width - len(others))
        labels = _padded(padded, PADDING)
        tensors = {
            "edit_input_ids": _padded(sources, self.tokenizer.pad_token_id),
            "edit_attention_mask": _padded([torch.ones_like(ids) for ids in sources], 0),
            "edit_labels": _padded(targets, PADDING),
            "edit_alternative_labels": labels.view(len(rows), width, -1),
        }
        prefixes = [[torch.tensor(ids) for ids in row.get("prefixes") or ()] for row in rows]
        if most := max(map(len, prefixes)):
            padded = [ids for own in prefixes for ids in [*own, *[torch.tensor([PADDING])] * (most - len(own))]]
            tensors["edit_prefix_labels"] = _padded(padded, PADDING).view(len(rows), most, -1)
        return tensors

    def _alternatives(self, row: dict[str, Any]) -> list[str]:
        target = row["target"].strip()
        texts = [text for text in row["alternatives"] if text.strip() not in ("", target)]
        if not texts:
            raise EditableValueError(
                f"No alternative of {row['source']!r} differs from its target {row['target']!r}. "
                "Give at least one other translation, such as the model's own."
            )
        return texts[: self.num_alternatives]

    def edit_inputs(self, row: dict[str, Any], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """The tensors of one edit under the names of [`EditableMixin.edit`]; see `collate_edits`."""
        tensors = self.collate_edits([row])
        return {name.removeprefix("edit_"): tensor.to(device) for name, tensor in tensors.items()}

    def encode(self, name: str, texts: Sequence[str]) -> list[list[int]]:
        """
        Token ids of texts, checked.

        Args:
            name (`str`): what the texts are, for messages; `"source"` encodes sources, anything else targets.
            texts (`Sequence[str]`): the texts.

        Raises:
            EditableValueError: if a text is empty, longer than allowed, or in another language than the model's.
        """
        source = name == "source"
        longest = self.max_source_length if source else self.max_target_length
        for text in texts:
            if not check_text(name, text).strip():
                raise EditableValueError(f"A {name} is empty ({text!r}). Give a sentence.")
        if not texts:
            return []  # the tokenizer itself fails on an empty list
        # Not verbose, here and elsewhere: tokenizers would warn of long texts, which are looked at by their callers.
        encoded = self.tokenizer(**{"text" if source else "text_target": list(texts)}, verbose=False).input_ids
        for text, ids in zip(texts, encoded, strict=True):
            if longest is not None and len(ids) > longest:
                raise EditableValueError(
                    f"The {name} {text[:60]!r}… is {len(ids)} tokens long; {longest} are allowed. Shorten or split it."
                )
        if source or self.model is None:
            return encoded
        return [target_tokens(self.model, ids, text) for text, ids in zip(texts, encoded, strict=True)]


def longest_input(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | None, side: str) -> int | None:
    """The most tokens that tokenizer and model take on one side (`"encoder"` or `"decoder"`), `None` without limit."""
    limits = [max_positions(model.config, side)] if model is not None else []
    limits.append(tokenizer.model_max_length if tokenizer.model_max_length < 10**9 else None)
    return min((limit for limit in limits if limit is not None), default=None)


def _padded(sequences: Sequence[Tensor], value: int) -> Tensor:
    return pad_sequence(list(sequences), batch_first=True, padding_value=value)
