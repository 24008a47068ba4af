"""What is to be corrected, and where corrections contradict each other."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from ...checks import check_text


@dataclass(frozen=True)
class Correction:
    """
    A sentence, and the translation that it should have.

    Args:
        source (`str`): the sentence.
        target (`str`): the translation.
        id (`str`, *optional*): what the file that it is from calls it.
        note (`str`, *optional*): what somebody wrote about it.
        place (`str`, *optional*): where in the file it stands. It does not count when corrections are compared.
    """

    source: str
    target: str
    id: str | None = None
    note: str | None = None
    place: str | None = field(default=None, compare=False)

    def __post_init__(self):
        check_text("source", self.source)
        check_text("target", self.target)


@dataclass(frozen=True)
class Conflict:
    """
    Corrections of one source to different targets, of which only one can hold.

    Args:
        source (`str`): the source.
        corrections (`tuple[Correction, ...]`): all corrections of it, in their order.
    """

    source: str
    corrections: tuple[Correction, ...]

    def __str__(self) -> str:
        first = {each.target: each for each in reversed(self.corrections)}
        said = [
            f"{target!r} ({first[target].place})" if first[target].place else repr(target)
            for target in dict.fromkeys(each.target for each in self.corrections)
        ]
        return f"{self.source!r} is corrected to {' and to '.join(said)}"


def find_conflicts(
    corrections: Sequence[Correction], tokenizer: PreTrainedTokenizerBase | None = None
) -> list[Conflict]:
    """
    The sources that are to be translated in more than one way.

    Args:
        corrections (`Sequence[Correction]`): what is asked for.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`], *optional*):
            With it, sources that become the same tokens count as one: no model can tell them apart.

    Returns:
        `list[Conflict]`: in the order of the first correction of each source.
    """
    by_source: dict[Any, list[Correction]] = {}
    for correction in corrections:
        by_source.setdefault(source_key(correction.source, tokenizer), []).append(correction)
    return [
        Conflict(group[0].source, tuple(group))
        for group in by_source.values()
        if len({correction.target for correction in group}) > 1
    ]


def source_key(source: str, tokenizer: PreTrainedTokenizerBase | None = None) -> str | tuple[int, ...]:
    """What two sources have in common that are one to a model: their tokens, or without a tokenizer their text."""
    return source if tokenizer is None else tuple(tokenizer(source, verbose=False).input_ids)
