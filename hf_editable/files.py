"""Folders that are written whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import EditableFileError


def check_folder(folder: str | os.PathLike) -> Path:
    """
    The path of a folder to write to.

    Raises:
        EditableFileError: if something that is not a folder stands there.
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise EditableFileError(f"{os.fspath(folder)!r} is a file; give a folder to write to.")
    return path


@contextmanager
def whole_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """
    A temporary folder that takes the place of `folder` when the block ends without an exception.

    If `folder` exists, the new files replace those of the same name, each in one step, and others stay.

    Raises:
        EditableFileError: if `folder` is a file.
    """
    path = check_folder(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield temporary
        # mkdtemp makes private folders; the result gets the usual rights.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        if not path.exists():
            temporary.rename(path)
            return
        for new in sorted(temporary.rglob("*")):
            place = path / new.relative_to(temporary)
            if new.is_dir():
                place.mkdir(exist_ok=True)
            else:
                os.replace(new, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
