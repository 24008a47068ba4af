"""The two files of an edit patch, written for people to read, and read with nothing taken on trust."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import logging

from ..errors import EditableFileError, EditableValueError
from ..runs.files import settle, write_json
from ..runs.fingerprints import fingerprint
from ..runs.reading import parameter_bytes, read_json, read_tensors
from .added_neurons import belongs_to_neurons
from .changes import KINDS, Change, Whole, parameter_of


logger = logging.get_logger(__name__)


TENSORS_NAME = "edit_model.safetensors"


CONFIG_NAME = "edit_config.json"


FORMAT_VERSION = 2
# Of the tensors of a patch whose model is not at hand.
MOST_BYTES = 4 * 2**30
_OWN = {"changes": list, "edited_fingerprint": str, "edited_tensors": list, "format_version": int}


def write_patch(folder: Path, changes: Sequence[Change], metadata: Mapping[str, Any]) -> None:
    """
    Write a patch's files.

    Args:
        folder (`Path`): an existing folder.
        changes (`Sequence[Change]`): what the patch does.
        metadata (`dict[str, Any]`): what `edit_config.json` says beside the changes and the checksum of their tensors.
    """
    descriptions, tensors = [], {}
    for change in changes:
        description, own = change.saved()
        if twice := own.keys() & tensors.keys():
            raise EditableValueError(f"Two changes of the patch hold {sorted(twice)}. Fold them into one.")
        descriptions.append(description)
        tensors |= {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in own.items()
        }
    save_file(tensors, folder / TENSORS_NAME, metadata={"format": "pt"})
    written = {
        **metadata,
        "changes": descriptions,
        "edited_fingerprint": fingerprint(tensors),
        "edited_tensors": sorted(tensors),
        "format_version": FORMAT_VERSION,
    }
    write_json(folder / CONFIG_NAME, written)


def read_patch(
    folder: Path, name: str, kinds: Mapping[str, Any], parameters: Mapping[str, Tensor] | None = None
) -> tuple[tuple[Change, ...], dict[str, Any]]:
    """
    Read a patch's files, and check all of them that can be checked without a model.

    Args:
        folder (`Path`): where they are.
        name (`str`): what errors call the patch.
        kinds (`dict[str, type]`): names and types of what `write_patch` got as metadata.
        parameters (`dict[str, torch.Tensor]`, *optional*):
            those of the model that it is for; no tensor is read that has more values than its own.

    Returns:
        `tuple`: the changes, and the metadata under the known names. Files of format 1 hold whole tensors only.

    Raises:
        EditableFileError:
            if a file is missing, damaged, malformed or of a newer format, or the files do not belong together.
    """
    settle(folder)
    remedy = f"It needs a whole {CONFIG_NAME} and {TENSORS_NAME}, as EditPatch.save_pretrained writes them."
    try:
        known = _check_metadata(read_json(folder / CONFIG_NAME), {**kinds, **_OWN})
        tensors = _read_tensors(folder / TENSORS_NAME, parameters)
    except (OSError, ValueError) as error:
        raise EditableFileError(f"{name!r} is not an edit patch: {error}. {remedy}") from error
    found = fingerprint(tensors)
    if found != known["edited_fingerprint"]:
        raise EditableFileError(
            f"The tensors of {name!r} have the fingerprint {found}, but its {CONFIG_NAME} was written for "
            f"{known['edited_fingerprint']}: a file was damaged or exchanged. Get both files from their source again."
        )
    try:
        changes = _read_changes(known, tensors)
    except ValueError as error:
        raise EditableFileError(f"{name!r} is not an edit patch: of its {CONFIG_NAME}, {error}. {remedy}") from error
    return changes, {key: value for key, value in known.items() if key not in _OWN}


def described(folder: Path) -> dict[str, Any]:
    """
    What a patch's `edit_config.json` says, read without its tensors and not checked; nothing if it cannot be read.
    """
    try:
        described = read_json(folder / CONFIG_NAME)
    except (OSError, ValueError):
        return {}
    return described if isinstance(described, dict) else {}


def changed_kinds(described: Mapping[str, Any]) -> list[str]:
    """The kinds of a patch's changes, by what `edit_config.json` says; none if it does not tell."""
    try:
        return [each["kind"] for each in described.get("changes", [])]
    except (LookupError, TypeError):
        return []


def _read_changes(known: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Change, ...]:
    """The changes that the files hold; raises `ValueError` where they are of no known kind."""
    if known["format_version"] == 1:
        return (Whole(dict(tensors)),) if tensors else ()
    changes = []
    for description in known["changes"]:
        kind = description.get("kind") if isinstance(description, dict) else None
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"a change is of the kind {kind!r:.80}; known are {', '.join(KINDS)}")
        changes.append(KINDS[kind].load(description, tensors))
    return tuple(changes)


def _read_tensors(path: Path, parameters: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    if parameters is None:
        return read_tensors(path, MOST_BYTES)

    def check(name: str, shape: Sequence[int]) -> None:
        if belongs_to_neurons(name):
            return
        parameter = parameters.get(parameter_of(name))
        if parameter is None or math.prod(shape) > parameter.numel():
            raise ValueError(f"the model has no parameter {name!r:.200} of as many values as {tuple(shape)}")

    return read_tensors(path, max(parameter_bytes(parameters), MOST_BYTES), check)


def _check_metadata(metadata: Any, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The known fields; raises `ValueError` where one is missing or of a wrong type."""
    if not isinstance(metadata, dict):
        raise ValueError(f"the whole is {metadata!r:.80}, not an object")
    for name in ("base_fingerprint", "edited_fingerprint", "format_version"):
        if name not in metadata:
            raise ValueError(f"{name} is missing")
    known = {name: value for name, value in metadata.items() if name in kinds}
    for name, value in known.items():
        if not _fits(value, kinds[name]):
            allowed = kinds[name].__name__ if isinstance(kinds[name], type) else kinds[name]
            raise ValueError(f"{name} is {value!r:.80}; it must be {allowed}")
    if known["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"format_version is {known['format_version']}, and this version of hf_editable knows up to "
            f"{FORMAT_VERSION}: upgrade hf_editable"
        )
    if known["format_version"] > 1 and "changes" not in known:
        raise ValueError("changes is missing")
    if unknown := sorted(set(metadata) - set(known)):
        logger.warning(f"{CONFIG_NAME}: ignoring {', '.join(unknown)}, written by another version of hf_editable.")
    return known


def _fits(value: Any, kind: Any) -> bool:
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if isinstance(value, bool):
        return False  # to Python, a whole number
    if isinstance(value, dict):
        return dict[str, str] in kinds and all(isinstance(item, str) for item in value.values())
    if isinstance(value, int) and float in kinds:
        return True
    return any(isinstance(value, each) for each in kinds if isinstance(each, type) and not get_args(each))
