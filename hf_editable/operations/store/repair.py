"""Mending a store whose edits do not continue each other, as after a git merge: they are made anew, one by one."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...correction.translation_editor import TranslationEditor
from ...errors import EditableFileError, EditableValueError, EditRefusedError
from ...measures.base import says
from ...models.weights import model_weights
from ...patches.application import applied, changed
from ...runs.fingerprints import fingerprint
from ..corrections.correction_list import Correction
from .access import StoreAccess
from .chain import StoreProblem, problems
from .contents import Contents
from .files import clear
from .manifest import Manifest, StoredEdit, corrections_of
from .redo import UNCHANGED, redo_edits
from .state import State


@dataclass(frozen=True)
class RepairResult:
    """
    What repairing a store came to.

    Args:
        problems (`list[StoreProblem]`): what was wrong; empty if nothing was, and then nothing is done.
        redone (`list[StoredEdit]`): the edits that were made anew: the first one that was wrong, and all after it.
        lost (`list[Correction]`): corrections of the store that the model does not say now, although their edits had
            been said; empty, unless `allow_lost`.
    """

    problems: list[StoreProblem]
    redone: list[StoredEdit]
    lost: list[Correction]


def repair_store(
    path: str | os.PathLike,
    editor: TranslationEditor,
    *,
    allow_lost: bool = False,
    lock_timeout: float = 10.0,
) -> RepairResult:
    """
    Make the edits of a store anew, in the order of its list, from the first one on that is damaged or was not made
    from those before it. `store.json` says what they correct, so their own files are not needed; the base model's
    tensors are taken from the model. All of them succeed, or the store stays as it was: what they are now replaces
    what they were in one step, at the end.

    Args:
        path (`str`): the store.
        editor ([`TranslationEditor`]):
            makes the edits, each as its family of editors does. Its model is the base, and stays so.
        allow_lost (`bool`, *optional*, defaults to `False`):
            Whether corrections may be lost that were said; they are named in the result.
        lock_timeout (`float`, *optional*, defaults to `10.0`): see [`EditStore.open`].

    Raises:
        EditableValueError: if the model is not the store's base, or an edit cannot be made anew.
        EditRefusedError: if an edit comes out worse than it was, or a correction is lost.
        EditableFileError: if `store.json` itself is damaged, or another process is writing.
    """
    access = StoreAccess(Path(path), lock_timeout)
    with access.writing(damaged=True) as contents:
        manifest, found = contents.manifest, problems(contents)
        if not found:
            return RepairResult([], [], [])
        base = _base_tensors(editor, manifest, access.path)
        wrong = {problem.edit for problem in found}
        places = [place for place, edit in enumerate(manifest.edits) if edit.id in wrong]
        first = min(places, default=len(manifest.edits))
        kept = manifest.edits[:first]
        before = State(base)
        for edit in kept:
            before = before.after(contents.patch(edit).changes)
        redone, after = redo_edits(editor, manifest.edits[first:], kept, before, access.save, allow_lost)
        lost = _lost(editor, manifest.edits, after)
        if lost and not allow_lost:
            named = "; ".join(f"{each.source!r} → {each.target!r}" for each in lost)
            raise EditRefusedError(
                f"With all edits made anew, the model does not say {len(lost)} corrections: {named}. {UNCHANGED} Give "
                "allow_lost=True to accept that."
            )
        if not _has_base(contents, base):
            access.save_base(base)
        changed_list = dataclasses.replace(manifest, edits=(*kept, *redone))
        changed_list.write(access.path)
        clear(access.path, {edit.folder for edit in changed_list.edits})
    return RepairResult(found, redone, lost)


def _base_tensors(editor: TranslationEditor, manifest: Manifest, path: Path) -> dict[str, Tensor]:
    """The base model's values of the tensors that edits may change; raises where the model is another."""
    if present := applied(editor.model):
        raise EditableValueError(
            f"{len(present)} patches are applied to the model. A store is repaired with the base model: revert "
            "them first."
        )
    weights = model_weights(editor.model)
    found = fingerprint(weights)
    if found != manifest.base_fingerprint or not set(manifest.tensors) <= weights.keys():
        raise EditableValueError(
            f"The store {str(path)!r} is of a base model with fingerprint {manifest.base_fingerprint}, and this "
            f"{type(editor.model).__name__} has {found}. Load {manifest.base_model or 'that model'}."
        )
    return {name: weights[name].detach().cpu() for name in manifest.tensors}


def _has_base(contents: Contents, base: Mapping[str, Tensor]) -> bool:
    try:
        return fingerprint(contents.base()) == fingerprint(base)
    except EditableFileError:
        return False


def _lost(editor: TranslationEditor, edits: Sequence[StoredEdit], after: State) -> list[Correction]:
    """The corrections that were said when their edits were made, and not with all edits that there are now."""
    said = {each for edit in edits if edit.decoded is not False for each in edit.corrections}
    asked = [each for each in corrections_of(edits) if each in said]
    if not asked:
        return []
    with changed(editor.model, after.changes(editor.model)):
        texts = editor.translate([each.source for each in asked])
    return [each for each, text in zip(asked, texts, strict=True) if not says(text, each.target)]
