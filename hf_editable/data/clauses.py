"""Clauses of the built-in grammar, and their word orders in German and English."""

from dataclasses import dataclass

from .phrases import Phrase


def join(*parts: str) -> str:
    """Join the words that are there by spaces."""
    return " ".join(part for part in parts if part)


def sentence(text: str, mark: str = ".") -> str:
    """Capitalise a text and close it."""
    return text[0].upper() + text[1:] + mark


@dataclass(frozen=True)
class Clause:
    """A clause in both languages, before its word order is chosen.

    Args:
        subject (`Phrase`): The German subject.
        finite (`str`): The German finite verb, as it stands in a main clause.
        middle (`tuple[str, ...]`): Objects, `nicht` and place.
        end (`tuple[str, ...]`): What closes a main clause: a separable prefix, a participle or an infinitive.
        last (`str`): What closes a subordinate clause: all of the verb.
        english_subject (`Phrase`): The English subject.
        auxiliary (`str`): The English auxiliary, empty if there is none.
        main (`str`): The rest of the English verb.
        do_support (`tuple[str, str]`): Auxiliary and verb of an English question if `auxiliary` is empty.
        rest (`str`): English objects and place.
        time (`tuple[str, str]`, *optional*): The adverb of time in German and English.
        can_front (`bool`): Whether the German adverb may open the sentence.
        adverb (`str`): English adverb before the verb (often).
        pronouns (`int`): How many parts of `middle` are pronouns, which come before the adverb.
    """

    subject: Phrase
    finite: str
    middle: tuple[str, ...]
    end: tuple[str, ...]
    last: str
    english_subject: Phrase
    auxiliary: str
    main: str
    do_support: tuple[str, str]
    rest: str
    time: tuple[str, str] = ("", "")
    can_front: bool = False
    adverb: str = ""
    pronouns: int = 0

    @property
    def german_middle(self) -> list[str]:
        """Pronouns, adverb of time, other objects, `nicht`, place."""
        return [*self.middle[: self.pronouns], self.time[0], *self.middle[self.pronouns :]]

    def german(self, fronted: bool = False) -> str:
        """Verb second: subject or adverb, finite verb, the rest."""
        subject = self.subject.german["nom"]
        if fronted:
            return join(self.time[0], self.finite, subject, *self.middle, *self.end)
        return join(subject, self.finite, *self.german_middle, *self.end)

    def german_question(self) -> str:
        """Verb first; also what follows a question word or a fronted clause."""
        return join(self.finite, self.subject.german["nom"], *self.german_middle, *self.end)

    def german_subordinate(self, subject: str | None = None) -> str:
        """Verb last. `subject` takes the place of the subject, as a relative pronoun does."""
        return join(subject or self.subject.german["nom"], *self.german_middle, self.last)

    def english(self, fronted: bool = False, subject: str | None = None) -> str:
        """Subject, verb, objects, place and time; `fronted` puts the time first."""
        before, after = (self.time[1] + ",", "") if fronted and self.time[1] else ("", self.time[1])
        verb = join(self.auxiliary, self.adverb, self.main)
        return join(before, subject or self.english_subject.subject, verb, self.rest, after)

    def english_question(self) -> str:
        """Auxiliary, subject, verb, the rest."""
        auxiliary, main = (self.auxiliary, self.main) if self.auxiliary else self.do_support
        return join(auxiliary, self.english_subject.subject, self.adverb, main, self.rest, self.time[1])
