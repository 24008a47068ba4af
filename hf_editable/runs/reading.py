"""
Files that a stranger may have made, read so that none costs more than it should: regular files, no devices or pipes,
of a limited size; JSON of finite numbers and whole characters; tensors whose sizes are known before they are read.
"""

import json
import math
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ..errors import EditableFileError


if TYPE_CHECKING:  # `--help` and errors do not wait for torch
    from torch import Tensor


# Of a file of JSON, which may take twenty times as much memory as it is long.
JSON_BYTES = 16 * 2**20
_HEADER_BYTES = 16 * 2**20
# Bytes of a number of the widest type.
_WIDEST = 8
# Half of a character beyond the first 65,536, as JSON can write it.
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def check_regular(path: str | os.PathLike, most: int) -> int:
    """
    The size of a file in bytes.

    Args:
        path (`str`): the file.
        most (`int`): how large it may be.

    Raises:
        EditableFileError: if it is missing, is no regular file, or is larger.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # among them names that no file can have
        reason = getattr(error, "strerror", None) or error
        raise EditableFileError(f"{os.fspath(path)!r} cannot be read ({reason})") from error
    if not stat.S_ISREG(found.st_mode):
        raise EditableFileError(f"{os.fspath(path)!r} is no file but a folder, a device or a pipe")
    if found.st_size > most:
        raise EditableFileError(f"{os.fspath(path)!r} has {found.st_size:,} bytes; files of up to {most:,} are read")
    return found.st_size


def read_bytes(path: str | os.PathLike, most: int = JSON_BYTES) -> bytes:
    """
    What a file holds. See `check_regular` for the arguments and errors.

    Raises:
        EditableFileError: also if it cannot be read, or grows meanwhile.
    """
    check_regular(path, most)
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise EditableFileError(f"{os.fspath(path)!r} cannot be read ({error})") from error
    if len(content) > most:
        raise EditableFileError(f"{os.fspath(path)!r} has more than {most:,} bytes, up to which files are read")
    return content


def parse_json(text: str) -> Any:
    """
    The values of JSON text.

    Raises:
        ValueError: if it is none, is nested too deeply, or has numbers that are not finite or halves of characters.
    """
    try:
        values = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if _ESCAPED_SURROGATE.search(text):
            json.dumps(values, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("it has half of a character (a lone surrogate)") from error
    return values


def read_json(path: str | os.PathLike) -> Any:
    """
    The values of a JSON file.

    Raises:
        EditableFileError: as `read_bytes` does.
        ValueError: as `parse_json` does, and if it is not UTF-8.
    """
    try:
        return parse_json(read_bytes(path).decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"{Path(path).name} is no JSON file: {error}") from error


def read_tensors(
    path: Path, most: int, check: Callable[[str, Sequence[int]], None] = lambda name, shape: None
) -> "dict[str, Tensor]":
    """
    The tensors of a safetensors file, on the CPU and in memory of their own: the file may change afterwards.

    Args:
        path (`Path`): the file.
        most (`int`): how many bytes it may have.
        check (`Callable`):
            is called with the name and the shape of each tensor before any is read, and may raise `ValueError`.

    Raises:
        EditableFileError: as `check_regular` does.
        ValueError: if the file is damaged.
    """
    check_regular(path, most)
    try:
        with open(path, "rb") as file:
            if (length := int.from_bytes(file.read(8), "little")) > _HEADER_BYTES:
                raise ValueError(f"the header of {path.name} is {length:,} bytes long")
        with safe_open(path, framework="pt") as content:
            for name in content.keys():  # noqa: SIM118 (it is no dictionary)
                check(name, content.get_slice(name).get_shape())
            return {name: content.get_tensor(name).clone() for name in content.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path.name} is no whole file of tensors ({error})") from error


def parameter_bytes(parameters: "Mapping[str, Tensor]") -> int:
    """The most bytes that a file with new values of parameters may have, in whatever type."""
    return sum(tensor.numel() for tensor in parameters.values()) * _WIDEST + _HEADER_BYTES


def _refuse(name: str) -> None:
    raise ValueError(f"it has the value {name}, which is no JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"it has the number {text:.40}, which is too large")
    return value
