"""Long runs that can be interrupted: finished rows on disk, and what they depend on."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import EditableFileError, EditableValueError
from .files import check_folder
from .processes import is_main_process, on_main
from .reading import read_bytes


# The journal's usual name in an output folder.
ROWS_NAME = "rows.jsonl"
MOST_BYTES = 2**30


class Journal:
    """
    A file of finished rows, one JSON object a line, headed by the arguments they were made with.

    A last line that was cut off by an interruption is dropped when the file is opened again. On several processes,
    all make and call the journal; the main one reads and writes the file, so any number of them can go on with it.

    Args:
        path (`str` or `os.PathLike`): the file; made, with its folder, if it is not there.
        arguments (`dict[str, Any]`): what the rows depend on, as plain JSON values.

    Attributes:
        rows (`list[dict[str, Any]]`): the rows that an earlier run finished.

    Raises:
        EditableValueError: if the file was written with other arguments; it names them.
        EditableFileError: if a line other than the last is damaged.
    """

    def __init__(self, path: str | os.PathLike, arguments: dict[str, Any]):
        self._path = Path(path)
        self.rows: list[dict[str, Any]] = on_main(lambda: self._open(arguments))

    def _open(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Whatever stands there, a pipe or a device among it.
        whole = read_bytes(self._path, MOST_BYTES).rpartition(b"\n") if self._path.exists() else (b"", b"", b"")
        if not whole[1]:
            self._path.write_text(json.dumps({"arguments": arguments}) + "\n", encoding="utf-8")
            return []
        try:
            header, *rows = [json.loads(line) for line in whole[0].decode("utf-8").split("\n")]
            earlier = header["arguments"]
        except (ValueError, KeyError, TypeError) as error:
            raise EditableFileError(f"{str(self._path)!r} is damaged ({error}). Delete it to start again.") from error
        check_arguments(self._path.parent, earlier, arguments)
        os.truncate(self._path, len(whole[0]) + 1)
        return rows

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write rows, so that they are kept if the run ends now."""
        if is_main_process():
            with open(self._path, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)


class FinishedRows:
    """
    The rows of a run by their `index`, those of an interrupted one among them; kept in a journal if there is a folder.

    Args:
        output_dir (`str`, *optional*): the folder; `None` keeps rows in memory alone.
        name (`str`): the journal's file in it.
        arguments (`dict[str, Any]`): what the rows depend on. See [`Journal`].

    Attributes:
        arguments (`dict[str, Any]`): what the rows depend on.
        by_index (`dict[int, dict[str, Any]]`): the rows.
    """

    def __init__(self, output_dir: str | os.PathLike | None, name: str, arguments: dict[str, Any]):
        self.arguments = arguments
        self._journal = None if output_dir is None else Journal(check_folder(output_dir) / name, arguments)
        self.by_index = {} if self._journal is None else {row["index"]: row for row in self._journal.rows}

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take in rows, and write them so that they are kept if the run ends now."""
        rows = list(rows)
        self.by_index.update((row["index"], row) for row in rows)
        if self._journal is not None:
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
