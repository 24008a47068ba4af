"""A folder of edits that git can hold: listed, applied together, taken back one by one, never half-written."""

import dataclasses
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ...configuration import EditConfig
from ...correction.translation_editor import TranslationEditor
from ...editors.registry import make_editor
from ...editors.result import EditResult
from ...errors import EditableFileError, EditableTypeError, EditableValueError, EditRefusedError
from ...models.private_names import check_private_names
from ...models.weights import fingerprint_weights, model_weights
from ...patches.application import applied
from ...patches.patch import EditPatch
from ...runs.fingerprints import fingerprint
from ...runs.places import check_apart
from ..corrections.correction_list import Correction
from ..gate.impact import ImpactGate
from ..gate.report import ImpactReport
from .access import StoreAccess
from .chain import StoreProblem, problems
from .contents import Contents, find, named_corrections
from .edit_diff import EditDiff
from .files import clear
from .manifest import Manifest, StoredEdit, corrections_of
from .redo import RevertResult, decoded_all, one_editor, redo_edits, weigh


check_private_names(__name__)


class EditStore:
    """
    A folder of edits of one base model, each made on top of the earlier ones. Get one by `create` or `open`.

    `store.json` alone says which edits are in it, in their order; it is replaced in one step. `edits/<id>/` holds the
    patch of each, as [`EditPatch.save_pretrained`] writes it, and `impact.json` if it went through a gate; `base/`
    holds the base model's own tensors that edits may change. What an interrupted call left is ignored, and cleared
    away by the next one that writes. One process writes at a time; readers do not wait.

    Example:

    ```python
    >>> store = EditStore.create("edits", model)  # doctest: +SKIP
    >>> result = editor.edit("Guten Tag!", "Good afternoon!")  # doctest: +SKIP
    >>> store.add(result)  # doctest: +SKIP
    >>> result.patch.apply(model)  # the next edit is made on top of it  # doctest: +SKIP
    >>> store.load(fresh_model)  # all edits, in another process  # doctest: +SKIP
    ```
    """

    def __init__(self, path: str | os.PathLike, lock_timeout: float = 10.0):
        self._path = Path(path)
        self._access = StoreAccess(self._path, lock_timeout)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike,
        model: PreTrainedModel,
        *,
        edit_config: EditConfig | None = None,
        lock_timeout: float = 10.0,
        exist_ok: bool = False,
    ) -> "EditStore":
        """
        Make an empty store for edits of a model.

        Args:
            path (`str`): folder that does not exist, or is empty but for `.git`.
            model ([`~transformers.PreTrainedModel`]): the base model, with no patch applied to it.
            edit_config ([`EditConfig`], *optional*):
                says which tensors edits of this store may change; `None` takes the model's own.
            lock_timeout (`float`, *optional*, defaults to `10.0`): see `open`.
            exist_ok (`bool`, *optional*, defaults to `False`):
                Whether a store that is there already is opened, as when several processes want to have made it.

        Raises:
            EditableFileError: if `path` is a file, holds a store already, or holds other files.
            EditableValueError: if patches are applied to the model.
        """
        if present := applied(model):
            raise EditableValueError(
                f"{len(present)} patches are applied to the model. A store begins with the base model: revert them "
                "first."
            )
        config = edit_config or getattr(model, "edit_config", None) or EditConfig()
        tensors = {name: tensor.detach().cpu() for name, tensor in make_editor(config, model).moved(model).items()}
        manifest = Manifest(
            base_fingerprint=fingerprint(model_weights(model)),
            rest_fingerprint=fingerprint_weights(model, without=tensors),
            tensors=sorted(tensors),
            base_model=model.config._name_or_path or None,
            base_revision=getattr(model.config, "_commit_hash", None),
        )
        store = cls(path, lock_timeout)
        store._access.create(manifest, tensors, exist_ok)
        return store

    @classmethod
    def open(cls, path: str | os.PathLike, *, lock_timeout: float = 10.0) -> "EditStore":
        """
        Open a store that `create` made.

        Args:
            path (`str`): its folder.
            lock_timeout (`float`, *optional*, defaults to `10.0`):
                seconds that a call that writes waits for another process to finish writing.

        Raises:
            EditableFileError:
                if there is no store, or it is damaged: a file is missing, or an edit was not made from those before
                it. Every call that reads the store checks that; see `problems` for all that may be wrong.
        """
        store = cls(path, lock_timeout)
        store._access.read(lambda contents: None)
        return store

    @property
    def path(self) -> str:
        """Its folder."""
        return str(self._path)

    @property
    def base_fingerprint(self) -> str:
        """A hash of all weights of the base model, in hexadecimal."""
        return Manifest.read(self._path).base_fingerprint

    @property
    def base_model(self) -> str | None:
        """Name or path of the base model, as it was when the store was made."""
        return Manifest.read(self._path).base_model

    @property
    def edits(self) -> list[StoredEdit]:
        """The edits, in the order in which they are applied, as the folder has them now."""
        return self._access.read(lambda contents: list(contents.manifest.edits))

    @property
    def corrections(self) -> list[Correction]:
        """What the model is to say with all edits: of two corrections of one source, the later one."""
        return corrections_of(self.edits)

    def get(self, id: str) -> StoredEdit:
        """
        An edit by its id, or by the beginning of its id if no other has the same.

        Raises:
            EditableValueError: if there is no such edit, or several.
        """
        return find(self.edits, id)

    def patch(self, id: str) -> EditPatch:
        """The patch of an edit, to be applied on top of the edits before it."""
        return self._access.read(lambda contents: contents.patch(find(contents.manifest.edits, id)))

    def add(
        self,
        result: EditResult | EditPatch | Any,
        impact: ImpactReport | None = None,
        *,
        corrections: Sequence[Correction] | None = None,
        decoded: bool | None = None,
        force: bool = False,
    ) -> StoredEdit:
        """
        Put an edit behind the others. When this returns, the edit is on disk. The model is not touched: apply the
        patch to it, before or after.

        Args:
            result ([`EditResult`], `JointEditResult` or [`EditPatch`]): made on top of all edits of the store.
            impact ([`ImpactReport`], *optional*): what its gate measured.
            corrections (`Sequence[Correction]`, *optional*): what it corrects, if the patch does not name it.
            decoded (`bool`, *optional*): whether beam search says the targets, if `result` does not tell.
            force (`bool`, *optional*, defaults to `False`): whether to take an edit that its gate refused.

        Raises:
            EditableValueError:
                if the patch changes tensors that the store does not hold, names no correction, or was refused by its
                gate.
            StaleEditError: if it was made from another model or from other edits.
            EditableFileError: if another process is writing, or the folder is damaged.
        """
        patch = result.patch if isinstance(result, EditResult) else result
        if not isinstance(patch, EditPatch):
            raise EditableTypeError(f"A {type(result).__name__} is no edit. Give an EditResult or an EditPatch.")
        if impact is not None and not impact.accepted and not force:
            raise EditRefusedError(
                f"The gate refused this edit: {' '.join(impact.reasons)} Give force=True to store it all the same."
            )
        corrected = named_corrections(patch, corrections)
        edit = StoredEdit(
            id="",
            corrections=corrected,
            created=patch.created,
            added=datetime.now(UTC).isoformat(timespec="seconds"),
            steps=patch.steps,
            success=None if patch.loss_after is None else patch.loss_after <= 0,
            decoded=decoded_all(result) if decoded is None else decoded,
            accepted=None if impact is None else impact.accepted,
            editor=patch.editor,
        )
        with self._access.writing() as contents:
            manifest = contents.manifest
            contents.check_patch(patch, contents.state(len(manifest.edits)).tensors)
            edit = dataclasses.replace(edit, id=manifest.new_id(patch.fingerprint()))
            self._access.save(edit, patch, impact)
            manifest.with_next(edit).write(self._path)
        return edit

    def load(self, model: PreTrainedModel) -> EditPatch | None:
        """
        Apply all edits to the base model, as one patch; if anything goes wrong, the model stays as it was.

        Args:
            model ([`~transformers.PreTrainedModel`]): the base model, editable or not.

        Returns:
            [`EditPatch`] or `None`: what was applied, for `patch.revert(model)`; `None` if the store is empty.

        Raises:
            EditableValueError: if the model is not the base, or has the edits already.
            EditableFileError: if the store is damaged.
        """

        def read(contents: Contents) -> tuple[bool, EditPatch | None]:
            return contents.check_model(model), contents.merge(len(contents.manifest.edits))

        present, patch = self._access.read(read)
        if present:
            raise EditableValueError(f"The model has the edits of the store {self.path!r} in it already.")
        if patch is not None:
            patch.apply(model)
        return patch

    def show(self, id: str) -> dict[str, Any]:
        """All that is known of an edit, as plain JSON values: the list's, the patch's, and the impact report."""
        return self._access.read(lambda contents: contents.describe(find(contents.manifest.edits, id)))

    def impact(self, id: str) -> ImpactReport | None:
        """The impact report that an edit was stored with."""
        return self._access.read(lambda contents: contents.impact(find(contents.manifest.edits, id)))

    def diff(self, id: str) -> EditDiff:
        """What an edit changed, in tensors and, if it was stored with an impact report, in translations."""
        return self._access.read(lambda contents: contents.diff(find(contents.manifest.edits, id)))

    def revert(
        self,
        id: str,
        editor: TranslationEditor | None = None,
        gate: ImpactGate | None = None,
        *,
        allow_lost: bool = False,
    ) -> RevertResult:
        """
        Take back an edit. The later ones are redone in their order on the model without it, and asked again at the
        end; but where it and all later ones only add neurons, they stay as they are. All of that succeeds, or the
        store and the model are as they were.

        Args:
            id (`str`): which edit; see `get`.
            editor ([`TranslationEditor`], *optional*):
                makes the later edits anew; not needed for the last edit. Its model is the base, and stays so, or has
                all edits of the store, and then has those that are left.
            gate ([`ImpactGate`], *optional*): measures the change to the edits that are left, and may refuse it.
            allow_lost (`bool`, *optional*, defaults to `False`):
                Whether corrections that held before may be lost; they are named in the result.

        Raises:
            EditableValueError:
                if there is no such edit, the model is not that of the store, an editor is needed, a later edit cannot
                be redone, a correction would be lost, or the gate refuses.
            EditableFileError: if another process is writing, or the folder is damaged.
        """
        editor = one_editor(editor, gate)
        with self._access.writing() as contents:
            manifest = contents.manifest
            edit = find(manifest.edits, id)
            place = manifest.edits.index(edit)
            earlier, later = manifest.edits[:place], manifest.edits[place + 1 :]
            commute = contents.commute(manifest.edits[place:])
            if later and not commute and editor is None:
                raise EditableValueError(
                    f"{len(later)} edits were made on top of {edit.id}, which are to be made anew. Give an editor."
                )
            present = editor is not None and contents.check_model(editor.model)
            before, redone = contents.state(len(manifest.edits)), []
            after = contents.without(place) if commute else contents.state(place)
            if later and not commute:
                redone, after = redo_edits(editor, later, earlier, after, self._access.save, allow_lost)
                later = redone
            patch = contents.transition(before, after)
            left = corrections_of([*earlier, *later])
            impact, lost = weigh(patch, left, (before, after), editor, gate, allow_lost)
            changed = dataclasses.replace(manifest, edits=(*earlier, *later))
            try:
                if present:
                    patch.apply(editor.model)
                changed.write(self._path)
            except BaseException:
                is_in = present and any(each.owner is patch for each in applied(editor.model))
                if is_in and Manifest.read(self._path) != changed:
                    patch.revert(editor.model)
                raise
            clear(self._path, {each.folder for each in changed.edits})
        return RevertResult(reverted=edit, redone=redone, lost=lost, patch=patch, impact=impact)

    def merge(self, until: str | None = None) -> EditPatch | None:
        """
        One patch from the base model to all edits, or to those up to `until`; `None` of no edits.

        Args:
            until (`str`, *optional*): the last edit to take in; see `get`.
        """

        def read(contents: Contents) -> EditPatch | None:
            edits = contents.manifest.edits
            return contents.merge(len(edits) if until is None else edits.index(find(edits, until)) + 1)

        return self._access.read(read)

    def export(self, path: str | os.PathLike, id: str | None = None, *, with_earlier: bool = False) -> EditPatch:
        """
        Write a patch to a folder of its own, as [`EditPatch.save_pretrained`] does.

        Args:
            path (`str`): the folder.
            id (`str`, *optional*): which edit; `None` takes all, as `merge` does.
            with_earlier (`bool`, *optional*, defaults to `False`):
                Whether the patch is for the base model, and has the edits before `id` in it; if not, it is for the
                model that has them.

        Raises:
            EditableValueError: if there is no such edit, or none at all.
            EditableFileError: if `path` is a file, or in the store.
        """
        check_apart(path, [("store", self.path)])
        patch = self.merge(id) if id is None or with_earlier else self.patch(id)
        if patch is None:
            raise EditableValueError(f"The store {self.path!r} is empty, so there is nothing to export.")
        patch.save_pretrained(path)
        return patch

    def problems(self) -> list[StoreProblem]:
        """
        All that is wrong with the store, of which `open` finds the most important: a file is missing or damaged, or an
        edit is not made from those before it. Every file is read. A store that `open` refuses is checked by
        `EditStore(path).problems()`.

        Raises:
            EditableFileError: if `store.json` is missing or damaged, so that it says nothing of the rest.
        """
        return self._access.read(problems, damaged=True)

    def check(self) -> None:
        """
        Read every file, and check that each patch was made on top of the one before it.

        Raises:
            EditableFileError: if not; the message lists the `problems`.
        """
        if found := self.problems():
            named = " ".join(f"{each.edit or 'the base'}: {each.problem}" for each in found)
            raise EditableFileError(f"The store {self.path!r} is damaged. {named}")
