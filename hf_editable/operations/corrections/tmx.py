"""Translation memories in TMX 1.4b, read without anything from outside the file."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from transformers.utils import logging

from ...errors import EditableFileError, EditableValueError
from ...runs.reading import read_bytes


logger = logging.get_logger(__name__)

ANY_LANGUAGE = "*all*"
# Their text is of the document's format, not of its language, and what <sub> has in it stands elsewhere.
_CODES = {"bpt", "ept", "it", "ph", "ut", "sub"}
# What files of corrections may come to: bytes, rows; in XML, elements within each other, characters of attributes.
MOST_BYTES, MOST_ROWS = 128 * 2**20, 100_000
_DEEPEST = 64
_LONGEST_ATTRIBUTE = 100_000
_VERSIONS = ("1.1", "1.2", "1.3", "1.4", "1.4b")


@dataclass
class TranslationUnit:
    """
    One `<tu>` of a translation memory.

    Args:
        number (`int`): its place among the units of the file, from 1.
        line (`int`): line of the file that it begins in, from 1.
        source_language (`str`, *optional*): its `srclang`, or that of the header.
        identifier (`str`, *optional*): its `tuid`.
        note (`str`, *optional*): its notes.
        variants (`list[tuple[str, str]]`): languages and texts.
    """

    number: int
    line: int
    source_language: str | None
    identifier: str | None = None
    note: str | None = None
    variants: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"line {self.line} (unit {self.number})"


def read_tmx(
    path: str | os.PathLike, source_lang: str | None = None, target_lang: str | None = None
) -> list[tuple[TranslationUnit, str, str]]:
    """
    The pairs of two languages in a translation memory (TMX 1.4b; 1.1 to 1.3 differ in nothing that is read here).

    A language is met by tags that are equal to it or go on from it, as `de` by `de-AT` (RFC 4647, basic filtering),
    and an equal one comes first. Units without one of the languages are left out. Text in `<hi>` belongs to the
    sentence; that in `<bpt>`, `<ept>`, `<it>`, `<ph>`, `<ut>` and `<sub>` does not.

    Args:
        path (`str`): the file.
        source_lang (`str`, *optional*): the language to translate from; `None` takes each unit's `srclang`.
        target_lang (`str`, *optional*): the language to translate to; `None` takes the only other one.

    Returns:
        `list[tuple[TranslationUnit, str, str]]`: units, their source and their target.

    Raises:
        EditableFileError: if the file is missing, is not well-formed XML or no TMX, or declares entities.
        EditableValueError:
            if no unit has both languages, a unit has one of them more than once, or a unit's `srclang` is another
            language than `source_lang`.
    """
    units = _Parser(path).units
    pairs = []
    for unit in units:
        source = _source(path, unit, source_lang)
        target = _target(path, unit, source, target_lang)
        if source is not None and target is not None:
            pairs.append((unit, unit.variants[source][1], unit.variants[target][1]))
    if units and not pairs:
        found = sorted({language for unit in units for language, _ in unit.variants})
        raise EditableValueError(
            f"{os.fspath(path)!r} has no unit in both {source_lang or 'its source language'!r} and "
            f"{target_lang or 'another language'!r}; its languages are {found}. Give two of these as source_lang and "
            "target_lang."
        )
    if left_out := len(units) - len(pairs):
        logger.warning(f"{os.fspath(path)!r}: {left_out} of {len(units)} units lack one of the languages.")
    return pairs


def _source(path: str | os.PathLike, unit: TranslationUnit, wanted: str | None) -> int | None:
    declared = unit.source_language
    free = declared is None or declared.lower() == ANY_LANGUAGE
    if wanted is None:
        if free:
            raise EditableValueError(
                f"{os.fspath(path)!r}, {unit}: its srclang is {declared!r}, so any language can be the source. Give "
                "source_lang."
            )
        return _variant(path, unit, declared, "source_lang")
    index = _variant(path, unit, wanted, "source_lang")
    if index is None or free or _matches(declared, wanted) or _matches(wanted, declared):
        return index
    raise EditableValueError(
        f"{os.fspath(path)!r}, {unit}: it was translated from {declared!r} (srclang), not from {wanted!r}. Give "
        f"source_lang={declared!r}, or, where every language of the file may be the source, set srclang to "
        f"{ANY_LANGUAGE!r} in it."
    )


def _target(path: str | os.PathLike, unit: TranslationUnit, source: int | None, wanted: str | None) -> int | None:
    if wanted is not None:
        index = _variant(path, unit, wanted, "target_lang")
        if index is not None and index == source:
            raise EditableValueError(
                f"{os.fspath(path)!r}, {unit}: {unit.variants[index][0]!r} is both source_lang and target_lang="
                f"{wanted!r}. Give two languages."
            )
        return index
    others = [index for index in range(len(unit.variants)) if index != source]
    if source is not None and len(others) > 1:
        raise EditableValueError(
            f"{os.fspath(path)!r}, {unit}: its other languages are {[unit.variants[index][0] for index in others]}. "
            "Give target_lang."
        )
    return others[0] if others else None


def _variant(path: str | os.PathLike, unit: TranslationUnit, wanted: str, option: str) -> int | None:
    """The place of a language among the variants of a unit."""
    tags = [language for language, _ in unit.variants]
    exact = [index for index, tag in enumerate(tags) if _normalize(tag) == _normalize(wanted)]
    found = exact or [index for index, tag in enumerate(tags) if _matches(wanted, tag)]
    if len(found) > 1:
        remedy = "Keep one of them in the file." if exact else f"Give one of them as {option}."
        raise EditableValueError(
            f"{os.fspath(path)!r}, {unit}: {option}={wanted!r} is met by {[tags[index] for index in found]}. {remedy}"
        )
    return found[0] if found else None


def _matches(language_range: str, tag: str) -> bool:
    return f"{_normalize(tag)}-".startswith(f"{_normalize(language_range)}-")


def _normalize(tag: str) -> str:
    return tag.lower().replace("_", "-")


class _Parser:
    """Units of a file, from the events of expat."""

    def __init__(self, path: str | os.PathLike):
        self.units: list[TranslationUnit] = []
        self._name = os.fspath(path)
        self._source_language: str | None = None
        self._open: list[str] = []
        self._language: str | None = None
        self._text: list[str] | None = None
        self._codes = 0
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.EntityDeclHandler = self._refuse_declaration
        self._parser.SkippedEntityHandler = self._refuse_entity
        if not Path(path).is_file():
            raise EditableFileError(f"No such file: {self._name!r}. Give a translation memory (.tmx).")
        try:
            # All at once: expat begins anew with a long token whenever there is more of the file.
            self._parser.Parse(read_bytes(path, MOST_BYTES), True)
        except (expat.ExpatError, LookupError, ValueError) as error:
            if isinstance(error, EditableValueError):
                raise
            raise self._damaged(f"is not well-formed XML ({error})", "Export it again.") from error

    def _damaged(self, what: str, remedy: str) -> EditableFileError:
        return EditableFileError(f"{self._name!r}, line {self._parser.CurrentLineNumber}: {what}. {remedy}")

    def _refuse_declaration(self, name: str, *_: object) -> None:
        raise self._damaged(f"it declares the entity {name!r}, which TMX does not allow", "Write the text itself.")

    def _refuse_entity(self, name: str, is_parameter: bool) -> None:
        if not is_parameter:
            raise self._damaged(f"&{name}; is not defined in TMX", "Write the character itself.")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        inside = self._open[-1] if self._open else None
        if len(self._open) == _DEEPEST:
            raise self._damaged(f"more than {_DEEPEST} elements stand within each other", "Export it again.")
        if any(len(text) > _LONGEST_ATTRIBUTE for text in attributes.values()):
            raise self._damaged(f"an attribute of <{name:.40}> is longer than {_LONGEST_ATTRIBUTE:,}", "Shorten it.")
        if inside is None:
            self._check_root(name, attributes)
        elif "seg" in self._open:
            if name not in _CODES and name != "hi":
                raise self._damaged(f"<seg> has <{name}> in it, which TMX does not have there", "Take it out.")
            self._codes += name in _CODES
        elif name == "header":
            self._source_language = attributes.get("srclang")
        elif (inside, name) == ("body", "tu"):
            if len(self.units) == MOST_ROWS:
                raise self._damaged(f"it has more than {MOST_ROWS:,} units", "Split it.")
            line, language = self._parser.CurrentLineNumber, attributes.get("srclang", self._source_language)
            self.units.append(TranslationUnit(len(self.units) + 1, line, language, attributes.get("tuid")))
        elif (inside, name) == ("tu", "tuv"):
            # `lang` is what the versions before 1.4 had.
            self._language = attributes.get("xml:lang", attributes.get("lang"))
            if not self._language:
                raise self._damaged("<tuv> has no xml:lang", "Name its language.")
        elif (inside, name) in (("tuv", "seg"), ("tu", "note")):
            self._text = []
        self._open.append(name)

    def _check_root(self, name: str, attributes: dict[str, str]) -> None:
        if name != "tmx":
            raise self._damaged(f"<{name}> is the root, not <tmx>", "Give a translation memory.")
        version = attributes.get("version")
        if version not in _VERSIONS:
            raise self._damaged(f"its version is {version!r}", f"Export it as one of {', '.join(_VERSIONS)}.")

    def _end(self, name: str) -> None:
        self._open.pop()
        if "seg" in self._open:
            self._codes -= name in _CODES
        elif self._text is not None and name in ("seg", "note"):
            text, self._text = "".join(self._text), None
            unit = self.units[-1]
            if name == "seg":
                unit.variants.append((self._language, text))
            else:
                unit.note = text if unit.note is None else f"{unit.note}\n{text}"

    def _characters(self, text: str) -> None:
        if self._text is not None and not self._codes:
            self._text.append(text)
