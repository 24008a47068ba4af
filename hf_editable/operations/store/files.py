"""Files of a store that survive an interruption at any moment, and are its own: a lock, looks, writes that last."""

import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ...errors import EditableFileError, EditableImportError


BASE = "base"
EDITS = "edits"
LOCK_NAME = ".lock"
GIT_FILES = {
    ".gitattributes": "*.safetensors binary\n",
    ".gitignore": f"/{LOCK_NAME}\n/.store.json.new\n/{EDITS}/.*\n",
}
# A folder of an edit, or one of those that it is written to before it gets its name.
_OWN_FOLDER = re.compile(r"\.?\d{4,}-[0-9a-f]{8}(\.\d+)?(-\w+)?")
_POLL = 0.05
# Of a JSON file; those of real stores have a thousandth of that.
_MOST_BYTES = 2**28


@contextmanager
def exclusive(folder: Path, timeout: float) -> Iterator[None]:
    """
    The right to write to a store, for the block. It ends with the process, however that ends.

    Args:
        folder (`Path`): the store.
        timeout (`float`): seconds to wait for another writer.

    Raises:
        EditableFileError: if another writer has it all that time, or the folder cannot be written.
        EditableImportError: on systems without `fcntl`.
    """
    try:
        import fcntl
    except ImportError as error:
        raise EditableImportError("Stores of edits are written on Linux and macOS only: there is no fcntl.") from error
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(folder / LOCK_NAME, "a+", encoding="utf-8", opener=_open_own))
        except OSError as error:
            raise EditableFileError(f"The store {str(folder)!r} cannot be written ({error}).") from error
        end = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= end:
                    file.seek(0)
                    holder = file.read().strip() or "another process"
                    raise EditableFileError(
                        f"The store {str(folder)!r} is being written by {holder}, for more than {timeout:g} seconds "
                        "now. Try again when that is done."
                    ) from error
                time.sleep(_POLL)
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield
        finally:
            file.truncate(0)
            fcntl.flock(file, fcntl.LOCK_UN)


def _open_own(path: str, flags: int) -> int:
    """Open a file, but follow no link to another, and wait for nobody at the other end."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def look(store: Path, inside: str, is_folder: bool = False) -> tuple[int, ...]:
    """
    Look at a file or a folder of a store, without opening it.

    Args:
        store (`Path`): the store.
        inside (`str`): the place in it.
        is_folder (`bool`, *optional*, defaults to `False`): whether it is to be a folder, and not a file.

    Returns:
        `tuple[int, ...]`: differs once something else is there.

    Raises:
        EditableFileError: if it is missing, a link to another place, a device or the like, or too large to be true.
    """
    path, problem = store / inside, None
    try:
        found = path.lstat()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        problem = "is missing" if missing else f"cannot be read ({error.strerror})"
    else:
        if stat.S_ISLNK(found.st_mode):
            problem = "is a link, and all of a store is in its own folder"
        elif not (stat.S_ISDIR if is_folder else stat.S_ISREG)(found.st_mode):
            problem = f"is no {'folder' if is_folder else 'file'}"
        elif path.suffix == ".json" and found.st_size > _MOST_BYTES:
            problem = f"has {found.st_size / 1e9:.1f} GB, and no such file has"
    if problem is not None:
        raise EditableFileError(
            f"The store {str(store)!r} is damaged: {inside!r} {problem}. Take it from a commit or a backup."
        )
    return found.st_ino, found.st_size, found.st_mtime_ns


def clear(folder: Path, listed: set[str]) -> None:
    """Remove the folders of edits that are not listed: what interrupted calls and reverted edits left."""
    edits = folder / EDITS
    if not os.path.lexists(edits):
        return
    look(folder, EDITS, is_folder=True)
    for path in edits.iterdir():
        if path.name not in listed and path.is_dir() and _OWN_FOLDER.fullmatch(path.name):
            if path.is_symlink():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk itself, so that they outlast a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync` a folder, and all that is in it."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
    sync(folder.parent)
