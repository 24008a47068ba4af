"""The package's own edits, held against what beam search says."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ...checks import check_count
from ...correction.verification import Request, Verification
from ...data.collator import DataCollatorForEditableSeq2Seq
from ...editors.result import EditResult
from ...modeling.mixin import EditableMixin
from ...numerics.scoring import PADDING
from .base import method_config


class VerifiedEditing:
    """
    Edits that go on until `generate` says the target, as those of [`TranslationEditor`] do.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): of the model.
        num_beams (`int`, *optional*, defaults to `5`): beam size that the target is to be found with.
        max_rounds (`int`, *optional*, defaults to `20`): how often edit and search take turns at most.

    Raises:
        EditableValueError: if a number is below 1.
    """

    name = "verified"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, num_beams: int = 5, max_rounds: int = 20):
        self._tokenizer = tokenizer
        self._num_beams = check_count("num_beams", num_beams)
        self._max_rounds = check_count("max_rounds", max_rounds)
        self.arguments: dict[str, Any] = {"method": self.name, "verified_beams": num_beams, "max_rounds": max_rounds}

    def __call__(self, model: EditableMixin, inputs: Mapping[str, Tensor], **overrides: Any) -> EditResult:
        """See [`EditMethod`]."""
        config = method_config(model, inputs, overrides)
        alternatives = self._texts(inputs["alternative_labels"][0][: config.num_alternatives])
        request = Request(self._texts(inputs["input_ids"])[0], self._texts(inputs["labels"])[0], alternatives)
        collator = DataCollatorForEditableSeq2Seq(self._tokenizer, model)
        return Verification(model, collator, [request], self._num_beams, overrides)(self._max_rounds).result

    def _texts(self, rows: Tensor) -> list[str]:
        found = [row[row != PADDING].tolist() for row in rows]
        return [self._tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in found if ids]
