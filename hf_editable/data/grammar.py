"""The built-in corpus: German-English sentence pairs from a seeded grammar, so that everything runs offline.

It has what makes German hard to translate word by word: gender, case and number agreement, strong, weak and mixed
adjective endings, verbs and prepositions that govern a case (two-way ones by location or direction), separable
verbs, verb-second and verb-final order, pronouns that follow the gender of the noun. The English side has
do-support, progressive forms and irregular verbs. Many sentences have several right translations, from which the
seed chooses: a model trained on them is uncertain, and has alternatives to mine.
"""

import random
from dataclasses import replace
from functools import cache

from .clauses import Clause, join, sentence
from .lexicon import (  # fmt: skip
    DIRECTIONS,
    INTRODUCTIONS,
    LOCATIONS,
    NOUNS,
    PLACES,
    SEATS,
    TIMES,
    VERBS,
    Adjective,
    EnglishVerb,
    Noun,
    Time,
    Verb,
)
from .phrases import (  # fmt: skip
    DU,
    ICH,
    PERSONAL,
    WIR,
    Phrase,
    english_ing,
    english_present,
    german_past,
    german_present,
    noun_phrase,
    pronoun_for,
    suitable_adjectives,
    with_preposition,
)


# Finite forms for ich, du, er/sie/es, wir/sie.
_HABEN, _SEIN = ("habe", "hast", "hat", "haben"), ("bin", "bist", "ist", "sind")
_WAR, _WERDEN = ("war", "warst", "war", "waren"), ("werde", "wirst", "wird", "werden")
_MODALS = {
    "can": ("kann", "kannst", "kann", "können"), "must": ("muss", "musst", "muss", "müssen"),
    "want": ("will", "willst", "will", "wollen"), "should": ("soll", "sollst", "soll", "sollen"),
    "may": ("darf", "darfst", "darf", "dürfen"),
}  # fmt: skip
_BE, _WAS = ("am", "are", "is", "are"), ("was", "were", "was", "were")
_HAVE, _DO = ("have", "have", "has", "have"), ("do", "do", "does", "do")

# Describes people in general; not in the vocabulary.
_PERSON = Noun("Mensch", "m", "Menschen", (("person", "people"),), frozenset({"human", "adult"}))
# With "my", "meine Frau" would be my wife.
_NOT_OWNED = ("Mann", "Frau", "Junge", "Mädchen")
_COLOURS = ("rot", "blau", "grün", "schwarz", "weiß")
# Objects that would be reflexive: "ich sehe mich", "wir sehen mich".
_SAME_PERSON = {ICH: (ICH, WIR), WIR: (ICH, WIR), DU: (DU,)}


@cache
def _nouns(kinds: tuple[str, ...]) -> list[Noun]:
    """The nouns of at least one of the kinds; `a+b` asks for both."""
    wanted = [frozenset(kind.split("+")) for kind in kinds]
    return [noun for noun in NOUNS if any(kind <= noun.kinds for kind in wanted)]


class Grammar:
    """Makes random sentence pairs.

    Args:
        seed (`int`): Fixes the pairs.
    """

    def __init__(self, seed: int):
        self.rng = random.Random(seed)

    def pair(self) -> tuple[str, str]:
        """Make one German sentence and its English translation."""
        makers = [self._statement, self._question, self._that, self._because, self._when, self._description,
                  self._relative, self._missing]  # fmt: skip
        return self.rng.choices(makers, weights=(32, 14, 12, 12, 8, 10, 8, 4))[0]()

    # Sentences

    def _statement(self) -> tuple[str, str]:
        clause = self.clause()
        fronted = clause.can_front and self.rng.random() < 0.5
        return sentence(clause.german(fronted)), sentence(clause.english(fronted and self.rng.random() < 0.6))

    def _question(self) -> tuple[str, str]:
        clause = self.clause()
        word = self.rng.choice([("", ""), ("", ""), ("warum", "why")] + [("wann", "when")] * (not clause.time[0]))
        return (
            sentence(join(word[0], clause.german_question()), "?"),
            sentence(join(word[1], clause.english_question()), "?"),
        )

    def _that(self) -> tuple[str, str]:
        german, english = self.rng.choice(INTRODUCTIONS)
        clause = self.clause()
        english = join(self.rng.choice(english.split(";")), self.rng.choice(["that", ""]))
        return f"{german}, dass {clause.german_subordinate()}.", f"{english} {clause.english()}."

    def _because(self) -> tuple[str, str]:
        subject = self.phrase(["adult", "family"], plural_chance=0.2)
        main, reason = self.clause(subject), self._reason(pronoun_for(subject))
        german, english = self.rng.choice([("weil", "because")] * 2 + [("obwohl", "although;even though")])
        return (
            sentence(f"{main.german()}, {german} {reason.german_subordinate()}"),
            sentence(f"{main.english()} {self.rng.choice(english.split(';'))} {reason.english()}"),
        )

    def _reason(self, subject: Phrase) -> Clause:
        adjectives = [word for word in suitable_adjectives(_PERSON) if word.predicate not in ("klein", "groß")]
        return self.copula(subject, adjectives) if self.rng.random() < 0.4 else self.clause(subject)

    def _when(self) -> tuple[str, str]:
        subject = self.phrase(["adult", "family"], plural_chance=0.2)
        condition = self.clause(subject, tense=("present", "simple"))
        result = self.clause(pronoun_for(subject), tense=("present", self.rng.choice(["simple", "will"])))
        return (
            sentence(f"wenn {condition.german_subordinate()}, {result.german_question()}"),
            sentence(f"{self.rng.choice(['when', 'if'])} {condition.english()}, {result.english()}"),
        )

    def _description(self) -> tuple[str, str]:
        """A thing is bought or seen and then described: the German pronoun has the gender of the noun."""
        verb = self.rng.choice([verb for verb in VERBS if verb.infinitive in ("kaufen", "verkaufen", "finden")])
        subject = self.rng.choice([self.phrase(["human"]), ICH, WIR])
        bought = self.noun_phrase(self._noun(["thing"]), ["der", "ein", "dies"])
        main = self.clause(subject, verb, target=bought, negation=False)
        rest = self.copula(pronoun_for(bought), suitable_adjectives(bought.noun))
        german, english, last = self.rng.choice(
            [("aber", "but", False), ("denn", "because", False), ("weil", "because", True)]
        )
        description = rest.german_subordinate() if last else rest.german()
        return sentence(f"{main.german()}, {german} {description}"), sentence(
            f"{main.english()}{',' if english == 'but' else ''} {english} {rest.english()}"
        )

    def _relative(self) -> tuple[str, str]:
        """Der Mann, der das Buch liest, ist alt."""
        person = self.noun_phrase(self._noun(["adult", "family"]), ["der"], plural=self.rng.random() < 0.25)
        clause = self.clause(person, negation=False)
        pronoun = {"m": "der", "f": "die"}[person.noun.gender] if person.person == 2 else "die"
        whole = self.copula(person, suitable_adjectives(_PERSON))
        english = clause.english(subject=f"{person.subject} {self.rng.choice(['who', 'that'])}")
        german = f"{person.german['nom']}, {clause.german_subordinate(pronoun)}, {join(whole.finite, *whole.middle)}"
        return sentence(german), sentence(join(english, whole.auxiliary, whole.main))

    def _missing(self) -> tuple[str, str]:
        """Wo ist der Schlüssel? Ich finde ihn nicht."""
        plural = self.rng.random() < 0.2
        lost = self.noun_phrase(self._noun(["small"]), ["der", "mein", "dein", "unser"], plural)
        it = pronoun_for(lost)
        german, english = self.rng.choice(
            [("Ich finde {} nicht", "I can't find {};I cannot find {}"), ("Ich brauche {}", "I need {}"),
             ("Wir suchen {}", "We are looking for {}"), ("Ich habe {} verloren", "I have lost {};I lost {}"),
             ("Wir brauchen {} heute", "We need {} today"), ("Ich sehe {} nicht", "I can't see {};I don't see {}")]
        )  # fmt: skip
        english = self.rng.choice(english.split(";")).format(it.object)
        return (
            f"Wo {'sind' if plural else 'ist'} {lost.german['nom']}? {german.format(it.german['acc'])}.",
            f"Where {'are' if plural else 'is'} {lost.subject}? {english}.",
        )

    # Clauses

    def clause(
        self,
        subject: Phrase | None = None,
        verb: Verb | None = None,
        target: Phrase | None = None,
        tense: tuple[str, str] | None = None,
        negation: bool = True,
    ) -> Clause:
        """Make a clause; what is not given is chosen.

        Args:
            subject (`Phrase`, *optional*): A person.
            verb (`Verb`, *optional*): A verb that takes the subject.
            target (`Phrase`, *optional*): The object.
            tense (`tuple[str, str]`, *optional*): German and English tense; then there is no adverb of time.
            negation (`bool`, *optional*, defaults to `True`): Whether the clause may be negative.
        """
        verb = verb or self.rng.choice([verb for verb in VERBS if subject is None or "human" in verb.subjects])
        subject = subject or self._subject(verb)
        english_verb = self.rng.choice(verb.english)
        negated = negation and self.rng.random() < 0.18
        (german_tense, english_tense), time = (tense, None) if tense else self._tense(verb, subject, negated)
        german, rest, pronouns, english_subject = self._complements(verb, english_verb, subject, target, negated)
        finite, end, last = self._german_verb(verb, german_tense, subject.person)
        auxiliary, main, do_support = self._english_verb(
            english_verb, english_tense, (english_subject or subject).person, negated
        )
        clause = Clause(subject, finite, german, end, last, english_subject or subject, auxiliary, main, do_support,
                        rest, pronouns=pronouns)  # fmt: skip
        if time is None:
            return clause
        english_time = self.rng.choice(time.english)
        if time.before_verb:
            return replace(clause, time=(time.german, ""), adverb=english_time)
        return replace(clause, time=(time.german, english_time), can_front=time.can_front)

    def copula(self, subject: Phrase, adjectives: list[Adjective]) -> Clause:
        """Subject, be, adjective: er ist sehr alt."""
        adjective, past = self.rng.choice(adjectives), self.rng.random() < 0.25
        degrees = [("", ""), ("nicht", "not")]
        if adjective.predicate not in _COLOURS:
            degrees += [("", ""), ("sehr", "very"), ("zu", "too")]
        german, english = self.rng.choice(degrees)
        finite = (_WAR if past else _SEIN)[subject.person]
        predicate = join(german, adjective.predicate)
        main = join(english, self.rng.choice([word for word in adjective.english if word != "little"]))
        auxiliary = (_WAS if past else _BE)[subject.person]
        return Clause(subject, finite, (predicate,), (), finite, subject, auxiliary, main, ("", ""), "")

    def _tense(self, verb: Verb, subject: Phrase, negated: bool) -> tuple[tuple[str, str], Time | None]:
        """Choose a German tense, an English one that renders it, and an adverb of time that suits both."""
        rng = self.rng
        past = ("perfect", "past") if subject.person == 1 or rng.random() < 0.7 else ("past", "past")
        if verb.stative:
            time = rng.choice([time for time in TIMES if time.tenses == "t"])
            return rng.choice([(("present", "simple"), None), (past, None), (past, time)])
        if rng.random() < 0.2:
            time = rng.choice([None, None, *[time for time in TIMES if "f" in time.tenses]])
            modal = rng.choice(list(_MODALS))
            return (modal, modal), time
        if rng.random() < 0.45:
            present = ("present", rng.choice(["simple", "progressive"]))
            return rng.choice([present, present, ("perfect", rng.choice(["past", "perfect"])), past]), None
        time = rng.choice([time for time in TIMES if not negated or set("tf") & set(time.tenses)])
        if "n" in time.tenses:
            return ("present", "progressive"), time
        if "h" in time.tenses:
            return ("present", "simple"), time
        if "t" in time.tenses and ("f" not in time.tenses or rng.random() < 0.5):
            return past, time
        return (rng.choice(["present", "future"]), rng.choice(["will", "going"])), time

    def _german_verb(self, verb: Verb, tense: str, person: int) -> tuple[str, tuple[str, ...], str]:
        """Finite form, what closes a main clause, and the whole verb at the end of a subordinate clause."""
        whole = verb.prefix + verb.infinitive
        if tense in ("present", "past"):
            finite = (german_present if tense == "present" else german_past)(verb, person)
            return finite, (verb.prefix,), verb.prefix + finite
        if tense == "perfect":
            finite, end = (_SEIN if verb.auxiliary == "s" else _HABEN)[person], verb.participle
        else:
            finite, end = (_WERDEN if tense == "future" else _MODALS[tense])[person], whole
        return finite, (end,), f"{end} {finite}"

    def _english_verb(
        self, verb: EnglishVerb, tense: str, person: int, negated: bool
    ) -> tuple[str, str, tuple[str, str]]:
        """Auxiliary, the rest of the verb, and both as a question needs them."""
        base = verb.base
        if tense in _MODALS:
            tense = self.rng.choice({"must": ["must", "have"], "may": ["may", "allowed"]}.get(tense, [tense]))
            # "muss nicht" is no duty, "darf nicht" is a ban.
            tense = {"must": "have", "may": "must"}.get(tense, tense) if negated else tense
        auxiliary, main = {
            "simple": ("", english_present(base, person)),
            "past": ("", verb.past),
            "have": ("", f"{_HAVE[person]} to {base}"),
            "want": ("", f"{english_present('want', person)} to {base}"),
            "progressive": (_BE[person], english_ing(verb)),
            "perfect": (_HAVE[person], verb.participle),
            "going": (_BE[person], f"going to {base}"),
            "allowed": (_BE[person], f"allowed to {base}"),
        }.get(tense, (tense, base))
        infinitive = f"{tense} to {base}" if tense in ("have", "want") else base
        do_support = ("did" if tense == "past" else _DO[person], infinitive)
        if negated:
            auxiliary, main = (auxiliary, main) if auxiliary else do_support
            if auxiliary == "can" or (auxiliary not in ("am", "may", "must") and self.rng.random() < 0.5):
                auxiliary = {"can": "can't", "will": "won't"}.get(auxiliary, auxiliary + "n't")
            else:
                main = "not " + main
        return auxiliary, main, do_support

    def _complements(
        self, verb: Verb, english: EnglishVerb, subject: Phrase, target: Phrase | None, negated: bool
    ) -> tuple[tuple[str, ...], str, int, Phrase | None]:
        """German objects and place, the English ones, the number of German pronouns, the English subject if other."""
        no = ("nicht",) if negated else ()
        if verb.frame in ("acc", "dat", "prep", "please"):
            can_be_none = negated and verb.frame == "acc" and self.rng.random() < 0.6
            target = target or self.object(verb.objects, subject, ["kein"] if can_be_none else None, negated)
            case = verb.case or ("acc" if verb.frame == "acc" else "dat")
            german = target.german[case]
            if verb.frame == "please":
                return (german, *no), subject.object, int(target.noun is None), target
            if verb.preposition:
                return (*no, with_preposition(verb.preposition, german)), self._with(english, target), 0, None
            no = () if can_be_none else no
            return (german, *no), self._with(english, target), int(target.noun is None), None
        if verb.frame == "dat_acc":
            receiver = self.object(["human"], subject)
            gift = self.object(verb.objects, subject, ["kein"] if negated else None)
            rest = self.rng.choice([f"{receiver.object} {gift.object}", f"{gift.object} to {receiver.object}"])
            return (receiver.german["dat"], gift.german["acc"]), rest, int(receiver.noun is None), None
        german_place, english_place = self._place(verb)
        place = join(english.particle, english_place)
        if verb.frame == "put":
            moved = self.object(verb.objects, subject, ["der", "mein", "ein"] if not negated else ["der", "mein"])
            return (moved.german["acc"], *no, german_place), join(moved.object, place), 0, None
        return (*no, german_place), place, 0, None

    def _with(self, verb: EnglishVerb, target: Phrase) -> str:
        """An English object behind or inside its verb: picks up the man, picks him up, looks for him."""
        if verb.preposition:
            return join(verb.particle, verb.preposition, target.object)
        if verb.particle and (target.noun is None or self.rng.random() < 0.5):
            return join(target.object, verb.particle)
        return join(verb.particle, target.object)

    def _place(self, verb: Verb) -> tuple[str, str]:
        """A prepositional phrase: the dative says where, the accusative says where to."""
        if verb.frame in ("put", "lie"):
            preposition, english, kind = self.rng.choice(PLACES)
            row = (preposition, "acc" if verb.frame == "put" else "dat", english, kind)
        elif verb.frame == "in":
            row = ("in", "dat", ("in",), "settlement")
        elif verb.frame == "toward":
            row = self.rng.choice(DIRECTIONS)
        else:
            row = self.rng.choice(LOCATIONS + SEATS * (verb.infinitive in ("sitzen", "schlafen")))
        german, case, english, kind = row
        phrase = self.noun_phrase(self._noun([kind]), ["der", "der", "der", "ein", "dies"])
        return with_preposition(german, phrase.german[case]), f"{self.rng.choice(english)} {phrase.object}"

    # Phrases

    def _noun(self, kinds: list[str] | tuple[str, ...]) -> Noun:
        return self.rng.choice(_nouns(tuple(kinds)))

    def noun_phrase(self, noun: Noun, determiners: list[str], plural: bool = False) -> Phrase:
        """Decline a noun with one of the determiners and, sometimes, an adjective."""
        if noun.german in _NOT_OWNED:
            determiners = [word for word in determiners if word not in ("mein", "dein", "unser")]
        adjectives = suitable_adjectives(noun)
        adjective = self.rng.choice(adjectives) if adjectives and self.rng.random() < 0.35 else None
        return noun_phrase(self.rng, noun, self.rng.choice(determiners), plural, adjective)

    def phrase(self, kinds: list[str] | tuple[str, ...], plural_chance: float = 0.25) -> Phrase:
        """A noun phrase of a noun of one of the kinds."""
        noun, plural = self._noun(kinds), self.rng.random() < plural_chance
        if "family" in noun.kinds:
            return self.noun_phrase(noun, ["mein", "dein", "unser"], plural)
        determiners = ["der", "der", "der", "ein", "dies", "mein", "unser"]
        return self.noun_phrase(noun, determiners + ["zwei", "drei"] * plural, plural)

    def _subject(self, verb: Verb) -> Phrase:
        if "human" in verb.subjects and self.rng.random() < 0.35:
            return self.rng.choice(PERSONAL)
        if verb.frame in ("please", "lie") or "thing" in verb.subjects:
            plural = self.rng.random() < 0.25
            return self.noun_phrase(self._noun(sorted(verb.subjects)), ["der", "dies", "mein"], plural)
        return self.phrase(sorted(verb.subjects))

    def object(
        self,
        kinds: list[str] | tuple[str, ...],
        subject: Phrase,
        determiners: list[str] | None = None,
        negated: bool = False,
    ) -> Phrase:
        """An object: a pronoun of another person than the subject's, or a noun phrase (definite in a negation)."""
        if determiners is None and "human" in kinds and self.rng.random() < 0.2:
            return self.rng.choice([word for word in PERSONAL if word not in _SAME_PERSON.get(subject, ())])
        if determiners or negated:
            plural = self.rng.random() < 0.25
            return self.noun_phrase(self._noun(kinds), determiners or ["der", "dies", "mein"], plural)
        return self.phrase(kinds)
