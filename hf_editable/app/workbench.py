"""One model that several users try edits on, one at a time."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..checks import check_count
from ..correction.translation_editor import TranslationEditor
from ..errors import EditableValueError
from ..models.private_names import check_private_names
from ..operations.gate.impact import ImpactGate
from ..patches.patch import EditPatch
from ..runs.files import check_folder


check_private_names(__name__)


class Workbench:
    """
    The model, what its edits are measured on, and where those who use it keep their files.

    Only one of them uses the model at a time, with their own edits in it; in between it is the base model, bit for
    bit.

    Args:
        editor ([`TranslationEditor`]): the base model and its tokenizer.
        folder (`str`): where sessions keep their files; each one's are removed when it ends.
        gate ([`ImpactGate`], *optional*): measures what else an edit changes; of the same editor.
        max_characters (`int`, *optional*, defaults to `1000`): the longest sentence taken.
        max_edits (`int`, *optional*, defaults to `20`): the most edits that one session keeps.

    Raises:
        EditableValueError: if a number is below 1.
        EditableFileError: if `folder` is a file.
    """

    def __init__(
        self,
        editor: TranslationEditor,
        folder: str | os.PathLike,
        gate: ImpactGate | None = None,
        *,
        max_characters: int = 1000,
        max_edits: int = 20,
    ):
        for name, value in (("max_characters", max_characters), ("max_edits", max_edits)):
            check_count(name, value)
        self.folder = check_folder(folder).resolve()
        self.gate = gate
        self.max_characters = max_characters
        self.max_edits = max_edits
        self._editor = editor
        self._model_lock = threading.Lock()

    @property
    def base_model(self) -> str:
        """What the model is called: the last part of its name or path."""
        return Path(self._editor.model.config._name_or_path or type(self._editor.model).__name__).name

    @property
    def downloads(self) -> Path:
        """The only folder whose files users may be sent."""
        return self.folder / "downloads"

    @contextmanager
    def editor(self, patch: EditPatch | None = None) -> Iterator[TranslationEditor]:
        """
        The editor, to one user at a time, with a patch in its model; the base model is back after the block.

        Args:
            patch ([`EditPatch`], *optional*): made from the base model.
        """
        with self._model_lock:
            if patch is None:
                yield self._editor
            else:
                with self._editor.model.edited(patch):
                    yield self._editor

    def check_text(self, name: str, text: str) -> str:
        """
        A sentence as it goes to the model: on one line.

        Raises:
            EditableValueError: if it is empty or too long.
        """
        line = " ".join((text or "").split())
        if not line:
            raise EditableValueError(f"The {name} is empty. Type a sentence.")
        if len(line) > self.max_characters:
            raise EditableValueError(
                f"The {name} has {len(line)} characters; {self.max_characters} are allowed. Give one sentence only."
            )
        return line
