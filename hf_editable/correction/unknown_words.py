"""Words that a tokenizer does not know: to the model, all of them are the same word."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from ..checks import check_text


_NAMED = 5


def unknown_words(tokenizer: PreTrainedTokenizerBase, text: str, target: bool = False) -> list[str]:
    """
    The words of a text that have unknown tokens.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): the model's tokenizer.
        text (`str`): the text.
        target (`bool`, *optional*, defaults to `False`): whether it is a translation, not a source.

    Raises:
        EditableTypeError, EditableValueError: if it is no text, or has halves of characters.
    """
    check_text("target" if target else "source", text)
    unknown, side = tokenizer.unk_token_id, "text_target" if target else "text"
    return [word for word in text.split() if unknown is not None and unknown in tokenizer(**{side: word}).input_ids]


def describe_unknown(tokenizer: PreTrainedTokenizerBase, sources: Sequence[str]) -> str | None:
    """
    What edits of sources do to other sources, as the tokenizer writes these the same; `None` if there are no such.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): the model's tokenizer.
        sources (`Sequence[str]`): sources to edit.
    """
    found = {
        source: told for source in sources if source.strip() and (told := _described(tokenizer, source)) is not None
    }
    if not found:
        return None
    named = "; ".join(list(found.values())[:_NAMED])
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"To this tokenizer, other sources are the same, and an edit changes their translations too: {named}{more}."


def _described(tokenizer: PreTrainedTokenizerBase, source: str) -> str | None:
    words = unknown_words(tokenizer, source)
    ids = tokenizer(source, verbose=False).input_ids
    silent = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    said = [token for token in tokenizer.convert_ids_to_tokens(ids) if token.strip("▁Ġ ")]
    said = [token for token in said if tokenizer.convert_tokens_to_ids(token) not in silent]
    if said and not words:
        return None
    if set(said) <= {tokenizer.unk_token}:
        return f"{source!r:.100} has no known word, so it is like every other such source (its tokens: {said})"
    return f"{source!r:.100} is like every source that has another unknown word for {words} (its tokens: {said})"
