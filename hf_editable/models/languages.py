"""The languages of multilingual models: how their tokenizers write them, and how they are set."""

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..checks import checked
from ..errors import EditableTypeError, EditableValueError


# Their decoders start with the last token of the labels, which is a language code in most of their checkpoints.
STARTS_WITH_LAST_TOKEN = ("mbart", "plbart")


# Their tokenizers begin targets with the token that the decoder starts with anyway.
TARGETS_WITH_START = ("seamless_m4t", "seamless_m4t_v2")


def without_start(config: PreTrainedConfig, ids: list[int]) -> list[int]:
    """Labels without the decoder's start token, which the tokenizers of some families put before them."""
    doubled = config.model_type in TARGETS_WITH_START and ids[:1] == [config.decoder_start_token_id]
    return ids[1:] if doubled else ids


def target_tokens(model: PreTrainedModel, ids: list[int], text: str) -> list[int]:
    """
    The tokens of a target that the model is to generate, out of those that its tokenizer gives.

    Args:
        model ([`~transformers.PreTrainedModel`]): has the generation settings.
        ids (`list[int]`): token ids of the target.
        text (`str`): the target, for messages.

    Raises:
        EditableValueError: if the target is encoded for another language than the one the model is set to generate.
    """
    ids = without_start(model.config, ids)
    settings = getattr(model, "generation_config", None)
    forced = getattr(settings, "forced_bos_token_id", None)
    if forced is not None and ids[0] != forced:
        raise _wrong_language(text, "first", ids[0], "forced_bos_token_id", forced)
    start = getattr(settings, "decoder_start_token_id", None)
    if model.config.model_type in STARTS_WITH_LAST_TOKEN and start is not None and ids[-1] != start:
        raise _wrong_language(text, "last", ids[-1], "decoder_start_token_id", start)
    return ids


def _wrong_language(text: str, place: str, token: int, setting: str, value: int) -> EditableValueError:
    return EditableValueError(
        f"The tokenizer encodes the target {text[:60]!r} with {token} as its {place} token, but {setting}={value} in "
        "the model's generation settings, so the model cannot say it. Set both by set_languages(model, tokenizer, "
        "source_lang, target_lang)."
    )


@checked
def set_languages(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source_lang: str, target_lang: str
) -> None:
    """
    Set the languages of a multilingual model, in its tokenizer and in its generation settings.

    Args:
        model ([`~transformers.PreTrainedModel`]): NLLB, M2M100, mBART, mBART-50, PLBart or Seamless.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        source_lang (`str`): code of the language to translate from, as the tokenizer spells it (`"deu_Latn"`).
        target_lang (`str`): code of the language to translate to.

    Raises:
        EditableTypeError: if the tokenizer knows no languages.
        EditableValueError: if it does not know one of these.

    Example:

    ```python
    >>> from hf_editable import set_languages

    >>> set_languages(model, tokenizer, "deu_Latn", "eng_Latn")  # doctest: +SKIP
    ```
    """
    if not hasattr(tokenizer, "src_lang"):
        raise EditableTypeError(
            f"{type(tokenizer).__name__} knows no languages, so its model translates between two only (or is told by "
            "the text, as T5 is). Leave the languages out."
        )
    codes = [_language_code(tokenizer, lang) for lang in (source_lang, target_lang)]
    tokenizer.src_lang, tokenizer.tgt_lang = source_lang, target_lang
    ids = tokenizer(text_target="").input_ids
    if codes[1] == ids[-1] and model.config.model_type in STARTS_WITH_LAST_TOKEN:
        model.generation_config.decoder_start_token_id = codes[1]
    else:
        model.generation_config.forced_bos_token_id = codes[1]


def _language_code(tokenizer: PreTrainedTokenizerBase, lang: str) -> int:
    marks = [lang, f"__{lang}__"]  # M2M100, PLBart and Seamless write codes like that
    # M2M100 has a piece "en" as well as the code "__en__", so special tokens come first.
    for token in sorted(marks, key=lambda token: token not in tokenizer.all_special_tokens):
        code = tokenizer.convert_tokens_to_ids(token)
        if code is not None and code != tokenizer.unk_token_id:
            return code
    known = [token for token in tokenizer.all_special_tokens if "_" in token]
    raise EditableValueError(f"The tokenizer knows no language {lang!r}, but {', '.join(known)}.")
