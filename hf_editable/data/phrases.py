"""Noun phrases, pronouns and verb forms of the built-in grammar, in German and English."""

import random
from dataclasses import dataclass

from .lexicon import ADJECTIVES, Adjective, EnglishVerb, Noun, Verb, plural_or_third


CASES = ("nom", "acc", "dat")
# Endings by case, of m f n and plural.
_DER = {"nom": ("der", "die", "das", "die"), "acc": ("den", "die", "das", "die"), "dat": ("dem", "der", "dem", "den")}
_DIES = {"nom": ("er", "e", "es", "e"), "acc": ("en", "e", "es", "e"), "dat": ("em", "er", "em", "en")}
_EIN = {"nom": ("", "e", "", "e"), "acc": ("en", "e", "", "e"), "dat": ("em", "er", "em", "en")}
# Adjective endings after der and dies-, after ein-words, and without a determiner (plural only).
_WEAK = {"nom": ("e", "e", "e", "en"), "acc": ("en", "e", "e", "en"), "dat": ("en",) * 4}
_MIXED = {"nom": ("er", "e", "es", "en"), "acc": ("en", "e", "es", "en"), "dat": ("en",) * 4}
_STRONG_PLURAL = {"nom": "e", "acc": "e", "dat": "en"}
_ENGLISH_DETERMINERS = {"der": ("the", "the"), "dies": ("this", "these"), "ein": ("a", ""), "kein": ("a", "any"),
                        "mein": ("my", "my"), "dein": ("your", "your"), "unser": ("our", "our"), "zwei": ("", "two"),
                        "drei": ("", "three")}  # fmt: skip
_CONTRACTIONS = {"in dem": "im", "in das": "ins", "an dem": "am", "zu dem": "zum", "zu der": "zur", "von dem": "vom"}
_DOUBLED = {"run", "put", "sit", "shut"}


# Compared and hashed by identity: the pronouns below are single objects.
@dataclass(frozen=True, eq=False)
class Phrase:
    """A noun phrase or pronoun in all cases.

    Args:
        german (`dict[str, str]`): Its forms by case: `nom`, `acc`, `dat`.
        subject (`str`): English, as a subject.
        object (`str`): English, as an object.
        person (`int`): Column of the conjugation tables: 0 ich, 1 du, 2 er/sie/es, 3 wir and sie.
        noun (`Noun`, *optional*): The noun, `None` in a pronoun.
    """

    german: dict[str, str]
    subject: str
    object: str
    person: int
    noun: Noun | None = None


def _pronoun(german: str, english: str, person: int) -> Phrase:
    return Phrase(dict(zip(CASES, german.split(), strict=True)), *english.split(), person)


ICH, DU = _pronoun("ich mich mir", "I me", 0), _pronoun("du dich dir", "you you", 1)
WIR = _pronoun("wir uns uns", "we us", 3)
_HE, _SHE = _pronoun("er ihn ihm", "he him", 2), _pronoun("sie sie ihr", "she her", 2)
THEY = _pronoun("sie sie ihnen", "they them", 3)
_IT = {"m": _pronoun("er ihn ihm", "it it", 2), "f": _pronoun("sie sie ihr", "it it", 2),
       "n": _pronoun("es es ihm", "it it", 2)}  # fmt: skip
PERSONAL = [ICH, DU, WIR, _HE, _SHE, THEY]


def pronoun_for(phrase: Phrase) -> Phrase:
    """The pronoun that takes up a phrase: by the gender of the German noun; in English it, unless it is a person.

    "das Kind" and "das Mädchen" are not for it: German takes up the latter by "sie" or "es".
    """
    if phrase.noun is None:
        return phrase
    if phrase.person == 3:
        return THEY
    if "human" in phrase.noun.kinds:
        return _HE if phrase.noun.gender == "m" else _SHE
    return _IT[phrase.noun.gender]


def english_phrase(determiner: str, adjective: str, noun: str) -> str:
    """Join the words of a noun phrase, with `an` before a vowel."""
    words = [word for word in (determiner, adjective, noun) if word]
    if words[0] == "a" and words[1][0] in "aeiou":
        words[0] = "an"
    return " ".join(words)


def noun_phrase(
    rng: random.Random, noun: Noun, determiner: str, plural: bool = False, adjective: Adjective | None = None
) -> Phrase:
    """Decline a noun with its determiner and adjective.

    Args:
        rng (`random.Random`): Chooses among English renderings.
        noun (`Noun`): The noun.
        determiner (`str`): `der`, `dies`, `ein`, `kein`, `mein`, `dein`, `unser`; `zwei` or `drei` with a plural.
        plural (`bool`, *optional*, defaults to `False`): The number. The plural of `ein` has no determiner.
        adjective (`Adjective`, *optional*): Stands before the noun.

    Returns:
        `Phrase`: All forms.
    """
    column = 3 if plural else "mfn".index(noun.gender)
    german = {}
    for case in CASES:
        if determiner in ("zwei", "drei") or (determiner == "ein" and plural):
            article, ending = ("" if determiner == "ein" else determiner), _STRONG_PLURAL[case]
        elif determiner in ("der", "dies"):
            article = _DER[case][column] if determiner == "der" else determiner + _DIES[case][column]
            ending = _WEAK[case][column]
        else:
            article, ending = determiner + _EIN[case][column], _MIXED[case][column]
        words = [article, adjective.stem + ending if adjective else "", _decline(noun, case, plural)]
        german[case] = " ".join(word for word in words if word)
    english = english_phrase(
        _ENGLISH_DETERMINERS[determiner][plural],
        rng.choice(adjective.english) if adjective else "",
        rng.choice(noun.english)[plural],
    )
    return Phrase(german, english, english, 3 if plural else 2, noun)


def _decline(noun: Noun, case: str, plural: bool) -> str:
    if not plural:
        return noun.plural if noun.weak and case != "nom" else noun.german
    return noun.plural if case != "dat" or noun.plural.endswith(("n", "s")) else noun.plural + "n"


def suitable_adjectives(noun: Noun) -> list[Adjective]:
    """The adjectives that make sense with a noun."""
    return [adjective for adjective in ADJECTIVES if adjective.kinds & noun.kinds]


def with_preposition(preposition: str, german: str) -> str:
    """Put a German preposition before a phrase; with an article it contracts (in dem: im)."""
    words = f"{preposition} {german}".split(" ", 2)
    contracted = _CONTRACTIONS.get(" ".join(words[:2]))
    return " ".join([contracted, *words[2:]] if contracted and len(words) == 3 else words)


def german_present(verb: Verb, person: int) -> str:
    """The present of a verb, without its separable prefix."""
    stem = verb.third[:-1]
    second = verb.third if stem.endswith(("s", "ß", "z")) else stem + "st"
    return (verb.infinitive[:-1], second, verb.third, verb.infinitive)[person]


def german_past(verb: Verb, person: int) -> str:
    """The simple past of a verb, without its separable prefix; for person 1 (du) spoken German uses the perfect."""
    return verb.past if person != 3 else verb.past + ("n" if verb.past.endswith("e") else "en")


def english_ing(verb: EnglishVerb) -> str:
    """The present participle: writing, putting, lying."""
    base = verb.base
    if base.endswith("ie"):
        return base[:-2] + "ying"
    if base in _DOUBLED:
        return base + base[-1] + "ing"
    return (base[:-1] if base.endswith("e") and not base.endswith("ee") else base) + "ing"


def english_present(base: str, person: int) -> str:
    """The simple present of a verb."""
    return plural_or_third(base) if person == 2 else base
