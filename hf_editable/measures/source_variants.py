"""Variants of a sentence: some mean the same, so that a correction should carry over, others do not."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import EditableValueError
from .similarity import ngrams


# By kind: whether a correction of the sentence should hold for the variant too.
SAME_MEANING = ("first_letter", "upper_case", "no_punctuation", "other_punctuation", "typo")
OTHER_MEANING = ("number", "neighbour")
KINDS = SAME_MEANING + OTHER_MEANING

# Without "ein" and "eine", which are articles too.
# fmt: off
NUMBER_WORDS = (
    "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf", "dreizehn",
    "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn", "zwanzig", "dreißig", "vierzig",
    "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig", "hundert", "tausend",
)
# fmt: on
_FINAL = re.compile(r"\s*([.!?…]+)\s*$")
_OTHER_END = {".": "!", "!": ".", "?": "."}
_NGRAM = 4


def make_variant(
    kind: str, text: str, rng: np.random.Generator, number_words: Sequence[str] = NUMBER_WORDS
) -> str | None:
    """
    A variant of a sentence, `None` where there is none of that kind.

    Args:
        kind (`str`):
            `"first_letter"`: the first letter in the other case; `"upper_case"`: one word in capitals;
            `"no_punctuation"`: the final mark removed; `"other_punctuation"`: the final mark replaced by another;
            `"typo"`: two letters inside one word swapped; `"number"`: one number, in digits or words, replaced.
        text (`str`): the sentence.
        rng ([`~numpy.random.Generator`]): of the choices at random.
        number_words (`Sequence[str]`, *optional*): number words in lower case; by default German ones.

    Raises:
        EditableValueError: if there is no such kind.
    """
    if kind == "first_letter":
        variant = _first_letter(text)
    elif kind == "upper_case":
        variant = _one_word(text, rng, 3, lambda word: word.upper())
    elif kind == "no_punctuation":
        variant = _FINAL.sub("", text)
    elif kind == "other_punctuation":
        variant = _FINAL.sub(lambda end: end[0].replace(end[1], _OTHER_END.get(end[1], ".")), text)
    elif kind == "typo":
        variant = _one_word(text, rng, 4, lambda word: _swapped(word, rng))
    elif kind == "number":
        variant = _other_number(text, rng, number_words)
    else:
        made = [name for name in KINDS if name != "neighbour"]
        raise EditableValueError(f"kind={kind!r}: choose one of {', '.join(made)}.")
    return variant if variant and variant.strip() and variant != text else None


def _first_letter(text: str) -> str:
    place = next((index for index, letter in enumerate(text) if letter.isalpha()), None)
    if place is None:
        return text
    return text[:place] + text[place].swapcase() + text[place + 1 :]


def _one_word(text: str, rng: np.random.Generator, shortest: int, change: Callable[[str], str]) -> str:
    """The text with one of its words, of so many letters or more, changed; the first that `change` changes."""
    words = [match for match in re.finditer(r"\w+", text) if len(match[0]) >= shortest and match[0].isalpha()]
    for place in rng.permutation(len(words)):
        word = words[place]
        if (changed := change(word[0])) != word[0]:
            return text[: word.start()] + changed + text[word.end() :]
    return text


def _swapped(word: str, rng: np.random.Generator) -> str:
    """The word with two neighbouring letters swapped that differ; the first letter stays."""
    places = [index for index in range(1, len(word) - 1) if word[index] != word[index + 1]]
    if not places:
        return word
    place = places[rng.integers(len(places))]
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def _other_number(text: str, rng: np.random.Generator, number_words: Sequence[str]) -> str:
    known = set(number_words)
    found = [match for match in re.finditer(r"\w+", text) if match[0].isdecimal() or match[0].lower() in known]
    if not found:
        return text
    match = found[rng.integers(len(found))]
    number = match[0]
    if number.isdecimal():
        # As many digits, no leading 0 where there was none.
        least = 10 ** (len(number) - 1) if number[0] != "0" and len(number) > 1 else 0
        span = 10 ** len(number) - least
        value = least + (int(number) - least + 1 + int(rng.integers(span - 1))) % span
        other = f"{value:0{len(number)}d}"
    else:
        others = [word for word in number_words if word != number.lower()]
        if not others:
            return text
        other = others[rng.integers(len(others))]
        other = other.capitalize() if number[0].isupper() else other
    return text[: match.start()] + other + text[match.end() :]


class NearestTexts:
    """
    Finds the text of a corpus that is most like a given one: by the cosine of their TF-IDF vectors of character
    4-grams.

    Args:
        texts (`Sequence[str]`): the corpus.

    Raises:
        EditableValueError: if it is empty.
    """

    def __init__(self, texts: Sequence[str]):
        if not len(texts):
            raise EditableValueError("The corpus is empty, so no text has a neighbour in it. Give at least one text.")
        self._texts = list(dict.fromkeys(texts))
        counts = [Counter(ngrams(text, _NGRAM)) for text in self._texts]
        documents = Counter(gram for each in counts for gram in each)
        self._weights = {gram: math.log((1 + len(counts)) / (1 + number)) + 1 for gram, number in documents.items()}
        self._holders: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for index, each in enumerate(counts):
            for gram, value in self._vector(each).items():
                self._holders[gram].append((index, value))

    def _vector(self, counts: Counter) -> dict[str, float]:
        vector = {gram: number * self._weights[gram] for gram, number in counts.items() if gram in self._weights}
        norm = math.sqrt(sum(value * value for value in vector.values())) or 1.0
        return {gram: value / norm for gram, value in vector.items()}

    def __call__(self, text: str) -> str | None:
        """The nearest other text; `None` if no other has any 4-gram of it."""
        scores: dict[int, float] = defaultdict(float)
        for gram, value in self._vector(Counter(ngrams(text, _NGRAM))).items():
            for index, other in self._holders[gram]:
                scores[index] += value * other
        best = max(
            (index for index in scores if self._texts[index].strip() != text.strip()),
            key=lambda index: (scores[index], -index),
            default=None,
        )
        return None if best is None else self._texts[best]
