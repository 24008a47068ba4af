"""
Editable checkpoints: plain ones, with the configuration of edits under one key of `config.json`, and the editor's own
tensors, if it has any, in a file that vanilla transformers does not look at.
"""

import copy
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from safetensors.torch import save_file
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from ..configuration import EditConfig
from ..errors import EditableFileError, EditableValueError
from ..hub.cards import write_card
from ..hub.model_card import MeasuredEdits, model_card
from ..hub.transfer import upload
from ..models.private_names import check_private_names
from ..runs.files import check_folder
from ..runs.reading import parameter_bytes, read_json, read_tensors
from .widened_checkpoints import widened


check_private_names(__name__)


CONFIG_KEY = "editable"
CONFIG_VERSION = 1
EDITOR_NAME = "editor.safetensors"
HUB_ARGUMENTS = ("commit_message", "commit_description", "private", "token", "revision", "create_pr", "tags")
# What a file of a repository is found by.
HUB_NAMES = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


def stored_edit_config(config: PretrainedConfig) -> EditConfig:
    """
    The configuration of edits that a checkpoint's configuration holds, or the defaults.

    Raises:
        EditableValueError: if it is none that edits can be made by.
    """
    values = getattr(config, CONFIG_KEY, None)
    return _read_config({} if values is None else values)


def _read_config(values: Any) -> EditConfig:
    if isinstance(values, dict):
        values = {name: value for name, value in values.items() if name != "version"}
    try:
        return EditConfig.from_dict(values)
    except EditableValueError as error:
        raise EditableValueError(
            f"The checkpoint's config.json has {CONFIG_KEY!r}, a configuration of edits, that cannot be used: {error} "
            "Mend it in the file, or take the key out."
        ) from error


def attach_editor(
    model: PreTrainedModel, name_or_path: str | os.PathLike, edit_config: EditConfig | None, kwargs: Mapping[str, Any]
) -> None:
    """
    Give a model the editor of the checkpoint that it was loaded from, or another.

    Args:
        model ([`EditableMixin`]): the model.
        name_or_path (`str`): folder of the checkpoint, or its name on the Hub.
        edit_config ([`EditConfig`], *optional*): `None` takes the checkpoint's own, or the defaults.
        kwargs (`dict[str, Any]`): what it was loaded with, the revision among them.

    Raises:
        EditableFileError: if the checkpoint's editor has tensors of its own, and they are missing or damaged.
    """
    model.edit_config = stored_edit_config(model.config) if edit_config is None else edit_config
    if edit_config is None and model.editor.own_tensors():
        options = {name: kwargs[name] for name in HUB_NAMES if kwargs.get(name) is not None}
        path = cached_file(name_or_path, EDITOR_NAME, _raise_exceptions_for_missing_entries=False, **options)
        _load_own_tensors(model, os.fspath(name_or_path), path)


def load_editor(model: PreTrainedModel, folder: str | os.PathLike) -> None:
    """
    Set a model's editor to the one saved in a checkpoint folder, in place, so that optimizers go on holding it.

    Raises:
        EditableFileError: if the folder holds no edit configuration, or not the editor's tensors.
    """
    path = Path(folder) / "config.json"
    try:
        values = read_json(path).get(CONFIG_KEY) if path.is_file() else None
    except (ValueError, AttributeError) as error:
        raise EditableFileError(f"{os.fspath(folder)!r} has no whole config.json ({error}).") from error
    if values is None:
        raise EditableFileError(f"{os.fspath(folder)!r} has no config.json with {CONFIG_KEY!r} in it.")
    model.editor.load_coefficients(_read_config(values).to_dict())
    if model.editor.own_tensors():
        _load_own_tensors(model, os.fspath(folder), Path(folder) / EDITOR_NAME)


def _load_own_tensors(model: PreTrainedModel, name: str, path: str | os.PathLike | None) -> None:
    editor = model.edit_config.editor
    try:
        if path is None or not Path(path).is_file():
            raise OSError("it is not there")
        model.editor.load_own_tensors(_read_own(model.editor.own_tensors(), Path(path)))
    except (OSError, ValueError, RuntimeError) as error:
        raise EditableFileError(
            f"{name!r} holds no whole {EDITOR_NAME} for its editor {editor!r}: {error}. Take the checkpoint from its "
            f"source again, or give edit_config=EditConfig(editor={editor!r}) for a new one."
        ) from error


def _read_own(expected: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    def check(name: str, shape: Sequence[int]) -> None:
        if name not in expected or tuple(shape) != expected[name].shape:
            raise ValueError(f"the editor has no tensor {name!r:.200} of shape {tuple(shape)}")

    return read_tensors(path, parameter_bytes(expected), check)


def save_checkpoint(
    model: PreTrainedModel, save_directory: str | os.PathLike, report: MeasuredEdits | None, **kwargs: Any
) -> None:
    """Write a checkpoint and its card, and upload it if asked to: see [`EditableMixin.save_pretrained`]."""
    check_folder(save_directory)
    push = kwargs.pop("push_to_hub", False)
    name = Path(save_directory).resolve().name
    repo_id = kwargs.pop("repo_id", name)
    hub_kwargs = {key: kwargs.pop(key) for key in HUB_ARGUMENTS if key in kwargs}
    save_files(model, save_directory, **kwargs)
    if not kwargs.get("is_main_process", True):
        return
    write_card(model_card(model, name, results=report and report.card()), save_directory)
    if push:
        model.push_to_hub(repo_id, report=report, **hub_kwargs)


def push_checkpoint(
    model: PreTrainedModel,
    repo_id: str,
    report: MeasuredEdits | None,
    commit_message: str,
    max_shard_size: int | str,
    tags: list[str] | None,
    **kwargs: Any,
) -> CommitInfo:
    """Upload a checkpoint with its card: see [`EditableMixin.push_to_hub`]."""
    tags = [*(tags or []), *(model.model_tags or [])]
    return upload(
        repo_id,
        save=functools.partial(save_files, model, max_shard_size=max_shard_size),
        card=lambda name: model_card(model, name, results=report and report.card(), tags=tags),
        commit_message=commit_message,
        **kwargs,
    )


def save_files(model: PreTrainedModel, save_directory: str | os.PathLike, **kwargs: Any) -> None:
    """Write the files of a checkpoint but its card; see [`~transformers.PreTrainedModel.save_pretrained`]."""
    setattr(model.config, CONFIG_KEY, {"version": CONFIG_VERSION, **model.edit_config.to_dict()})
    if kwargs.get("state_dict") is not None:
        kwargs["state_dict"] = {
            name: tensor for name, tensor in kwargs["state_dict"].items() if not name.startswith("editor.")
        }
    # The base class saves a view of this model under its own name, without the editor.
    vanilla = copy.copy(model)
    vanilla.__class__ = model.base_class()
    vanilla._modules = {name: module for name, module in model._modules.items() if name != "editor"}
    weights = vanilla.state_dict() if kwargs.get("state_dict") is None else kwargs["state_dict"]
    if (wide := widened(model, weights)) is not None:
        vanilla.config, kwargs["state_dict"] = wide
    vanilla.save_pretrained(save_directory, **kwargs)
    if kwargs.get("is_main_process", True):
        place = Path(save_directory) / EDITOR_NAME
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.editor.own_tensors().items()}
        if tensors:
            save_file(tensors, place, metadata={"format": "pt"})
        else:
            place.unlink(missing_ok=True)  # of another editor, saved here before
