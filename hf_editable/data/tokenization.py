"""A joint BPE tokenizer that takes plain text, works on Moses-like tokens inside, and decodes to plain text again.

Models of the literature are trained on Moses-tokenized text, which leaves detokenization to every caller. Here the
tokenizer file holds both directions as regular expressions, so a model trained with it needs nothing but
`AutoTokenizer.from_pretrained`.
"""

import re
from collections.abc import Iterable, Sequence

from sacremoses.corpus import NonbreakingPrefixes
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from ..errors import EditableValueError


END_OF_WORD = "</w>"
BOS, PAD, EOS, UNK = SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]

# English words that lowercased abbreviations of other languages would swallow with their sentence's final period.
_ORDINARY_WORDS = {"a", "i", "art", "con", "no", "op", "res", "sen"}
# Endings that Moses keeps with their apostrophe; before any other word at a gap, an apostrophe is an opening quote.
_CONTRACTIONS = "s|t|d|m|re|ve|ll|em|cause|til|n|bout"
# Stands for an apostrophe that is a quotation mark, while text is being decoded (a private-use character).
_QUOTE = "\ue000"


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int = 10_000,
    languages: Sequence[str] = ("de", "en"),
    lowercase: bool = True,
    model_max_length: int = 512,
) -> PreTrainedTokenizerFast:
    """Learn one byte-pair encoding on the sentences of both languages together.

    Args:
        texts (`Iterable[str]`): Sentences of all languages, plain or Moses-tokenized without escapes.
        vocab_size (`int`, *optional*, defaults to `10_000`): Entries of the vocabulary, with the single characters
            and `<s>`, `<pad>`, `</s>`, `<unk>` (ids 0 to 3). Fewer come out where the text has not enough pairs.
        languages (`Sequence[str]`, *optional*, defaults to `("de", "en")`): Two-letter codes of the languages whose
            abbreviations keep their period.
        lowercase (`bool`, *optional*, defaults to `True`): Whether the tokenizer lowercases its input.
        model_max_length (`int`, *optional*, defaults to `512`): Longest input of the model, in tokens.

    Returns:
        `PreTrainedTokenizerFast`: A tokenizer that appends `</s>` to sources and targets. `decode` with
        `skip_special_tokens=True` returns detokenized text.

    Raises:
        EditableValueError: `vocab_size` leaves no room for the special tokens, or there is no text.

    Example:

    ```python
    >>> from hf_editable.data import train_tokenizer
    >>> tokenizer = train_tokenizer(["Ich weiß es nicht.", "I don't know."] * 10, vocab_size=60)
    >>> tokenizer.decode(tokenizer("I don't know.")["input_ids"], skip_special_tokens=True)
    "i don't know."
    ```
    """
    if vocab_size <= len(SPECIAL_TOKENS):
        raise EditableValueError(f"vocab_size is {vocab_size}; it must exceed {len(SPECIAL_TOKENS)} (special tokens).")
    tokenizer = Tokenizer(models.BPE(unk_token=UNK, end_of_word_suffix=END_OF_WORD))
    normal_forms = [normalizers.NFC()] + ([normalizers.Lowercase()] if lowercase else [])
    tokenizer.normalizer = normalizers.Sequence(normal_forms)
    tokenizer.pre_tokenizer = _pre_tokenizer(languages)
    tokenizer.decoder = _decoder()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, end_of_word_suffix=END_OF_WORD, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() == len(SPECIAL_TOKENS):
        raise EditableValueError("There is no text to learn a vocabulary from: give at least one sentence.")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A $B {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
    )


def encoding_agreement(tokenizer: PreTrainedTokenizerFast, plain: Sequence[str], tokenized: Sequence[str]) -> float:
    """Measure how often plain text and its Moses-tokenized form get the same token ids.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): The tokenizer.
        plain (`Sequence[str]`): N sentences of plain text.
        tokenized (`Sequence[str]`): The same N sentences, Moses-tokenized.

    Returns:
        `float`: Share of the sentences, between 0 and 1.
    """
    pairs = zip(tokenizer(list(plain))["input_ids"], tokenizer(list(tokenized))["input_ids"], strict=True)
    return sum(left == right for left, right in pairs) / len(plain)


def _pre_tokenizer(languages: Sequence[str]) -> pre_tokenizers.PreTokenizer:
    """Split plain text as Moses does; text that Moses has split already comes out the same.

    White space goes last, so that the rules before it see the neighbours of a character.
    """
    prefixes = {word for lang in languages for word in NonbreakingPrefixes().words(lang)}
    words = {word for word in prefixes if " " not in word and not word.isdigit()}
    words = (words | {word.lower() for word in words}) - _ORDINARY_WORDS
    abbreviations = "|".join(re.escape(word) for word in sorted(words))
    rules = [
        # The period that ends a word, unless the word is an abbreviation (mr.), dotted letters (u.s.), or an ordinal
        # before a word (am 5. mai).
        r"(?<=[^\s.])"
        rf"(?<!(?:^|[^\p{{L}}\p{{M}}\p{{Nd}}.'-])(?:{abbreviations}))"
        r"(?<!(?:^|[^\p{L}\p{M}\p{Nd}])(?:\p{L}\.)+\p{L})"
        r"(?!(?<=(?:^|[^\p{L}\p{M}\p{Nd}.,])\p{Nd}{1,2})\. \p{L})"
        r"\.(?![\p{L}\p{M}\p{Nd}.`-])",
        r"\.{2,}",
        r"[^\p{L}\p{M}\p{Nd}\s.'`,-]",
        # A comma between digits belongs to the number.
        r"(?<!\p{N}),|,(?!\p{N})",
        # don 't, jones 's, 1990 's; and the tokens 't, 's, o 'brien of text that is split already.
        r"(?:(?<=\p{L})'(?=\p{L})|(?<=\p{Nd})'(?=s(?![\p{L}\p{Nd}]))"
        rf"|(?<=\s)'(?=(?:{_CONTRACTIONS})(?![\p{{L}}\p{{Nd}}]))|(?<=(?:^|\s)[OoDdLl] )'(?=\p{{L}}))"
        r"[^\s',]+|'",
    ]
    splits = [pre_tokenizers.Split(Regex(rule), behavior="isolated") for rule in rules]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.WhitespaceSplit()])


def _decoder() -> decoders.Decoder:
    """Join BPE pieces to words and words to plain text, by the rules of the Moses detokenizer.

    A `Replace` inserts a literal, so each rule matches just the space that it removes, and looks around.
    """
    rules = [
        # Contractions: don 't. First, as later rules put opening quotes before words.
        (r" (?='\p{L})", ""),
        # An apostrophe alone is a possessive after s (the boys ' house), a quotation mark elsewhere.
        (r"(?<=[sS]) '(?= |$)", "'"),
        (r"(?<=^| )'(?= |$)", _QUOTE),
        *[rule for mark in ('"„“”', _QUOTE) for rule in _quotation_rules(mark)],
        (_QUOTE, "'"),
        (r" (?=[,.?!:;\\%}\])]+(?![^\s,.?!:;\\%}\])'\"„“”]))", ""),
        # Other than Moses, a currency sign keeps its space before a word (4 € im Monat).
        (r"(?<=[(\[{¿¡]) |(?<=\p{Sc}) (?=\p{Nd})", ""),
    ]
    replacements = [decoders.Replace(Regex(pattern), content) for pattern, content in rules]
    return decoders.Sequence([decoders.BPEDecoder(suffix=END_OF_WORD), decoders.Fuse(), *replacements])


def _quotation_rules(marks: str) -> list[tuple[str, str]]:
    """Quotation marks open and close in turn: no space after the 1st, 3rd, ..., none before the 2nd, 4th, ..."""
    mark, other = f"[{marks}]", f"[^{marks}]*"
    pairs = f"(?:{mark}{other}{mark}{other})*"
    return [
        (rf"(?<={mark})(?<=\A{other}{pairs}{mark}) ", ""),
        (rf" (?={mark})(?<=\A{other}{pairs}{mark}{other})", ""),
    ]
