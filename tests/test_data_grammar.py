"""The built-in corpus: determinism, splits, and agreement found by parsing its sentences."""

import random
import re

import pytest

from hf_editable.data import generate_corpus
from hf_editable.data.lexicon import ADJECTIVES, NOUNS, VERBS
from hf_editable.data.phrases import english_ing, german_past, german_present, noun_phrase, with_preposition
from hf_editable.errors import EditableValueError


DETERMINER = r"((?:d|dies|(?:m|d|k)?ein|unser)(?:e[mnrs]?|as|ie)?)"
GENDERS = {noun.german: noun.gender for noun in NOUNS}
# What a determiner ends in before a singular noun: case, then gender.
ENDINGS = {
    "dat": {"m": "em", "f": "er", "n": "em"},
    "acc": {"m": "en", "f": ("ie", "e"), "n": ("as", "es", "in", "er")},
}
WORD = r"(?: [a-zäöüß]+)?"


@pytest.fixture(scope="module")
def corpus():
    return generate_corpus(4000, 300, 300, seed=3)


@pytest.fixture(scope="module")
def pairs(corpus):
    return [pair for rows in corpus.values() for pair in zip(rows["source"], rows["target"], strict=True)]


def verb(infinitive, prefix=""):
    return next(verb for verb in VERBS if (verb.infinitive, verb.prefix) == (infinitive, prefix))


def phrases_after(pairs, words):
    """Determiner and singular noun after one of the words, with at most one adjective between."""
    pattern = re.compile(rf"\b(?:{words}) {DETERMINER}({WORD}) ([A-ZÄÖÜ]\w+)")
    found = [(match[1], match[3]) for source, _ in pairs for match in pattern.finditer(source)]
    # Where singular and plural look alike, the noun does not tell the number.
    alike = {noun.german for noun in NOUNS if noun.plural in (noun.german, noun.german + "n")}
    return [(determiner, noun) for determiner, noun in found if noun in GENDERS and noun not in alike]


def test_same_seed_same_corpus(corpus):
    again, other = generate_corpus(4000, 300, 300, seed=3), generate_corpus(4000, 300, 300, seed=4)
    assert all(again[split][:] == corpus[split][:] for split in corpus)
    assert other["train"]["source"][:50] != corpus["train"]["source"][:50]


def test_splits_are_disjoint_and_distinct(corpus, pairs):
    assert {split: len(rows) for split, rows in corpus.items()} == {"train": 4000, "validation": 300, "test": 300}
    assert len({source for source, _ in pairs}) == 4600


def test_sizes_are_checked():
    with pytest.raises(EditableValueError, match=r"at least 1 pair, not \{'test': 0\}"):
        generate_corpus(2, 1, 0)


def test_sentences_are_well_formed(pairs):
    for text in (text for pair in pairs for text in pair):
        assert re.fullmatch(r"[A-ZÄÖÜ][^\s.?!]*(?: [^\s.?!]+)*[.?](?: [A-Z][^.?!]*\.)?", text), text
        assert not re.search(r" ,|,,|None", text), text


def third_person(frame):
    """`Er liest|Er sieht|...`: verbs of a frame after a subject, so that an object or place follows."""
    return "|".join(f"(?:Er|Sie) {verb.third}" for verb in VERBS if verb.frame == frame and verb.third != "sieht")


@pytest.mark.parametrize("words, case", [
    ("mit|von|aus|zu", "dat"), ("durch", "acc"), (third_person("acc"), "acc"), (third_person("dat"), "dat"),
])  # fmt: skip
def test_case_is_governed_by_verb_and_preposition(pairs, words, case):
    check_case(phrases_after(pairs, words), case)


@pytest.mark.parametrize("participles, case", [
    ("geschlafen|gesessen|gespielt|getanzt|gearbeitet", "dat"), ("gegangen|gelaufen|gekommen", "acc"),
])  # fmt: skip
def test_two_way_prepositions_tell_place_from_direction(pairs, participles, case):
    simple = [pair for pair in pairs if re.search(rf"\b(?:{participles})\b", pair[0]) and "," not in pair[0]]
    check_case(phrases_after(simple, "in|hinter"), case)


def check_case(found, case):
    assert found
    for determiner, noun in found:
        assert determiner.endswith(ENDINGS[case][GENDERS[noun]]), (determiner, noun)


def test_separable_verbs_are_split_in_main_clauses_and_joined_in_subordinate_ones(pairs):
    main = [source for source, _ in pairs if re.search(r"\bruft\b", source)]
    joined = [source for source, _ in pairs if re.search(r"\banruft\b", source)]
    assert main and joined
    assert all(re.search(r"\bruft\b[^,.?]* an\b", source) for source in main)
    assert all(re.search(r"(dass|weil|obwohl|wenn|, d\w+)\b[^,]* anruft[.,]", source, re.I) for source in joined)


def test_verb_is_last_in_subordinate_clauses(pairs):
    finite = r"\b(?:hat|habe|hast|ist|bin|bist|sind|wird|wirst|kann|muss|soll|darf|darfst)\b"
    clauses = [match[1] for source, _ in pairs if (match := re.search(r", (?:dass|weil|obwohl) ([^.]*)\.$", source))]
    with_auxiliary = [clause for clause in clauses if re.search(finite, clause)]
    assert len(with_auxiliary) > 100
    assert [clause for clause in with_auxiliary if not re.search(finite + "$", clause)] == []


def test_pronoun_follows_the_gender_of_the_noun(pairs):
    pronouns = {"m": "ihn", "f": "sie", "n": "es"}
    seen = set()
    for source, target in pairs:
        match = re.match(r"Wo ist \w+(?: \w+)? ([A-ZÄÖÜ]\w+)\? .*\b(ihn|sie|es)\b", source)
        if match:
            assert match[2] == pronouns[GENDERS[match[1]]], source
            assert re.search(r"\bit\b", target), target
            seen.add(match[2])
    assert seen == {"ihn", "sie", "es"}


def test_english_articles_and_do_support(pairs):
    english = " ".join(target for _, target in pairs)
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", english)
    # In a question the subject comes between.
    statements = " ".join(target for _, target in pairs if target.endswith(".") and "?" not in target)
    verbs = re.findall(r"\b(?:doesn't|didn't|don't|won't|can't) (\w+)", statements)
    assert len(verbs) > 100 and set(verbs) <= {verb.base for row in VERBS for verb in row.english} | {"have", "want"}
    assert {"does", "did", "is", "has", "doesn't"} <= set(english.split())


def test_conjugation():
    assert [german_present(verb("lesen"), person) for person in range(4)] == ["lese", "liest", "liest", "lesen"]
    assert [german_present(verb("laden", "ein"), person) for person in range(4)] == ["lade", "lädst", "lädt", "laden"]
    assert [german_past(verb("öffnen"), person) for person in (0, 3)] == ["öffnete", "öffneten"]
    assert [german_past(verb("gehen"), person) for person in (2, 3)] == ["ging", "gingen"]
    english = {form.base: form for row in VERBS for form in row.english}
    ings = [english_ing(english[base]) for base in ("lie", "put", "write", "see", "carry")]
    assert ings == ["lying", "putting", "writing", "seeing", "carrying"]


def test_prepositions_contract_with_articles_only():
    assert with_preposition("in", "dem Haus") == "im Haus"
    assert with_preposition("zu", "der alten Frau") == "zur alten Frau"
    assert with_preposition("in", "das Dorf") == "ins Dorf"
    assert with_preposition("in", "diesem Haus") == "in diesem Haus"
    assert with_preposition("auf", "dem Tisch") == "auf dem Tisch"


def test_weak_mixed_and_strong_declension():
    rng = random.Random(0)
    noun = {noun.german: noun for noun in NOUNS}
    old = next(adjective for adjective in ADJECTIVES if adjective.stem == "alt")
    assert noun_phrase(rng, noun["Mann"], "der", False, old).german == {
        "nom": "der alte Mann", "acc": "den alten Mann", "dat": "dem alten Mann",
    }  # fmt: skip
    assert noun_phrase(rng, noun["Buch"], "mein", False, old).german["nom"] == "mein altes Buch"
    assert noun_phrase(rng, noun["Kind"], "drei", True, old).german == {
        "nom": "drei alte Kinder", "acc": "drei alte Kinder", "dat": "drei alten Kindern",
    }  # fmt: skip
    assert noun_phrase(rng, noun["Nachbar"], "ein").german["dat"] == "einem Nachbarn"
    assert noun_phrase(rng, noun["Auto"], "dies", True).german["dat"] == "diesen Autos"
    assert noun_phrase(rng, noun["Apfel"], "ein").subject == "an apple"
