"""An edit as a small file: applied to the model it was made for, taken back bit for bit, shared on the Hub."""

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import logging

from . import __version__
from .errors import EditableFileError, EditableValueError
from .files import whole_folder


logger = logging.get_logger(__name__)

TENSORS_NAME = "edit_model.safetensors"
CONFIG_NAME = "edit_config.json"
CARD_NAME = "README.md"
_APPLIED = "_applied_edit_patches"


@dataclass(eq=False)
class EditPatch:
    """
    The tensors that an edit changed, and what is needed to apply them to the right model only.

    Args:
        tensors (`dict[str, torch.Tensor]`): the edited tensors, whole, by their names in the model.
        base_fingerprint (`str`): [`fingerprint`] of the same tensors before the edit.
        source (`str`, *optional*): the sentence whose translation was corrected.
        target (`str`, *optional*): the translation that it was corrected to.
        loss_before (`float`, *optional*): `l_e` before the edit.
        loss_after (`float`, *optional*): `l_e` after it; at most 0 if the edit succeeded.
        steps (`int`, *optional*): steps that the edit took.
        length_penalty (`float`, *optional*): λ of the scores in `l_e`.
        base_model (`str`, *optional*): name or path of the model that was edited.
        base_revision (`str`, *optional*): its revision on the Hub, where known.
        version (`str`, *optional*): version of hf_editable that made the patch.

    Example:

    ```python
    >>> patch = model.edit(**edit).patch  # doctest: +SKIP
    >>> patch.apply(model)  # doctest: +SKIP
    >>> patch.revert(model)  # doctest: +SKIP
    ```
    """

    tensors: dict[str, Tensor]
    base_fingerprint: str
    source: str | None = None
    target: str | None = None
    loss_before: float | None = None
    loss_after: float | None = None
    steps: int | None = None
    length_penalty: float | None = None
    base_model: str | None = None
    base_revision: str | None = None
    version: str = field(default=__version__)

    def apply(self, model: nn.Module) -> None:
        """
        Write the edited tensors into a model; `revert` takes them back.

        Patches stack: a patch made from a patched model is applied on top of the earlier ones.

        Raises:
            EditableValueError: if the model is not the one the patch was made for. The model is unchanged then.
        """
        targets = self._targets(model)
        found = fingerprint(targets)
        if found != self.base_fingerprint:
            raise EditableValueError(
                f"The patch was made for tensors with fingerprint {self.base_fingerprint}, this model's have {found}. "
                "Apply it to the model that it was made from, with the patches that were applied then."
            )
        originals = {name: tensor.detach().clone() for name, tensor in targets.items()}
        _copy(self.tensors, targets)
        model.__dict__.setdefault(_APPLIED, []).append((self, originals))

    def revert(self, model: nn.Module) -> None:
        """
        Put back the tensors as they were before `apply`, every bit of them.

        Raises:
            EditableValueError:
                if the patch is not the last one applied to this model, or its tensors have changed since.
        """
        applied = model.__dict__.get(_APPLIED, [])
        if not applied:
            raise EditableValueError("No patch is applied to this model, so none can be reverted.")
        last, originals = applied[-1]
        if not _equal(self.tensors, last.tensors):
            raise EditableValueError(
                f"Another patch was applied to this model after this one ({len(applied)} in all; the last is for "
                f"{last.source!r}). Revert patches in the opposite order of their application."
            )
        targets = self._targets(model)
        if not _equal(self.tensors, targets):
            raise EditableValueError(
                "The model's tensors have changed since the patch was applied, so reverting would lose that change."
            )
        _copy(originals, targets)
        applied.pop()

    def _targets(self, model: nn.Module) -> dict[str, Tensor]:
        parameters = dict(model.named_parameters())
        for name, tensor in self.tensors.items():
            if name not in parameters:
                raise EditableValueError(f"The patch has {name!r}, which {type(model).__name__} does not have.")
            expected = parameters[name]
            if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
                raise EditableValueError(
                    f"The patch's {name!r} is {tensor.dtype} of shape {tuple(tensor.shape)}; "
                    f"the model's is {expected.dtype} of shape {tuple(expected.shape)}."
                )
            if not bool(torch.isfinite(tensor).all()):
                raise EditableValueError(f"The patch's {name!r} has NaN or infinite values; it is not applied.")
        return {name: parameters[name] for name in self.tensors}

    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """
        Write the patch to a folder: `edit_model.safetensors`, `edit_config.json` and a card. A `README.md` that is
        there already is kept.

        Raises:
            EditableFileError: if `save_directory` is a file.
        """
        with whole_folder(save_directory) as folder:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
            save_file(tensors, folder / TENSORS_NAME, metadata={"format": "pt"})
            metadata = json.dumps(self._metadata(), indent=2, sort_keys=True, ensure_ascii=False)
            (folder / CONFIG_NAME).write_text(metadata + "\n", encoding="utf-8")
            if not (Path(save_directory) / CARD_NAME).exists():
                (folder / CARD_NAME).write_text(self._card(), encoding="utf-8")

    def _metadata(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "tensors"}

    def _card(self) -> str:
        # A folder is a name here only; the Hub takes names of its own.
        on_hub = self.base_model and not Path(self.base_model).exists()
        base = f"base_model: {self.base_model}\n" if on_hub else ""
        return (
            f"---\nlibrary_name: hf_editable\ntags:\n- translation\n- model-editing\n{base}---\n\n"
            f"# Correction of one translation\n\n"
            f"- Source: {self.source}\n- Translation: {self.target}\n- Steps: {self.steps}\n"
            f"- Edit loss before and after: {self.loss_before} and {self.loss_after}\n\n"
            "```python\nfrom hf_editable import EditPatch\n\n"
            'EditPatch.from_pretrained("this repository").apply(model)\n```\n'
        )

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, **hub_kwargs: Any) -> "EditPatch":
        """
        Read a patch from a folder, or from the Hub by its name.

        Args:
            name_or_path (`str`): a folder, or a repository of the Hub.
            hub_kwargs (*optional*): `revision`, `token`, `cache_dir`, … of [`~huggingface_hub.snapshot_download`].

        Raises:
            EditableFileError: if a file is missing or damaged.
        """
        folder = Path(name_or_path)
        if not folder.is_dir():
            files = [TENSORS_NAME, CONFIG_NAME]
            folder = Path(snapshot_download(os.fspath(name_or_path), allow_patterns=files, **hub_kwargs))
        try:
            metadata = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
            tensors = load_file(folder / TENSORS_NAME)
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
            raise EditableFileError(
                f"{os.fspath(name_or_path)!r} is not an edit patch: {error}. It needs a whole {CONFIG_NAME} and "
                f"{TENSORS_NAME}, as EditPatch.save_pretrained writes them."
            ) from error
        known = {item.name for item in dataclasses.fields(cls)} - {"tensors"}
        unknown = sorted(set(metadata) - known)
        if unknown:
            logger.warning(f"{CONFIG_NAME}: ignoring {', '.join(unknown)}, written by another version of hf_editable.")
        if "base_fingerprint" not in metadata:
            raise EditableFileError(f"{CONFIG_NAME} has no base_fingerprint, so the patch's base is unknown.")
        return cls(tensors=tensors, **{name: value for name, value in metadata.items() if name in known})

    def push_to_hub(
        self, repo_id: str, *, token: str | None = None, private: bool | None = None, **kwargs: Any
    ) -> str:
        """
        Upload the patch to the Hub, creating the repository if needed.

        Args:
            repo_id (`str`): `user/name` of the repository.
            token (`str`, *optional*): access token; the one logged in with by default.
            private (`bool`, *optional*): whether a new repository is private.
            kwargs (*optional*): further arguments of [`~huggingface_hub.HfApi.upload_folder`].

        Returns:
            `str`: URL of the commit.
        """
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            if api.file_exists(repo_id, CARD_NAME):
                (Path(folder) / CARD_NAME).unlink()
            kwargs.setdefault("commit_message", "Upload edit patch")
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder, **kwargs).commit_url)


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of tensors, in hexadecimal; the same on every device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@torch.no_grad()
def _copy(values: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        targets[name].copy_(value)


def _equal(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    names: Iterable[str] = left.keys()
    return names == right.keys() and all(torch.equal(left[name], right[name].to(left[name].device)) for name in names)


def applied_patches(model: nn.Module) -> int:
    """How many patches are applied to a model and not reverted."""
    return len(model.__dict__.get(_APPLIED, []))


def restore(model: nn.Module, count: int) -> None:
    """Take back all but the first `count` applied patches, whatever became of their tensors since."""
    applied = model.__dict__.get(_APPLIED, [])
    while len(applied) > count:
        _, originals = applied.pop()
        _copy(originals, dict(model.named_parameters()))
