"""What one user has done: the edit that is being looked at, and those that were kept."""

import shutil
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ..correction.translation_editor import TranslationEditResult
from ..errors import EditableValueError
from ..operations.corrections.correction_list import Correction
from ..operations.gate.report import ImpactReport
from ..operations.store.edit_store import EditStore
from ..operations.store.manifest import StoredEdit
from ..patches.patch import EditPatch
from .workbench import Workbench


DOWNLOAD_NAME = "patch.zip"


@dataclass
class Proposal:
    """
    An edit that was made and neither kept nor undone.

    Args:
        source (`str`): the sentence.
        target (`str`): the translation that was asked for.
        before (`str`): what the model said, with the edits that were kept.
        result ([`TranslationEditResult`]): the edit.
        milliseconds (`float`): how long it took to make.
        impact ([`ImpactReport`], *optional*): what else it changes, once that is measured.
    """

    source: str
    target: str
    before: str
    result: TranslationEditResult
    milliseconds: float
    impact: ImpactReport | None = None

    @property
    def refused(self) -> bool:
        """Whether the edit breaks a limit of the gate, so that it cannot be kept."""
        return self.impact is not None and not self.impact.accepted


class Session:
    """
    The edits of one user. Its methods may be called from several threads; they wait for each other.

    Args:
        workbench ([`Workbench`]): has the model.
        store_dir (`Path`): folder of the kept edits, an [`EditStore`] from the first one on.
        downloads (`Path`): folder of what the user may download.
    """

    def __init__(self, workbench: Workbench, store_dir: Path, downloads: Path):
        self.proposal: Proposal | None = None
        self._workbench = workbench
        self._store_dir = store_dir
        self._downloads = downloads
        self._patch: EditPatch | None = None
        self._download: Path | None = None
        self._lock = threading.RLock()
        self._ended = False

    @property
    def edits(self) -> list[StoredEdit]:
        """The edits that were kept, in their order."""
        return self._store().edits if self._has_store() else []

    @property
    def download(self) -> Path | None:
        """A zip file with the kept edits as one patch for the base model; `None` while there are none."""
        return self._download

    def translate(self, source: str) -> str:
        """
        Translate with the kept edits. An edit that was neither kept nor undone is forgotten.

        Raises:
            EditableValueError: if the source is empty or too long, or the session has ended.
        """
        source = self._workbench.check_text("source", source)
        with self._working():
            self.proposal = None
            with self._workbench.editor(self._patch) as editor:
                return editor.translate([source])[0]

    def propose(self, source: str, target: str) -> Proposal:
        """
        Make an edit on top of the kept ones, in place of one that was neither kept nor undone.

        Raises:
            EditableValueError: if a text is empty, too long or unknown to the tokenizer, or the session has ended.
            NonFiniteEditError: if the edit diverges.
        """
        source = self._workbench.check_text("source", source)
        target = self._workbench.check_text("translation", target)
        with self._working():
            self.proposal = None
            if len(self.edits) >= (most := self._workbench.max_edits):
                raise EditableValueError(f"{most} edits are kept, and no more are allowed. Undo the last one first.")
            with self._workbench.editor(self._patch) as editor:
                before = editor.translate([source])[0]
                start = time.perf_counter()
                result = editor.edit(source, target, keep=[(each.source, each.target) for each in self._corrections()])
                milliseconds = 1000 * (time.perf_counter() - start)
            self.proposal = Proposal(source, target, before, result, milliseconds)
            return self.proposal

    def measure(self) -> ImpactReport | None:
        """
        Find out what else the edit changes, beside those that were kept.

        Returns:
            [`ImpactReport`] or `None`: `None` if there is nothing to measure it on.

        Raises:
            EditableValueError: if there is no edit, or the session has ended.
        """
        with self._working():
            proposal = self._proposed("measure")
            if self._workbench.gate is not None:
                with self._workbench.editor(self._patch):
                    proposal.impact = self._workbench.gate.measure(proposal.result.patch, self._corrections())
            return proposal.impact

    def keep(self) -> StoredEdit:
        """
        Keep the edit: what is translated and edited from now on is so with it.

        Raises:
            EditableValueError: if there is no edit, its gate refuses it, or the session has ended.
            EditableFileError: if it cannot be written.
        """
        with self._working():
            proposal = self._proposed("keep")
            if not self._has_store():
                with self._workbench.editor() as editor:
                    EditStore.create(self._store_dir, editor.model, edit_config=editor.edit_config, exist_ok=True)
            edit = self._store().add(proposal.result, proposal.impact)
            self.proposal = None
            self._reload()
            return edit

    def undo(self) -> Proposal:
        """
        Forget the edit.

        Returns:
            [`Proposal`]: what was forgotten.

        Raises:
            EditableValueError: if there is no edit, or the session has ended.
        """
        with self._working():
            proposal = self._proposed("undo")
            self.proposal = None
            return proposal

    def undo_last(self) -> StoredEdit:
        """
        Take back the last edit that was kept. One that was neither kept nor undone was made on top of it, and is
        forgotten too.

        Raises:
            EditableValueError: if none is kept, or the session has ended.
            EditableFileError: if it cannot be written.
        """
        with self._working():
            if not (edits := self.edits):
                raise EditableValueError("No edit is kept, so there is none to undo.")
            self._store().revert(edits[-1].id)
            self.proposal = None
            self._reload()
            return edits[-1]

    def refresh(self) -> None:
        """Read the kept edits anew, in case another program has changed their store."""
        with self._working():
            self._reload()

    def close(self) -> None:
        """End the session: its folders are removed now, or by what is still running when that is done."""
        self._ended = True
        self._remove_if_ended()

    @contextmanager
    def _working(self) -> Iterator[None]:
        try:
            with self._lock:
                if self._ended:
                    raise EditableValueError("This session has ended, and its edits are gone. Reload the page.")
                yield
        finally:
            self._remove_if_ended()

    def _remove_if_ended(self) -> None:
        # Whoever holds the lock meanwhile asks again after giving it back.
        if self._ended and self._lock.acquire(blocking=False):
            try:
                for folder in (self._store_dir, self._downloads):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                self._lock.release()

    def _proposed(self, purpose: str) -> Proposal:
        if self.proposal is None:
            raise EditableValueError(f"There is no edit to {purpose}. Correct a translation and press Edit.")
        return self.proposal

    def _has_store(self) -> bool:
        return (self._store_dir / "store.json").exists()

    def _corrections(self) -> list[Correction]:
        return self._store().corrections if self._has_store() else []

    def _store(self) -> EditStore:
        return EditStore.open(self._store_dir)

    def _reload(self) -> None:
        """The kept edits as one patch, in memory and as the file to download."""
        # Read back from the store, so that the file and the session cannot differ.
        self._patch = self._store().merge() if self._has_store() else None
        self._download = None if self._patch is None else self._write_download(self._patch)

    def _write_download(self, patch: EditPatch) -> Path:
        self._downloads.mkdir(parents=True, exist_ok=True)
        # Under a new name each time: a browser may still be reading the last one.
        place = self._downloads / f"{time.time_ns()}" / DOWNLOAD_NAME
        earlier = [each for each in self._downloads.iterdir() if each != place.parent]
        with TemporaryDirectory(dir=self._downloads) as folder:
            patch.save_pretrained(Path(folder) / "patch")
            zipped = Path(folder) / DOWNLOAD_NAME
            with zipfile.ZipFile(zipped, "w") as archive:
                for file in sorted((Path(folder) / "patch").iterdir()):
                    archive.write(file, f"patch/{file.name}")
            place.parent.mkdir()
            zipped.rename(place)
        for each in earlier:
            shutil.rmtree(each, ignore_errors=True)
        return place
