"""The languages of multilingual models, as options of the commands that translate."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...errors import EditableValueError


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ...modeling.mixin import EditableMixin


@dataclass
class LanguageArguments:
    """The languages of a multilingual model."""

    source_lang: str | None = field(
        default=None,
        metadata={"help": "Language to translate from, as a multilingual model's tokenizer spells it: deu_Latn."},
    )
    target_lang: str | None = field(default=None, metadata={"help": "Language to translate to."})

    def __post_init__(self):
        if (self.source_lang is None) != (self.target_lang is None):
            raise EditableValueError("--source_lang and --target_lang belong together: give both or neither.")

    def apply(self, model: "EditableMixin", tokenizer: "PreTrainedTokenizerBase") -> None:
        """Set the languages, if they are given; see [`set_languages`]."""
        from ...models.languages import set_languages

        if self.source_lang is not None:
            set_languages(model, tokenizer, self.source_lang, self.target_lang)
