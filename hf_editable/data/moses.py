"""Moses text processing: punctuation normalisation, tokenization and detokenization, by sacremoses.

Source: the preprocessing of Sinitsin et al. (2020), "Editable Neural Networks", for machine translation.
"""

from functools import lru_cache

from sacremoses import MosesDetokenizer, MosesPunctNormalizer, MosesTokenizer


# Building one of these compiles dozens of regular expressions: once a language, not once a sentence.
_normalizer = lru_cache(maxsize=None)(MosesPunctNormalizer)
_tokenizer = lru_cache(maxsize=None)(MosesTokenizer)
_detokenizer = lru_cache(maxsize=None)(MosesDetokenizer)


def normalize(text: str, lang: str) -> str:
    """Write typographic quotes, dashes and spaces in their plain ASCII form.

    Args:
        text (`str`): One sentence.
        lang (`str`): Its language, a two-letter code.

    Returns:
        `str`: The sentence with normalised punctuation.
    """
    return _normalizer(lang).normalize(text)


def tokenize(text: str, lang: str) -> str:
    """Split a sentence into Moses tokens, without the XML escapes (`&apos;`) that Moses writes by default.

    Args:
        text (`str`): One sentence of plain text.
        lang (`str`): Its language, a two-letter code. Languages unknown to Moses are split by the English rules.

    Returns:
        `str`: The tokens, joined by single spaces.

    Example:

    ```python
    >>> from hf_editable.data.moses import tokenize
    >>> tokenize("I don't know, Mr. Smith.", "en")
    "I don 't know , Mr. Smith ."
    ```
    """
    return _tokenizer(lang).tokenize(text, return_str=True, escape=False)


def unescape(text: str) -> str:
    """Undo the XML escapes of a Moses tokenizer: `&apos; &quot; &amp; &lt; &gt; &#91; &#93; &#124;` and older forms.

    Args:
        text (`str`): Text that may hold escapes.

    Returns:
        `str`: The text without them.
    """
    return _detokenizer("en").unescape_xml(text)


def detokenize(text: str, lang: str) -> str:
    """Join Moses tokens to plain text; escapes are undone as well.

    Args:
        text (`str`): Moses tokens, joined by spaces.
        lang (`str`): Their language, a two-letter code.

    Returns:
        `str`: Plain text.

    Example:

    ```python
    >>> from hf_editable.data.moses import detokenize
    >>> detokenize("i don &apos;t know .", "en")
    "i don't know."
    ```
    """
    return _detokenizer(lang).detokenize(text.split(), return_str=True, unescape=True)
