"""Folders that are written whole or not at all, and the JSON files in them."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import EditableFileError


Value = TypeVar("Value")


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


def write_json(path: Path, values: Any) -> None:
    """Write plain JSON values, in the same order each time."""
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_saved(folder: str | os.PathLike, name: str, build: Callable[[Any], Value], writer: str) -> Value:
    """
    What a JSON file in a folder says.

    Args:
        folder (`str`): the folder.
        name (`str`): of the file.
        build (`Callable`): makes it of the JSON values.
        writer (`str`): what writes such files, for the error.

    Raises:
        EditableFileError: if the file is missing or damaged.
    """
    try:
        return build(json.loads((Path(folder) / name).read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        raise EditableFileError(
            f"{os.fspath(folder)!r} holds no whole {name} ({reason}). {writer} writes one."
        ) from error
