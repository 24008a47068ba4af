"""Whether each edit of a store was made from those before it, and whether all that a store has is whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...errors import EditableFileError, EditableValueError, StaleEditError
from ...patches.changes import Whole
from ...patches.files import changed_kinds, described
from ...patches.patch import EditPatch
from .contents import Contents
from .manifest import StoredEdit
from .state import State


_BROKEN = "It is not made from the edits before it."


@dataclass(frozen=True)
class StoreProblem:
    """
    Something that is wrong with a store.

    Args:
        edit (`str`, *optional*): the id of the edit that it is about; `None` for the base model's tensors.
        problem (`str`): what it is.
    """

    edit: str | None
    problem: str


class _Values:
    """The tensors with so many edits, read one edit after the other."""

    def __init__(self, contents: Contents):
        self._contents, self._count = contents, 0
        self._state: State | None = None

    def at(self, count: int) -> dict[str, Tensor]:
        """Those with the first `count` edits."""
        if self._state is None:
            self._state = State(self._contents.base())
        for edit in self._contents.manifest.edits[self._count : count]:
            self._state = self._state.after(self._contents.patch(edit).changes)
            self._count += 1
        return self._state.tensors


def broken_links(contents: Contents) -> Iterator[StoreProblem]:
    """
    The edits that were not made from those that the list has before them, as after a merge that keeps both sides.

    Where edits hold all tensors that edits of the store may change, as most do, what their `edit_config.json` say is
    enough: one has the fingerprint of the values that the next was made from. Before other edits, the tensors are put
    together from the patches, and hashed.
    """
    # The fingerprint of all tensors before an edit, where one file tells it.
    known = described(contents.folder(None)).get("edited_fingerprint")
    values, unread = _Values(contents), not isinstance(known, str)
    for place, edit in enumerate(contents.manifest.edits):
        says = described(contents.folder(edit))
        whole = _holds_all(says, contents.manifest.tensors)
        try:
            if whole and isinstance(known, str):
                if says.get("base_fingerprint") != known:
                    yield StoreProblem(edit.id, _BROKEN)
            elif not unread:
                try:
                    contents.check_patch(contents.patch(edit), values.at(place))
                except StaleEditError:
                    yield StoreProblem(edit.id, _BROKEN)
        except (EditableFileError, EditableValueError) as error:
            yield StoreProblem(edit.id, str(error))
            # What comes after it is not known, until an edit holds all tensors again.
            unread = True
        known = says.get("edited_fingerprint") if whole else None


def _holds_all(says: dict[str, Any], tensors: list[str]) -> bool:
    """Whether an edit holds new values of all tensors, by its `edit_config.json`."""
    kinds, names = changed_kinds(says), says.get("edited_tensors")
    return bool(kinds) and all(kind == Whole.kind for kind in kinds) and names == sorted(tensors)


def problems(contents: Contents) -> list[StoreProblem]:
    """All that is wrong with a store; every file of it is read."""
    found, places = [], {edit.id: place for place, edit in enumerate(contents.manifest.edits)}
    for edit in (None, *contents.manifest.edits):
        try:
            contents.look_at(edit)
            if edit is None:
                contents.base()
            else:
                found += [StoreProblem(edit.id, each) for each in _mismatches(edit, contents.patch(edit))]
                contents.impact(edit)
        except EditableFileError as error:
            found.append(StoreProblem(edit and edit.id, str(error)))
    found += broken_links(contents)
    return sorted(dict.fromkeys(found), key=lambda problem: places.get(problem.edit, -1))


def _mismatches(edit: StoredEdit, patch: EditPatch) -> Iterator[str]:
    """Where a patch is another than the list says."""
    if edit.revision == 0 and not edit.id.endswith(f"-{patch.fingerprint()[:8]}"):
        yield f"Its patch is another one, with fingerprint {patch.fingerprint()}."
    named = (patch.source, patch.target)
    if None not in named and named not in [(each.source, each.target) for each in edit.corrections]:
        yield f"Its patch corrects {patch.source!r} to {patch.target!r}, and the list says otherwise."
