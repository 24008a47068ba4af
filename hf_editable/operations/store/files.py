"""Files of a store that survive an interruption at any moment: a lock for writers, and writes that last."""

import os
import re
import shutil
import socket
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
            file = stack.enter_context(open(folder / LOCK_NAME, "a+", encoding="utf-8"))
        except OSError as error:
            raise EditableFileError(f"The store {str(folder)!r} cannot be written: {error}.") from error
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


def clear(folder: Path, listed: set[str]) -> None:
    """Remove the folders of edits that are not listed: what interrupted calls and reverted edits left."""
    edits = folder / EDITS
    for path in edits.iterdir() if edits.is_dir() else ():
        if path.name not in listed and path.is_dir() and _OWN_FOLDER.fullmatch(path.name):
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
