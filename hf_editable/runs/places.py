"""Places that results must not go to, because what they are made from is there."""

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import EditableFileError


# What makes a folder a store of edits; nothing else may be written into it.
STORE_FILE = "store.json"


def check_apart(
    output: str | os.PathLike,
    inputs: Iterable[tuple[str, str | os.PathLike]],
    is_file: bool = False,
    emptied: bool = False,
) -> None:
    """
    Check that writing results does not destroy what they are made from, whatever the places are called: by links,
    relative paths or other names of the same folder.

    Args:
        output (`str`): the folder that the results go to.
        inputs (`Iterable[tuple[str, str]]`): what is read: what errors call it, and its place. Names on the Hub are
            passed over.
        is_file (`bool`, *optional*, defaults to `False`): whether `output` is a file instead.
        emptied (`bool`, *optional*, defaults to `False`): whether all that is in the folder is removed.

    Raises:
        EditableFileError: if the output is an input, or in a store, or is emptied with an input in it.
    """
    for name, place in inputs:
        try:
            problem = _problem(Path(output), Path(place), is_file, emptied)
        except (OSError, ValueError):  # no such place, by its name
            continue
        if problem is not None:
            raise EditableFileError(
                f"The output {os.fspath(output)!r} {problem} {name} {os.fspath(place)!r}, which writing there would "
                "damage. Give another place for the output."
            )


def _problem(output: Path, place: Path, is_file: bool, emptied: bool) -> str | None:
    if not place.exists():
        return "is the" if output.resolve() == place.resolve() else None
    if _same(output, place):
        return "is the"
    inside = any(_same(each, place) for each in output.resolve().parents)
    if inside and (place / STORE_FILE).exists():
        return "is in the"
    if inside and is_file and output.exists():
        return "is a file of the"
    if emptied and any(_same(each, output) for each in place.resolve().parents):
        return "is emptied, and has in it the"
    return None


def _same(one: Path, other: Path) -> bool:
    # Links, and places that are mounted twice.
    return one.resolve() == other.resolve() or (one.exists() and os.path.samefile(one, other))
