"""`store.json`: the one file that says which edits a store has, in their order."""

import dataclasses
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import EditableFileError
from ...runs.files import write_json
from ...runs.places import STORE_FILE
from ...runs.plain_values import from_plain
from ...runs.provenance import installed_versions
from ...runs.reading import read_json
from ..corrections.correction_list import Correction
from .files import look, sync


MANIFEST_NAME = STORE_FILE
# What takes its place, while it is written.
NEW_MANIFEST = f".{MANIFEST_NAME}.new"
FORMAT_VERSION = 1
# An id is the name of a folder, so it has no other form than the one that is given here.
_ID = re.compile("[0-9]{4,}-[0-9a-f]{8}")


@dataclass(frozen=True)
class StoredEdit:
    """
    One edit of a store.

    Args:
        id (`str`): its name, such as `0001-ab12cd34`. It stays when the edit is redone, and is never given again.
        corrections (`tuple[Correction, ...]`): what it corrects; several, if it was made jointly.
        created (`str`, *optional*): when its patch was made, in UTC.
        added (`str`): when it came into the store, in UTC.
        steps (`int`, *optional*): steps that the edit took.
        success (`bool`, *optional*): whether its targets outranked all alternatives.
        decoded (`bool`, *optional*): whether beam search said all its targets, right after the edit.
        accepted (`bool`, *optional*): what the impact gate said; `None` if it was not asked.
        revision (`int`, *optional*, defaults to `0`): how often it was redone, as an earlier edit was reverted.
        editor (`str`, *optional*): the family of the editor that made it, where known.
    """

    id: str
    corrections: tuple[Correction, ...]
    created: str | None
    added: str
    steps: int | None = None
    success: bool | None = None
    decoded: bool | None = None
    accepted: bool | None = None
    revision: int = 0
    editor: str | None = None

    @property
    def source(self) -> str:
        """The first corrected sentence; the only one, unless the edit was made jointly."""
        return self.corrections[0].source

    @property
    def target(self) -> str:
        """The translation that `source` was corrected to."""
        return self.corrections[0].target

    @property
    def folder(self) -> str:
        """The name of its folder in `edits`; another one each time that it is redone."""
        return f"{self.id}.{self.revision}" if self.revision else self.id

    def to_dict(self) -> dict[str, Any]:
        """The edit as plain JSON values, `source` and `target` among them."""
        return {**_edit_values(self), "source": self.source, "target": self.target}


@dataclass(frozen=True)
class Manifest:
    """
    What `store.json` says.

    Args:
        base_fingerprint (`str`): [`fingerprint`] of all weights of the base model.
        tensors (`list[str]`): the tensors that edits may change.
        base_model (`str`, *optional*): name or path of the base model.
        base_revision (`str`, *optional*): its revision on the Hub, where known.
        rest_fingerprint (`str`, *optional*):
            [`fingerprint_sum`] of its other weights; stores of earlier versions do not have it.
        next_number (`int`, *optional*, defaults to `1`): the number of the next edit.
        edits (`tuple[StoredEdit, ...]`, *optional*): the edits, in their order.
        versions (`dict[str, str]`, *optional*): versions of hf_editable, torch and transformers that made the store.
    """

    base_fingerprint: str
    tensors: list[str]
    base_model: str | None = None
    base_revision: str | None = None
    rest_fingerprint: str | None = None
    next_number: int = 1
    edits: tuple[StoredEdit, ...] = ()
    versions: dict[str, str] = field(default_factory=installed_versions)

    def new_id(self, hashed: str) -> str:
        """
        The id of the next edit, whose number no edit of the store has had.

        Args:
            hashed (`str`): what its patch holds, as a hash in hexadecimal.
        """
        return f"{self._number:04d}-{hashed[:8]}"

    def with_next(self, edit: StoredEdit) -> "Manifest":
        """The same with another edit, that got its id here."""
        return dataclasses.replace(self, next_number=self._number + 1, edits=(*self.edits, edit))

    @property
    def _number(self) -> int:
        # Of two branches that were merged, either may have had more edits.
        return max([self.next_number, *(int(edit.id.split("-")[0]) + 1 for edit in self.edits)])

    def write(self, folder: Path) -> None:
        """Replace `store.json` in one step, which lasts when this returns. The caller holds the lock."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        values |= {"edits": [_edit_values(edit) for edit in self.edits], "format_version": FORMAT_VERSION}
        new = folder / NEW_MANIFEST
        new.unlink(missing_ok=True)  # it may be a link to another file
        write_json(new, values)
        sync(new)
        os.replace(new, folder / MANIFEST_NAME)
        sync(folder)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """
        Read what `write` wrote.

        Raises:
            EditableFileError: if there is no `store.json`, or it is damaged or of a newer format.
        """
        path = folder / MANIFEST_NAME
        if not os.path.lexists(path):
            raise EditableFileError(
                f"{str(folder)!r} is no store of edits: it has no {MANIFEST_NAME}. EditStore.create makes a store."
            )
        look(folder, MANIFEST_NAME)
        try:
            values = read_json(path)
            if not isinstance(values, dict):
                raise ValueError(f"{MANIFEST_NAME} is {values!r:.80}, not an object")
            # The fields that are not the manifest's, or have defaults that only new stores take.
            if missing := [name for name in ("edits", "format_version") if name not in values]:
                raise ValueError(f"{MANIFEST_NAME} has no {missing[0]}")
            version = from_plain(int, values.pop("format_version"), f"format_version of {MANIFEST_NAME}")
            if version > FORMAT_VERSION:
                raise EditableFileError(
                    f"{str(path)!r} has format {version}, and this version of hf_editable knows up to "
                    f"{FORMAT_VERSION}. Upgrade hf_editable."
                )
            manifest = from_plain(cls, values, MANIFEST_NAME)
            manifest._check()
            return manifest
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, EditableFileError):
                raise
            raise EditableFileError(
                f"{str(path)!r} is damaged: {error}. If git has merged it, resolve the conflict; else take it from "
                "its last commit or a backup."
            ) from error

    def _check(self) -> None:
        """Raises `ValueError` where something cannot be."""
        for edit in self.edits:
            if not _ID.fullmatch(edit.id):
                raise ValueError(f"the id {edit.id!r:.80} is not of the form 0001-ab12cd34")
            if edit.revision < 0:
                raise ValueError(f"the revision of {edit.id} is {edit.revision}")
            if not edit.corrections:
                raise ValueError(f"the edit {edit.id} has no corrections")
        if repeated := {edit.id for edit in self.edits if sum(each.id == edit.id for each in self.edits) > 1}:
            raise ValueError(f"the ids {sorted(repeated)} are there twice")
        if not re.fullmatch("[0-9a-f]{32}", self.rest_fingerprint or "0" * 32):
            raise ValueError(f"rest_fingerprint is {self.rest_fingerprint!r:.80}")


def corrections_of(edits: Iterable[StoredEdit]) -> list[Correction]:
    """What edits correct, in their order; of two corrections of one source, the later one."""
    return list({each.source: each for edit in edits for each in edit.corrections}.values())


def _edit_values(edit: StoredEdit) -> dict[str, Any]:
    values = {item.name: getattr(edit, item.name) for item in dataclasses.fields(edit)}
    corrections = []
    for correction in edit.corrections:
        texts = {name: getattr(correction, name) for name in ("source", "target", "id", "note")}
        corrections.append({name: text for name, text in texts.items() if text is not None})
    return {**values, "corrections": corrections}
