"""An edit as a small file: applied to the model it was made for, taken back bit for bit, shared on the Hub."""

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

import torch
from huggingface_hub import CommitInfo
from torch import Tensor, nn

from ..errors import EditableValueError
from ..hub.cards import write_card
from ..hub.patch_card import patch_card
from ..hub.transfer import download, upload
from ..runs.files import whole_folder
from ..runs.fingerprints import fingerprint
from ..runs.provenance import installed_versions
from .files import CONFIG_NAME, TENSORS_NAME, read_patch, write_patch


_APPLIED = "_applied_edit_patches"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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
        created (`str`, *optional*): when the patch was made, in UTC.
        versions (`dict[str, str]`, *optional*): versions of hf_editable, torch and transformers that made it.

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
    created: str | None = field(default_factory=_now)
    versions: dict[str, str] = field(default_factory=installed_versions)

    def apply(self, model: nn.Module) -> None:
        """
        Write the edited tensors into a model; `revert` takes them back.

        Patches stack: a patch made from a patched model is applied on top of the earlier ones. The model and the
        patch may be on different devices. If anything goes wrong, the model stays as it was.

        Raises:
            EditableValueError:
                if the model is not the one the patch was made for, has it in another data type, or has edited
                tensors that are tied to others or not in memory.
        """
        targets = _parameters(model, self.tensors)
        for name, tensor in self.tensors.items():
            _check_fit(name, tensor, targets[name])
        if (found := fingerprint(targets)) != self.base_fingerprint:
            applied = "It is applied already. " if _equal(self.tensors, targets) else ""
            raise EditableValueError(
                f"The patch was made for tensors with fingerprint {self.base_fingerprint}, this model's have {found}. "
                f"{applied}Apply it to the model that it was made from ({self.base_model or 'of unknown name'}), with "
                "the patches that were applied then."
            )
        originals = {name: tensor.detach().clone() for name, tensor in targets.items()}
        with _all_or_nothing(targets, originals):
            _copy(self.tensors, targets)
            model.__dict__.setdefault(_APPLIED, []).append((self, originals))

    def revert(self, model: nn.Module) -> None:
        """
        Put back the tensors as they were before `apply`, every bit of them.

        The model may have moved to another device since, or to another data type: then the tensors are those of the
        unpatched model in that type.

        Raises:
            EditableValueError:
                if the patch is not the last one applied to this model, or its tensors have changed since.
        """
        applied = [patch for patch, _ in model.__dict__.get(_APPLIED, [])]
        # By content, as a patch may come from memory or from disk.
        places = [
            place
            for place, patch in enumerate(applied)
            if patch.base_fingerprint == self.base_fingerprint and _equal(self.tensors, patch.tensors)
        ]
        if not places:
            listed = f"The applied ones are: {_numbered(applied)}." if applied else "None is applied."
            raise EditableValueError(f"The patch {self} is not applied to this model. {listed}")
        if later := applied[places[-1] + 1 :]:
            raise EditableValueError(
                f"The patch {self} is under {len(later)} applied later, which were made on top of it. Revert these "
                f"first, in this order: {_numbered(reversed(later))}."
            )
        targets = _parameters(model, self.tensors)
        if not _equal({name: tensor.to(targets[name].dtype) for name, tensor in self.tensors.items()}, targets):
            raise EditableValueError(
                "The model's tensors have changed since the patch was applied, by training or by a conversion to "
                "fewer bits and back, so reverting would lose that change. Load the base model again instead."
            )
        _, originals = model.__dict__[_APPLIED][-1]
        with _all_or_nothing(targets, self.tensors):
            _copy(originals, targets)
            model.__dict__[_APPLIED].pop()

    def __str__(self) -> str:
        text = f"{self.source!r} → {self.target!r}" if self.source is not None else "of an unnamed edit"
        return f"{text} (on base {self.base_fingerprint[:8]})"

    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """
        Write the patch to a folder: `edit_model.safetensors`, `edit_config.json` and a card. A `README.md` that a
        person wrote is kept.

        Raises:
            EditableFileError: if `save_directory` is a file.
        """
        self._write(save_directory)
        write_card(patch_card(self.card(), Path(save_directory).resolve().name), save_directory)

    def card(self) -> dict[str, Any]:
        """What the patch's card says of it; see [`~hub.patch_card.patch_card`]."""
        return {
            "source": self.source,
            "translation": self.target,
            "base model": self.base_model,
            "base revision": self.base_revision,
            "fingerprint of the base tensors": self.base_fingerprint,
            "edited tensors": len(self.tensors),
            "edited weights": sum(tensor.numel() for tensor in self.tensors.values()),
            "steps": self.steps,
            "edit loss before": self.loss_before,
            "edit loss after": self.loss_after,
            "length penalty λ": self.length_penalty,
            "created": self.created,
            **self.versions,
        }

    def _write(self, save_directory: str | os.PathLike) -> None:
        metadata = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "tensors"}
        with whole_folder(save_directory) as folder:
            write_patch(folder, self.tensors, metadata)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, **hub_kwargs: Any) -> "EditPatch":
        """
        Read a patch from a folder, or from the Hub by its name. Its tensors must be those that were saved, by their
        checksum.

        Args:
            name_or_path (`str`): a folder, or a repository of the Hub.
            hub_kwargs (*optional*): `revision`, `token`, `cache_dir`, … of [`~huggingface_hub.snapshot_download`].

        Raises:
            EditableFileError: if there is no such folder or repository, or a file in it is missing or damaged.
        """
        folder = Path(name_or_path)
        if not folder.is_dir():
            folder = download(name_or_path, [TENSORS_NAME, CONFIG_NAME], **hub_kwargs)
        kinds = {name: kind for name, kind in get_type_hints(cls).items() if name != "tensors"}
        tensors, metadata = read_patch(folder, os.fspath(name_or_path), kinds)
        return cls(tensors=tensors, **metadata)

    def push_to_hub(self, repo_id: str, *, commit_message: str = "Upload edit patch", **kwargs: Any) -> CommitInfo:
        """
        Upload the patch to the Hub, creating the repository if needed. A card there that a person wrote is kept.

        Args:
            repo_id (`str`): `user/name` of the repository.
            commit_message (`str`, *optional*, defaults to `"Upload edit patch"`): the commit's message.
            kwargs (*optional*): `token`, `private`, `revision`, `create_pr` and `commit_description`, as
                [`~transformers.PreTrainedModel.push_to_hub`] takes them.

        Returns:
            [`~huggingface_hub.CommitInfo`]: the commit; its `oid` is a revision to load the patch by.
        """
        card = functools.partial(patch_card, self.card())
        return upload(repo_id, save=self._write, card=card, commit_message=commit_message, **kwargs)


def _numbered(patches: Iterable[EditPatch]) -> str:
    return ", ".join(f"{number}. {patch}" for number, patch in enumerate(patches, 1))


def _parameters(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        if name not in parameters:
            raise EditableValueError(
                f"The patch has {name!r:.200}, which {type(model).__name__} does not have. Apply it to the model that "
                "it was made from."
            )
        aliases = [alias for alias, parameter in parameters.items() if parameter is parameters[name] and alias != name]
        if aliases:
            raise EditableValueError(
                f"{name!r} is tied to {aliases} in this model, so the patch would change them all. Untie them "
                "(tie_word_embeddings=False), or make the edit with that module in exclude_modules."
            )
    return {name: parameters[name] for name in names}


def _check_fit(name: str, tensor: Tensor, expected: Tensor) -> None:
    if expected.device.type == "meta":
        raise EditableValueError(
            f"The model's {name!r} is not in memory (device 'meta'). Load the model without offloading it."
        )
    if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
        raise EditableValueError(
            f"The patch's {name!r} is {tensor.dtype} of shape {tuple(tensor.shape)}; the model's is {expected.dtype} "
            f"of shape {tuple(expected.shape)}. Apply the patch to its own base model, loaded with "
            f"dtype={tensor.dtype}, and convert the model after that."
        )
    if not bool(torch.isfinite(tensor).all()):
        raise EditableValueError(
            f"The patch's {name!r} has NaN or infinite values, so it is not applied. Make the edit anew."
        )


@contextmanager
def _all_or_nothing(targets: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> Iterator[None]:
    """Put `before` back into `targets` if the block does not end well, also if the user interrupts it."""
    try:
        yield
    except BaseException:
        _copy(before, targets)
        raise


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
