"""Folders that are written whole or not at all, and the JSON files in them."""

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import EditableError, EditableFileError
from .reading import read_bytes


try:
    import fcntl
except ImportError:  # on Windows, where what an interrupted process left stays
    fcntl = None

Value = TypeVar("Value")

# A temporary folder: while it is written, and when it is whole and its files are on their way to their places; then
# the folder that they go to keeps its other files (`added`), or has no others (`alone`).
_TEMPORARY = re.compile(r"\..*-hf_editable_[0-9a-f]{8}(\.(?P<whole>added|alone))?", re.DOTALL)
_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}
# Of a report, which may list every translation.
MOST_BYTES = 2**28


def check_folder(folder: str | os.PathLike) -> Path:
    """
    The path of a folder to write to. What interrupted processes left in it is finished or removed, and a file is
    written there to try.

    Raises:
        EditableFileError: if nothing can be written there: it is a file, or is under one, the file system is full or
            read-only, its name is too long, ...
    """
    path = Path(folder)
    try:
        there = next(each for each in (path, *path.parents) if os.path.lexists(each))
        if not there.is_dir():
            what = "a link to nothing" if there.is_symlink() and not there.exists() else "a file"
            where = repr(os.fspath(folder)) + ("" if there == path else f" is under {str(there)!r}, which")
            raise EditableFileError(f"{where} is {what}; give a folder to write to.")
        if there == path:
            settle(path)
        _clear(there)
        with _temporary(there, path.name) as trial:
            inside = trial / path.relative_to(there)
            inside.mkdir(parents=True, exist_ok=True)
            (inside / "trial").write_bytes(b"1")
    except EditableError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise _refused(folder, "folder", error) from error
    return path


def check_file(file: str | os.PathLike) -> Path:
    """
    The path of a file to write, whose folder [`check_folder`] checks.

    Raises:
        EditableFileError: if it cannot be written, or something that is no file stands there.
    """
    path = Path(file)
    check_folder(path.parent)
    try:
        path.lstat()
    except FileNotFoundError:
        return path
    except (OSError, ValueError) as error:
        raise _refused(file, "file", error) from error
    if not path.is_file():
        raise EditableFileError(f"{os.fspath(file)!r} is no file; give a file to write.")
    return path


@contextmanager
def whole_folder(folder: str | os.PathLike, alone: bool = False) -> Iterator[Path]:
    """
    A temporary folder whose files are those of `folder` when the block ends without an exception.

    A new folder appears in one step. If `folder` exists, it may be a mount point, so the temporary one is inside; the
    new files replace those of the same name, each in one step, once all of them are written. If the process ends
    before that, the next one to write there removes what is left; if it ends after that, [`settle`] does the rest.

    Args:
        folder (`str`): the folder.
        alone (`bool`, *optional*, defaults to `False`): whether all else in it goes; otherwise, it stays.

    Raises:
        EditableFileError: if it cannot be written; see [`check_folder`].
    """
    path = check_folder(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _temporary(path if path.exists() else path.parent, path.name) as temporary:
            yield temporary
            if not path.exists():
                temporary.rename(path)
                return
            _check_fits(temporary, path)
            # Once it has this name, its files belong to the folder, whoever moves them there.
            whole = path / f"{temporary.name}.{'alone' if alone else 'added'}"
            _move(temporary.rename(whole), path)
    except Exception as error:
        if isinstance(error, EditableError) or (code := _write_error(error)) is None:
            raise
        reason = os.strerror(code)
        raise EditableFileError(
            f"{os.fspath(folder)!r} could not be written ({reason}). Make room, or give another folder."
        ) from error


def is_temporary(name: str) -> bool:
    """Whether a folder of this name is one that results are on their way in."""
    return _TEMPORARY.fullmatch(name) is not None


def settle(folder: str | os.PathLike) -> None:
    """
    Bring a folder to where [`whole_folder`] left it, if the process that wrote it was killed while its files moved to
    their places, or wait for that process.

    Raises:
        EditableFileError: if the files cannot be moved.
    """
    path = Path(folder)
    for left in _left(path, whole=True):
        with _held(left, wait=True) as mine:
            if mine or (fcntl is None and left.exists()):
                try:
                    _move(left, path)
                except OSError as error:
                    raise EditableFileError(
                        f"The files of {os.fspath(folder)!r} are in {left.name!r} in it, where an interrupted process "
                        f"left them, and cannot be moved ({error.strerror}). Allow writing there, or write it again."
                    ) from error


@contextmanager
def _temporary(parent: Path, name: str) -> Iterator[Path]:
    """A new folder in `parent`, which is this process's own for the block, and removed at its end."""
    short = name.encode("utf-8", "surrogateescape")[:40].decode("utf-8", "ignore")
    while True:
        temporary = parent / f".{short}-hf_editable_{secrets.token_hex(4)}"
        temporary.mkdir()
        with _held(temporary) as mine:
            if not mine and not temporary.exists():
                continue  # taken for a left one before it was held
            try:
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            return


@contextmanager
def _held(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Whether a folder is this process's own, for the block: it is nobody's when its process has ended."""
    if fcntl is None:
        yield False
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(descriptor), os.lstat(folder))
        except OSError:  # another's, or gone, or on a file system without locks
            mine = False
        yield mine
    finally:
        os.close(descriptor)


def _left(folder: Path, whole: bool) -> list[Path]:
    """Temporary folders, whole ones or those that are being written."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):
        return []
    found = {name: _TEMPORARY.fullmatch(name) for name in names}
    return [folder / name for name, match in sorted(found.items()) if match and (match["whole"] is not None) == whole]


def _clear(folder: Path) -> None:
    """Remove what processes that were killed were writing."""
    for left in _left(folder, whole=False):
        with _held(left) as mine:
            if mine:
                shutil.rmtree(left, ignore_errors=True)


def _check_fits(temporary: Path, path: Path) -> None:
    """Refuse what cannot be moved, before anything is."""
    for new in temporary.rglob("*"):
        place = path / new.relative_to(temporary)
        if place.exists() and (place.is_dir() != new.is_dir() or (new.is_dir() and place.is_mount())):
            kind = "a file" if not place.is_dir() else "another file system" if new.is_dir() else "a folder"
            raise EditableFileError(f"{str(place)!r} is {kind}, and is in the way. Give another folder.")


def _move(whole: Path, path: Path) -> None:
    """Move files to their places in `path`; called again after an interruption, it goes on."""
    if whole.suffix == ".alone":
        for old in path.iterdir():
            if _TEMPORARY.fullmatch(old.name):
                continue
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            else:
                old.unlink()
        whole = whole.rename(whole.with_suffix(".added"))
    for new in sorted(whole.rglob("*")):
        place = path / new.relative_to(whole)
        if new.is_dir():
            place.mkdir(exist_ok=True)
        else:
            os.replace(new, place)
    shutil.rmtree(whole, ignore_errors=True)


def _refused(place: str | os.PathLike, what: str, error: Exception) -> EditableFileError:
    reason = getattr(error, "strerror", None) or error
    return EditableFileError(f"{os.fspath(place)!r} cannot be written ({reason}). Give another {what}.")


def _write_error(error: Exception) -> int | None:
    """The number of an error of the file system while something was written; Rust's libraries give it in words."""
    if isinstance(error, OSError):
        code = error.errno
    else:
        code = int(found[1]) if (found := re.search(r"\(os error (\d+)\)", str(error))) else None
    return code if code in _WRITE_ERRORS else None


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
    settle(folder)
    try:
        return build(json.loads(read_bytes(Path(folder) / name, MOST_BYTES)))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        raise EditableFileError(
            f"{os.fspath(folder)!r} holds no whole {name} ({reason}). {writer} writes one."
        ) from error
