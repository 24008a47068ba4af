"""Which corrections of a list can be applied."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers.utils import ExplicitEnum

from ...errors import EditableValueError
from ..corrections.correction_list import Conflict, Correction, find_conflicts, source_key
from .report import Outcome


if TYPE_CHECKING:
    from ...correction.translation_editor import TranslationEditor


class ConflictPolicy(ExplicitEnum):
    """What is done with a source that has two targets: apply `first`, `last` or none (`skip`), or raise (`error`)."""

    SKIP = "skip"
    FIRST = "first"
    LAST = "last"
    ERROR = "error"


@dataclass(frozen=True)
class PlannedCorrection:
    """
    A correction, and whether it is to be applied.

    Args:
        index (`int`): its place in the list, from 0.
        correction ([`Correction`]): the correction.
        outcome ([`Outcome`], *optional*): what became of it before any edit; `None` if it is to be applied.
        reason (`str`, *optional*): why.
    """

    index: int
    correction: Correction
    outcome: Outcome | None = None
    reason: str | None = None

    def row(self, outcome: Outcome, reasons: Iterable[str] = (), **measured: Any) -> dict[str, Any]:
        """What the report says of it."""
        return {
            "index": self.index,
            **dataclasses.asdict(self.correction),
            "outcome": outcome.value,
            "reasons": list(reasons),
            **measured,
        }


def plan_corrections(
    editor: "TranslationEditor",
    corrections: Sequence[Correction],
    on_conflict: ConflictPolicy | str = ConflictPolicy.SKIP,
) -> list[PlannedCorrection]:
    """
    Which corrections can be applied: duplicates, conflicts and rows without a source or target are sorted out.

    Args:
        editor ([`TranslationEditor`]): by its tokenizer, sources count as one or as two.
        corrections (`Sequence[Correction]`): what is asked for.
        on_conflict (`str`, *optional*, defaults to `"skip"`): see [`ConflictPolicy`].

    Returns:
        `list[PlannedCorrection]`: one a correction, in their order. Targets are spaced as the tokenizer spaces them.

    Raises:
        EditableValueError: if there is a conflict and `on_conflict` is `"error"`, or it is no policy.
    """
    policies = [each.value for each in ConflictPolicy]
    if on_conflict not in policies:
        raise EditableValueError(f"on_conflict={on_conflict!r}: give one of {policies}.")
    policy = ConflictPolicy(on_conflict)
    corrections = [_as_written(editor, each) for each in corrections]
    whole = [each for each in corrections if each.source and each.target]
    conflicts = find_conflicts(whole, editor.tokenizer)
    if conflicts and policy is ConflictPolicy.ERROR:
        raise EditableValueError(
            f"{len(conflicts)} sources have more than one target: {'; '.join(map(str, conflicts[:5]))}. Keep one of "
            "each, or give on_conflict='first', 'last' or 'skip'."
        )
    in_conflict = {source_key(each.source, editor.tokenizer): each for each in conflicts}
    seen: dict[Any, PlannedCorrection] = {}
    planned = []
    for index, correction in enumerate(corrections):
        if not correction.source or not correction.target:
            missing = "source" if not correction.source else "target"
            planned.append(PlannedCorrection(index, correction, Outcome.INCOMPLETE, f"It has no {missing}."))
            continue
        key = source_key(correction.source, editor.tokenizer)
        conflict = in_conflict.get(key)
        entry = PlannedCorrection(index, correction)
        if conflict is not None and correction.target != _chosen(conflict, policy):
            entry = dataclasses.replace(entry, outcome=Outcome.CONFLICT, reason=f"{conflict}.")
        elif (earlier := seen.get((key, correction.target))) is not None:
            where = earlier.correction.place or f"row {earlier.index + 1}"
            entry = dataclasses.replace(entry, outcome=Outcome.DUPLICATE, reason=f"The same as {where}.")
        seen.setdefault((key, correction.target), entry)
        planned.append(entry)
    return planned


def _chosen(conflict: Conflict, policy: ConflictPolicy) -> str | None:
    """The target that is applied."""
    place = {ConflictPolicy.FIRST: 0, ConflictPolicy.LAST: -1}.get(policy)
    return None if place is None else conflict.corrections[place].target


def _as_written(editor: "TranslationEditor", correction: Correction) -> Correction:
    """The correction with its target spaced as the model would; one that it cannot say is left, for the editor."""
    try:
        return dataclasses.replace(correction, target=editor.written(correction.target, correction.source))
    except EditableValueError:
        return correction
