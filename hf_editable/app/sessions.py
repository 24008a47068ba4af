"""The sessions of those who use a workbench: each user's own, or one for all on a store that stays."""

import os
import secrets
import threading
from collections import OrderedDict
from pathlib import Path

from ..checks import check_count
from ..correction.translation_editor import TranslationEditor
from ..operations.gate.impact import ImpactGate
from ..operations.store.edit_store import EditStore
from .session import Session
from .workbench import Workbench


class Sessions(Workbench):
    """
    A workbench and the sessions of those who use it. See [`Workbench`] for the other arguments.

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
        super().__init__(editor, folder, gate, max_characters=max_characters, max_edits=max_edits)
        self.max_sessions = check_count("max_sessions", max_sessions)
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._sessions_lock = threading.Lock()
        self._shared = None if store_dir is None else self._open_store(store_dir)

    @property
    def is_shared(self) -> bool:
        """Whether all users have one session, on a store that outlasts it."""
        return self._shared is not None

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
            EditStore.create(store_dir, self._editor.model, edit_config=self._editor.edit_config, exist_ok=True)
        session = Session(self, Path(store_dir), self.downloads / "store")
        with self.editor():
            patch = EditStore.open(store_dir).load(self._editor.model)  # refuses the store of another model
            if patch is not None:
                patch.revert(self._editor.model)
        session.refresh()
        return session
