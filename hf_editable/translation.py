"""Edits at the level of text: a source and the translation it should have."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from .collator import DataCollatorForEditableSeq2Seq
from .decoding import batches_by_length, check_count, encode_sources, frozen, resolve_max_new_tokens
from .errors import EditableTypeError, EditableValueError
from .modeling import EditableMixin, EditResult


class TranslationEditor:
    """
    Corrects translations given as text.

    Args:
        model ([`EditableMixin`]): the model, from [`AutoEditableModelForSeq2SeqLM`]. It is not changed.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        num_beams (`int`, *optional*, defaults to `5`): beam size of `translate`.
        batch_size (`int`, *optional*, defaults to `64`): sentences translated at once.

    Example:

    ```python
    >>> editor = TranslationEditor(model, tokenizer)  # doctest: +SKIP
    >>> result = editor.edit("Guten Tag!", "Good afternoon!")  # doctest: +SKIP
    >>> with model.edited(result.patch):  # doctest: +SKIP
    ...     editor.translate(["Guten Tag!"])
    ['Good afternoon!']
    ```
    """

    def __init__(
        self, model: EditableMixin, tokenizer: PreTrainedTokenizerBase, num_beams: int = 5, batch_size: int = 64
    ):
        if not isinstance(model, EditableMixin):
            raise EditableTypeError(
                f"A {type(model).__name__} has no edit(). Load it with AutoEditableModelForSeq2SeqLM.from_pretrained."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.num_beams = num_beams
        self.batch_size = batch_size
        self.collator = DataCollatorForEditableSeq2Seq(tokenizer, model)

    def translate(self, sources: Sequence[str]) -> list[str]:
        """
        Translate with beam search.

        Args:
            sources (`Sequence[str]`): sentences.

        Returns:
            `list[str]`: their translations, in the same order.

        Raises:
            EditableValueError: if a sentence is empty, or `sources` is one string.
        """
        if isinstance(sources, str):
            raise EditableValueError(f"translate takes a list of sentences; give [{sources!r}].")
        translations = self._beam_search(sources, self.num_beams, 1)
        return [texts[0] for texts in translations]

    def edit(
        self, source: str, target: str, alternatives: Sequence[str] | None = None, max_rounds: int = 5
    ) -> EditResult:
        """
        Find an edit after which the model ranks `target` above every alternative translation of `source`.

        That does not make beam search say the target. So the edited model translates the source, and while it says
        something that was not among the alternatives, that joins them and the edit is made anew.

        Args:
            source (`str`): the sentence that is translated wrongly.
            target (`str`): the translation it should have.
            alternatives (`Sequence[str]`, *optional*):
                what the target is to outrank; `None` takes the model's `num_alternatives` most likely translations.
            max_rounds (`int`, *optional*, defaults to `5`): the most edits tried.

        Returns:
            [`EditResult`]; its `translation` is what the edited model says, its patch names `source` and `target`.

        Raises:
            EditableValueError:
                if the source or the target is empty or too long, the target has words that the tokenizer does not
                know, or no alternative differs from the target.
        """
        check_count("max_rounds", max_rounds)
        self._check_known(target)
        if alternatives is None:
            count = self.model.edit_config.num_alternatives
            alternatives = self._beam_search([source], count, count)[0]
        outranked = list(alternatives)
        result = self._edit_once(source, target, outranked)
        for _ in range(max_rounds - 1):
            said = result.translation.strip()
            if not result.success or said in ("", target.strip(), *(text.strip() for text in outranked)):
                break
            outranked.insert(0, said)
            retried = self._edit_once(source, target, outranked)
            if not retried.success:
                break  # the edit before holds for fewer alternatives, which is better than none
            result = retried
        return result

    def _check_known(self, target: str) -> None:
        unknown = self.tokenizer.unk_token_id
        words = [word for word in target.split() if unknown in self.tokenizer(text_target=word).input_ids]
        if unknown is not None and words:
            raise EditableValueError(
                f"The tokenizer has no tokens for {words} of the target, so the model cannot say it."
            )

    def _edit_once(self, source: str, target: str, alternatives: list[str]) -> EditResult:
        row = {"source": source, "target": target, "alternatives": alternatives}
        edit = self.collator.edit_inputs(row, self.model.device)
        result = self.model.edit(**edit, num_alternatives=edit["alternative_labels"].shape[1])
        result.patch.source, result.patch.target = source, target
        with self.model.edited(result.patch):
            result.translation = self.translate([source])[0]
        return result

    def _beam_search(self, sources: Sequence[str], num_beams: int, count: int) -> list[list[str]]:
        """The `count` best translations of each source."""
        encoded = self.collator.encode("source", sources)
        translations: dict[int, list[str]] = {}
        limit = resolve_max_new_tokens(self.model)
        with frozen(self.model):
            for batch in batches_by_length(dict(enumerate(map(len, encoded))), self.batch_size):
                output = encode_sources(self.model, self.tokenizer, encoded, batch).generate(
                    self.model, limit, num_beams=num_beams, num_return_sequences=count, do_sample=False
                )
                texts = self.tokenizer.batch_decode(output, skip_special_tokens=True)
                for position, index in enumerate(batch):
                    translations[index] = texts[position * count : (position + 1) * count]
        return [translations[index] for index in range(len(sources))]
