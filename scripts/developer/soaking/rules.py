"""What the list of a store's edits may become, by what was asked of it and what was acknowledged."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field


_ID = re.compile(r"\d{4,}-[0-9a-f]{8}")


class Violation(Exception):
    """Something that must hold does not."""


@dataclass(frozen=True)
class Edit:
    """
    An edit as `store.json` lists it.

    Args:
        id (`str`): its id.
        corrections (`tuple[tuple[str, str], ...]`): its sources and targets.
        decoded (`bool`, *optional*): whether the model said the targets right after it.
        revision (`int`): how often it was made anew.
    """

    id: str
    corrections: tuple[tuple[str, str], ...]
    decoded: bool | None
    revision: int

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.id}.{self.revision}" if self.revision else self.id


@dataclass
class Attempt:
    """
    What one process was asked to change, and what it said of it.

    Args:
        asked (`tuple`):
            The corrections of each edit that it may have added, in their order. An edit may have some of them only.
        added (`Sequence[str]`): ids of edits that it acknowledged to have added.
        acknowledged (`int`): how many edits it acknowledged to have added, with or without their ids.
        removed (`frozenset[str]`): ids of edits that it acknowledged to have taken back.
        removing (`frozenset[str]`): ids of edits that it may have taken back.
        unfinished (`bool`): whether it may have done more than it acknowledged, as it was cut off.
    """

    asked: tuple[tuple[tuple[str, str], ...], ...] = ()
    added: Sequence[str] = ()
    acknowledged: int = 0
    removed: frozenset[str] = frozenset()
    removing: frozenset[str] = frozenset()
    unfinished: bool = False


@dataclass
class Ledger:
    """
    The edits that a store has to have.

    Args:
        edits (`list[Edit]`): them, in their order.
        highest (`int`): the highest number of an id that the store ever gave.
    """

    edits: list[Edit] = field(default_factory=list)
    highest: int = 0

    def settle(self, now: list[Edit], attempts: Sequence[Attempt]) -> None:
        """
        Take in what a store lists after some attempts, which may have run at the same time.

        Raises:
            Violation: if they cannot have led there.
        """
        before = {edit.id: edit for edit in self.edits}
        kept, new = [edit for edit in now if edit.id in before], [edit for edit in now if edit.id not in before]
        self._check_kept(now, kept, attempts)
        numbers = [_number(edit.id) for edit in new]
        if numbers != sorted(set(numbers)) or (numbers and numbers[0] <= self.highest):
            raise Violation(
                f"new ids {[edit.id for edit in new]} after number {self.highest}: not new, or not in order"
            )
        self._check_new(new, attempts)
        taken_back = any(each.removed or each.unfinished and each.removing for each in attempts)
        for edit in kept:
            if edit != before[edit.id] and not (taken_back and edit.revision > before[edit.id].revision):
                raise Violation(f"the edit {before[edit.id]} became {edit}")
        told = [_number(id) for each in attempts for id in each.added]
        self.edits, self.highest = now, max([self.highest, *numbers, *told])

    def _check_kept(self, now: list[Edit], kept: list[Edit], attempts: Sequence[Attempt]) -> None:
        """Nothing is gone that nobody took back, nothing is there that was, and the order is the same."""
        gone = {id for each in attempts for id in each.removed}
        may_go = gone | {id for each in attempts if each.unfinished for id in each.removing}
        here = {edit.id for edit in now}
        if lost := [edit.id for edit in self.edits if edit.id not in here | may_go]:
            raise Violation(f"the edits {lost} are lost; nobody took them back")
        if back := sorted(gone & here):
            raise Violation(f"the edits {back} are there, and taking them back was acknowledged")
        order = [edit.id for edit in self.edits if edit.id in here]
        if now[: len(kept)] != kept or [edit.id for edit in kept] != order:
            raise Violation(f"the edits {order} are now in the order {[edit.id for edit in now]}")

    def _check_new(self, new: list[Edit], attempts: Sequence[Attempt]) -> None:
        """Each new edit was asked for, once, and all that were acknowledged are there."""
        left = list(new)
        gone = {id for each in attempts for id in (*each.removed, *(each.removing if each.unfinished else ()))}
        for each in attempts:
            if missing := set(each.added) - {edit.id for edit in new} - gone:
                raise Violation(f"the edits {sorted(missing)} are lost; adding them was acknowledged")
            made = 0
            for asked in each.asked:
                found = next((edit for edit in left if set(edit.corrections) <= set(asked)), None)
                if found and (made < each.acknowledged or each.unfinished):
                    left.remove(found)
                    made += 1
            if made < each.acknowledged - len(set(each.added) & gone):
                raise Violation(f"{each.acknowledged} edits were acknowledged, and {made} of {each.asked} are there")
        if left:
            raise Violation(f"nobody acknowledged or was cut off at the edits {left}")


def _number(id: str) -> int:
    if not _ID.fullmatch(id):
        raise Violation(f"{id!r} is no id of an edit")
    return int(id.split("-")[0])
