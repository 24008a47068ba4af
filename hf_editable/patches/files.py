"""The two files of an edit patch, written for people to read, and read with nothing taken on trust."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor
from transformers.utils import logging

from ..errors import EditableFileError
from ..runs.files import write_json
from ..runs.fingerprints import fingerprint


logger = logging.get_logger(__name__)


TENSORS_NAME = "edit_model.safetensors"


CONFIG_NAME = "edit_config.json"


FORMAT_VERSION = 1


def write_patch(folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """
    Write a patch's files.

    Args:
        folder (`Path`): an existing folder.
        tensors (`dict[str, torch.Tensor]`): the edited tensors.
        metadata (`dict[str, Any]`): what `edit_config.json` says beside the names and the checksum of the tensors.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / TENSORS_NAME, metadata={"format": "pt"})
    written = {
        **metadata,
        "edited_fingerprint": fingerprint(whole),
        "edited_tensors": sorted(whole),
        "format_version": FORMAT_VERSION,
    }
    write_json(folder / CONFIG_NAME, written)


def read_patch(folder: Path, name: str, kinds: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """
    Read a patch's files, and check all of them that can be checked without a model.

    Args:
        folder (`Path`): where they are.
        name (`str`): what errors call the patch.
        kinds (`dict[str, type]`): names and types of what `write_patch` got as metadata.

    Returns:
        `tuple`: the tensors, and the metadata under the known names.

    Raises:
        EditableFileError: if a file is missing, damaged or malformed, or the files do not belong together.
    """
    remedy = f"It needs a whole {CONFIG_NAME} and {TENSORS_NAME}, as EditPatch.save_pretrained writes them."
    try:
        text = (folder / CONFIG_NAME).read_text(encoding="utf-8")
        metadata = json.loads(text, parse_constant=_refuse_constant)
        # Not mapped from the file, which may change under the patch.
        tensors = load((folder / TENSORS_NAME).read_bytes())
    except (OSError, ValueError, KeyError, RecursionError, SafetensorError) as error:
        raise EditableFileError(f"{name!r} is not an edit patch: {error}. {remedy}") from error
    own = {"edited_fingerprint": str, "edited_tensors": list, "format_version": int}
    try:
        known = _check_metadata(metadata, {**kinds, **own})
    except ValueError as error:
        raise EditableFileError(f"{name!r} is not an edit patch: of its {CONFIG_NAME}, {error}. {remedy}") from error
    found = fingerprint(tensors)
    if found != known["edited_fingerprint"]:
        raise EditableFileError(
            f"The tensors of {name!r} have the fingerprint {found}, but its {CONFIG_NAME} was written for "
            f"{known['edited_fingerprint']}: a file was damaged or exchanged. Get both files from their source again."
        )
    return tensors, {name: value for name, value in known.items() if name not in own}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{CONFIG_NAME} has the value {name}, which is no JSON")


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
        logger.warning(
            f"{CONFIG_NAME} has format {known['format_version']}, and this version of hf_editable writes "
            f"{FORMAT_VERSION}: what the newer format adds is not used. Upgrade hf_editable to be sure."
        )
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
