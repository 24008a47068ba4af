"""How a store is read and written: what is read is checked, and one process writes at a time."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from ...errors import EditableFileError
from ...patches.changes import Whole
from ...patches.files import write_patch
from ...patches.patch import EditPatch
from ...runs.files import check_folder, is_temporary, whole_folder, write_json
from ...runs.fingerprints import fingerprint
from ..gate.report import IMPACT_NAME, ImpactReport
from .chain import broken_links
from .contents import Contents
from .files import BASE, EDITS, GIT_FILES, LOCK_NAME, clear, exclusive, look, sync, sync_tree
from .manifest import MANIFEST_NAME, NEW_MANIFEST, Manifest, StoredEdit


Value = TypeVar("Value")


class StoreAccess:
    """
    The folder of a store, for those that read it and for the one that writes to it.

    Args:
        path (`Path`): the folder.
        lock_timeout (`float`): seconds that one that writes waits for another to finish.
    """

    def __init__(self, path: Path, lock_timeout: float):
        self.path = path
        self._lock_timeout = lock_timeout
        self._checked: tuple[Manifest, tuple] | None = None

    def read(self, work: Callable[[Contents], Value], damaged: bool = False) -> Value:
        """
        `work` on what the store has now; again if a writer took files away meanwhile.

        Args:
            work (`Callable`): reads.
            damaged (`bool`, *optional*, defaults to `False`): whether the store may be damaged.
        """
        while True:
            manifest = Manifest.read(self.path)
            try:
                return work(Contents(self.path, manifest) if damaged else self._whole(manifest))
            except EditableFileError:
                if Manifest.read(self.path) == manifest:
                    raise

    def _whole(self, manifest: Manifest) -> Contents:
        """What the store has, after a look at its files and, where these or the list are new, at their chain."""
        contents = Contents(self.path, manifest)
        seen = contents.look()
        if self._checked != (manifest, seen):
            for problem in broken_links(contents):
                raise EditableFileError(
                    f"The store {str(self.path)!r} is damaged at its edit {problem.edit}: {problem.problem} Git "
                    "may have merged it, or the list or a folder was changed by hand. hf-editable check lists all "
                    "that is wrong, and hf-editable repair makes such edits anew."
                )
            self._checked = (manifest, seen)
        return contents

    @contextmanager
    def writing(self, damaged: bool = False) -> Iterator[Contents]:
        """
        What the store has, for the only one who may change it; what is not listed at the end is cleared away.

        Args:
            damaged (`bool`, *optional*, defaults to `False`): whether it may be damaged.
        """
        Manifest.read(self.path)  # so that no lock is made in any other folder
        with exclusive(self.path, self._lock_timeout):
            manifest = Manifest.read(self.path)
            listed = {edit.folder for edit in manifest.edits}
            clear(self.path, listed)
            try:
                yield Contents(self.path, manifest) if damaged else self._whole(manifest)
            except BaseException:
                # The list may have been replaced before the interruption.
                clear(self.path, listed | {edit.folder for edit in Manifest.read(self.path).edits})
                raise

    def save(self, edit: StoredEdit, patch: EditPatch, impact: ImpactReport | None = None) -> None:
        """Write the folder of an edit, which does not count before `store.json` lists it."""
        folder = self.path / EDITS / edit.folder
        patch.save_pretrained(folder)
        if impact is not None:
            write_json(folder / IMPACT_NAME, impact.to_dict())
        sync_tree(folder)

    def save_base(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the base model's values of the tensors that edits may change."""
        if os.path.lexists(self.path / BASE):
            look(self.path, BASE, is_folder=True)
        with whole_folder(self.path / BASE) as folder:
            write_patch(folder, [Whole(dict(tensors))], {"base_fingerprint": fingerprint(tensors)})
        sync_tree(self.path / BASE)

    def create(self, manifest: Manifest, tensors: Mapping[str, Tensor], exist_ok: bool) -> None:
        """
        Make a store; `store.json` comes last, and without it there is none.

        Args:
            manifest ([`Manifest`]): what `store.json` is to say.
            tensors (`dict[str, torch.Tensor]`): what edits may change.
            exist_ok (`bool`): whether a store may be there, which stays as it is.

        Raises:
            EditableFileError: if `path` is a file, holds a store already, or holds other files.
        """
        check_folder(self.path)
        if self.check_new(exist_ok):  # so that no lock is made in the folder of something else
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with exclusive(self.path, self._lock_timeout):
            # Another process may have made it meanwhile.
            if self.check_new(exist_ok):
                return
            for name, text in GIT_FILES.items():
                (self.path / name).write_text(text, encoding="utf-8")
                sync(self.path / name)
            self.save_base(tensors)
            manifest.write(self.path)
            sync(self.path.resolve().parent)

    def check_new(self, exist_ok: bool) -> bool:
        """
        Check that a store can be made.

        Args:
            exist_ok (`bool`): whether one may be there.

        Returns:
            `bool`: whether one is there.

        Raises:
            EditableFileError: if one is there and may not be, or anything else is.
        """
        present = {each.name for each in self.path.iterdir()} if self.path.exists() else set()
        present = {name for name in present if not is_temporary(name)}
        if MANIFEST_NAME in present:
            if not exist_ok:
                raise EditableFileError(f"{str(self.path)!r} holds a store of edits already. EditStore.open opens it.")
            return True
        # Another process may be at it, or have been killed, so its own files may be there, and the beginning of one.
        foreign = present - {".git", BASE, LOCK_NAME, NEW_MANIFEST, *GIT_FILES}
        for name in GIT_FILES.keys() & present:
            look(self.path, name)
            if not GIT_FILES[name].startswith((self.path / name).read_text(encoding="utf-8", errors="replace")):
                foreign.add(name)
        if foreign:
            raise EditableFileError(f"{str(self.path)!r} holds {sorted(foreign)[:5]}. Give a new or an empty folder.")
        return False
