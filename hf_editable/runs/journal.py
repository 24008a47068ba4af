"""Long runs that can be interrupted: finished rows on disk, and what they depend on."""

import errno
import hashlib
import json
import os
import sys
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..errors import EditableFileError, EditableValueError
from .files import check_folder
from .processes import is_main_process, on_main
from .reading import check_regular


try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.get_logger(__name__)

# The journal's usual name in an output folder.
ROWS_NAME = "rows.jsonl"
# What every line ends with. No measure can have this name.
CHECKSUM = "checksum-so-far"
_MOST_BYTES = 1 << 26  # of a line
_BEGINNING = b'{"arguments": '


class Journal:
    """
    A file of finished rows, one JSON object a line, headed by the arguments they were made with.

    Each line ends with a checksum of it and of all lines before it: so no row of another run, no row twice and none
    that was changed is taken for a finished one. A last line that was cut off by an interruption is dropped when the
    file is opened again.

    One run at a time has the file, from its opening to the end of the block: `with Journal(…) as journal`. On several
    processes, all make and call the journal; the main one reads and writes the file, so any number of them can go on
    with it.

    Args:
        path (`str` or `os.PathLike`, *optional*):
            the file; made, with its folder, if it is not there. `None` keeps nothing.
        arguments (`dict[str, Any]`): what the rows depend on, as plain JSON values.

    Attributes:
        rows (`list[dict[str, Any]]`): the rows that an earlier run finished.

    Raises:
        EditableValueError: if the file was written with other arguments; it names them.
        EditableFileError: if another run has the file, it cannot be opened, or a line other than the last is damaged.
    """

    def __init__(self, path: str | os.PathLike | None, arguments: dict[str, Any]):
        self._path = None if path is None else Path(path)
        self._file: FileIO | None = None
        self._checksum = ""
        self.rows: list[dict[str, Any]] = [] if path is None else on_main(lambda: self._open(arguments))

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def close(self) -> None:
        """Leave the file to other runs."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """
        Write rows, so that they are kept if the run ends now.

        Raises:
            EditableFileError: if the file was taken away since it was opened.
        """
        if self._path is None or not is_main_process():
            return
        if not _is_there(self._path, self._file):
            raise EditableFileError(
                f"{str(self._path)!r} was taken away while this run wrote it. Start the run again."
            )
        self._write(rows)

    def _write(self, rows: Iterable[dict[str, Any]]) -> None:
        checksum, lines = self._checksum, []
        for row in rows:
            checksum = _next_checksum(checksum, row)
            lines.append(json.dumps({**row, CHECKSUM: checksum}).encode() + b"\n")
        text, size = b"".join(lines), os.fstat(self._file.fileno()).st_size
        try:
            while text:
                text = text[self._file.write(text) :]
        except BaseException:
            self._file.truncate(size)  # no part of a line before the next one
            raise
        self._checksum = checksum

    def _open(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_alone(self._path)
        except OSError as error:
            if isinstance(error, EditableFileError):
                raise
            raise EditableFileError(f"{str(self._path)!r} cannot be written: {error}. Give another folder.") from error
        try:
            return self._read(arguments)
        except BaseException:
            self.close()
            raise

    def _read(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        rows, end = [], 0
        with open(self._path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MOST_BYTES), b""), 1):
                try:
                    if not line.endswith(b"\n"):
                        _check_torn(line, is_first=number == 1)
                        break
                    rows.append(self._checked(line))
                except (ValueError, TypeError, AttributeError, RecursionError) as error:
                    onward = "Delete it and all lines after it to go on from there" if rows else "Delete the file"
                    raise EditableFileError(
                        f"{str(self._path)!r} is damaged in line {number} ({str(error)[:200]}). {onward}, or give "
                        "another folder."
                    ) from error
                end += len(line)
        if rows:
            check_arguments(self._path.parent, rows[0]["arguments"], arguments)
        self._file.truncate(end)
        if not rows:
            self._write([{"arguments": arguments}])
        return rows[1:]

    def _checked(self, line: bytes) -> dict[str, Any]:
        """The row of a line, if it is what was written after the lines before it."""
        row = json.loads(line.decode("utf-8"))
        written = row.pop(CHECKSUM, None)
        self._checksum = _next_checksum(self._checksum, row)
        if written != self._checksum:
            raise ValueError("its checksum does not fit it and the lines before it")
        return row


def _check_torn(line: bytes, is_first: bool) -> None:
    """Whether text without an end is what an interruption leaves."""
    if len(line) == _MOST_BYTES:
        raise ValueError(f"it is longer than {_MOST_BYTES:,} bytes")
    if is_first and line[: len(_BEGINNING)] != _BEGINNING[: len(line)]:
        raise ValueError("it is not the head of a journal")


def _next_checksum(before: str, row: dict[str, Any]) -> str:
    return hashlib.sha256(f"{before}{json.dumps(row)}".encode()).hexdigest()[:16]


def _open_alone(path: Path) -> FileIO:
    """A file to append to that no other run has; the system takes it back when the process ends, however it ends."""
    while True:
        if path.exists():
            check_regular(path, sys.maxsize)
        file = open(path, "ab", buffering=0)  # noqa: SIM115
        try:
            _lock(path, file)
            if _is_there(path, file):  # it may have been taken away before it was locked
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(path: Path, file: FileIO) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise EditableFileError(
            f"{str(path)!r} is being written by another run. Wait until that is done, or give another folder."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
        logger.warning(f"{str(path)!r} is on a file system without locks: let no other run write to this folder.")


def _is_there(path: Path, file: FileIO) -> bool:
    """Whether the open file is the one at the path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


class FinishedRows:
    """
    The rows of a run by their `index`, those of an interrupted one among them; kept in a journal if there is a folder.

    Args:
        output_dir (`str`, *optional*): the folder; `None` keeps rows in memory alone.
        name (`str`): the journal's file in it.
        arguments (`dict[str, Any]`): what the rows depend on. See [`Journal`].

    It is used as a [`Journal`] is: `with FinishedRows(…) as finished`.

    Attributes:
        arguments (`dict[str, Any]`): what the rows depend on.
        by_index (`dict[int, dict[str, Any]]`): the rows.
    """

    def __init__(self, output_dir: str | os.PathLike | None, name: str, arguments: dict[str, Any]):
        self.arguments = arguments
        self._journal = Journal(None if output_dir is None else check_folder(output_dir) / name, arguments)
        self.by_index = {row["index"]: row for row in self._journal.rows}

    def __enter__(self) -> "FinishedRows":
        return self

    def __exit__(self, *exception: Any) -> None:
        self._journal.close()

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take in rows, and write them so that they are kept if the run ends now."""
        rows = list(rows)
        self.by_index.update((row["index"], row) for row in rows)
        self._journal.append(rows)


def check_arguments(folder: str | os.PathLike, earlier: dict[str, Any], arguments: dict[str, Any]) -> None:
    """
    Refuse to mix results.

    Raises:
        EditableValueError: if the results in `folder` were made with other arguments; it names them.
    """
    different = [
        f"{name} was {earlier.get(name)!r} and is now {arguments.get(name)!r}"
        for name in sorted(earlier.keys() | arguments.keys())
        if earlier.get(name) != arguments.get(name)
    ]
    if different:
        raise EditableValueError(
            f"{os.fspath(folder)!r} holds results made with other arguments: {'; '.join(different)}. "
            "Give another output_dir, or the earlier arguments."
        )
