"""One model that several users try edits on, each as if it were theirs alone."""

import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..decoding import check_count
from ..errors import EditableValueError
from ..files import check_folder
from ..operations.impact import ImpactGate
from ..operations.store import EditStore
from ..patches import EditPatch
from ..translation import TranslationEditor
from .session import Session


class Workbench:
    """
    The model, what its edits are measured on, and the sessions of those who use it.

    Only one of them uses the model at a time, with their own edits in it; in between it is the base model, bit for
    bit.

    Args:
        editor ([`TranslationEditor`]): the base model and its tokenizer.
        folder (`str`): where sessions keep their files; each one's are removed when it ends.
        gate ([`ImpactGate`], *optional*): measures what else an edit changes; of the same editor.
        store_dir (`str`, *optional*):
            A store of edits, made if there is none. Then there is one session for everybody who opens the page, with
            the edits of the store, and what is kept there stays.
        max_characters (`int`, *optional*, defaults to `1000`): the longest sentence taken.
        max_edits (`int`, *optional*, defaults to `20`): the most edits that one session keeps.
        max_sessions (`int`, *optional*, defaults to `20`):
            How many sessions there can be; one more ends the one that was not used for longest.

    Raises:
        EditableValueError: if a number is below 1, or the store is of another model.
        EditableFileError: if `folder` is a file, or the store cannot be read.
    """

    def __init__(
        self,
        editor: TranslationEditor,
        folder: str | os.PathLike,
        gate: ImpactGate | None = None,
        *,
        store_dir: str | os.PathLike | None = None,
        max_characters: int = 1000,
        max_edits: int = 20,
        max_sessions: int = 20,
    ):
        for name, value in (
            ("max_characters", max_characters),
            ("max_edits", max_edits),
            ("max_sessions", max_sessions),
        ):
            check_count(name, value)
        self.folder = check_folder(folder).resolve()
        self.gate = gate
        self.max_characters = max_characters
        self.max_edits = max_edits
        self.max_sessions = max_sessions
        self._editor = editor
        self._model_lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._sessions_lock = threading.Lock()
        self._shared = None if store_dir is None else self._open_store(store_dir)

    @property
    def base_model(self) -> str:
        """What the model is called: the last part of its name or path."""
        return Path(self._editor.model.config._name_or_path or type(self._editor.model).__name__).name

    @property
    def downloads(self) -> Path:
        """The only folder whose files users may be sent."""
        return self.folder / "downloads"

    @property
    def is_shared(self) -> bool:
        """Whether all users have one session, on a store that outlasts it."""
        return self._shared is not None

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

    def open(self) -> tuple[str, Session]:
        """
        A new session and the token that it is found by; the shared one, if there is a store.

        Returns:
            `tuple[str, Session]`: a token that cannot be guessed, and the session.
        """
        token = secrets.token_hex(16)
        if self._shared is not None:
            return token, self._shared
        ended = []
        with self._sessions_lock:
            session = Session(self, self.folder / "sessions" / token, self.downloads / token)
            self._sessions[token] = session
            while len(self._sessions) > self.max_sessions:
                ended.append(self._sessions.popitem(last=False)[1])
        for each in ended:
            each.close()
        return token, session

    def session(self, token: str) -> Session | None:
        """The session of a token; `None` if it has ended."""
        if self._shared is not None:
            return self._shared
        with self._sessions_lock:
            if token in self._sessions:
                self._sessions.move_to_end(token)
            return self._sessions.get(token)

    def close(self, token: str | None) -> None:
        """End a session and remove its files, at once or when it is done with what it does. A store stays."""
        with self._sessions_lock:
            session = self._sessions.pop(token, None)
        if session is not None:
            session.close()

    def _open_store(self, store_dir: str | os.PathLike) -> Session:
        if not (Path(store_dir) / "store.json").exists():
            EditStore.create(store_dir, self._editor.model)
        session = Session(self, Path(store_dir), self.downloads / "store")
        with self.editor():
            patch = EditStore.open(store_dir).load(self._editor.model)  # refuses the store of another model
            if patch is not None:
                patch.revert(self._editor.model)
        session.refresh()
        return session

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
