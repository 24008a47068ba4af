"""An edit as a small file: applied to the model it was made for, taken back bit for bit, shared on the Hub."""

import dataclasses
import functools
import os
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

import torch
from huggingface_hub import CommitInfo
from torch import Tensor, nn
from transformers.utils import logging

from ..checks import check_text, checked
from ..errors import EditableValueError
from ..hub.cards import public_name, write_card
from ..hub.patch_card import patch_card
from ..hub.transfer import download, upload
from ..models.weights import fingerprint_weights
from ..runs.files import whole_folder
from ..runs.fingerprints import fingerprint, fingerprint_rows
from ..runs.provenance import installed_versions
from .added_neurons import AddedNeurons
from .application import (
    added_neurons,
    applied,
    lock,
    numbered,
    parameters_of,
    put,
    take_back,
    take_out,
)
from .changes import (
    Change,
    Whole,
    changed_values,
    fold,
    is_of_neurons,
    is_of_parameters,
    same_changes,
    same_tensors,
)
from .files import CONFIG_NAME, TENSORS_NAME, read_patch, write_patch
from .scope import check_scope


logger = logging.get_logger(__name__)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(eq=False)
class EditPatch:
    """
    What an edit changed, and what is needed to apply it to the right model only.

    Args:
        changes (`tuple[Change, ...]`):
            the changes, made one after the other; new values of tensors by their names are short for a [`Whole`].
        base_fingerprint (`str`): [`fingerprint`] of the changed tensors before the edit.
        source (`str`, *optional*): the sentence whose translation was corrected.
        target (`str`, *optional*): the translation that it was corrected to.
        loss_before (`float`, *optional*): `l_e` before the edit.
        loss_after (`float`, *optional*): `l_e` after it; at most 0 if the edit succeeded.
        steps (`int`, *optional*): steps that the edit took.
        length_penalty (`float`, *optional*): λ of the scores in `l_e`.
        base_model (`str`, *optional*):
            name or path of the model that was edited; of a path, files get the last part only.
        base_revision (`str`, *optional*): its revision on the Hub, where known.
        created (`str`, *optional*): when the patch was made, in UTC.
        versions (`dict[str, str]`, *optional*): versions of hf_editable, torch and transformers that made it.
        editor (`str`, *optional*): the family of the editor that made it; see [`EditConfig`].
        model_fingerprint (`str`, *optional*):
            [`fingerprint_weights`] of the model before the edit; patches of earlier versions do not have it.

    Example:

    ```python
    >>> patch = model.edit(**edit).patch  # doctest: +SKIP
    >>> patch.apply(model)  # doctest: +SKIP
    >>> patch.revert(model)  # doctest: +SKIP
    ```
    """

    changes: tuple[Change, ...]
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
    editor: str | None = None
    model_fingerprint: str | None = None

    def __post_init__(self):
        if isinstance(self.changes, Mapping):
            self.changes = (Whole(dict(self.changes)),) if self.changes else ()
        self.changes = tuple(self.changes)
        for name in ("source", "target"):
            if (text := getattr(self, name)) is not None:
                check_text(name, text)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that get whole new values, by name; those of other changes are not among them."""
        whole = [change.tensors for change in self.changes if isinstance(change, Whole)]
        return whole[0] if len(whole) == 1 else {name: tensor for each in whole for name, tensor in each.items()}

    @property
    def names(self) -> list[str]:
        """The model's parameters that get other values."""
        return list(dict.fromkeys(name for change in self.changes for name in change.names))

    def moves_only(self, names: Container[str]) -> bool:
        """Whether the patch changes nothing in the model but some of these parameters."""
        return is_of_parameters(self.changes) and all(name in names for name in self.names)

    def fingerprint(self) -> str:
        """A hash of what the patch holds, in hexadecimal."""
        saved = [change.saved() for change in self.changes]
        held = fingerprint({name: tensor for _, tensors in saved for name, tensor in tensors.items()})
        if all(isinstance(change, Whole) for change in self.changes):
            return held
        return fingerprint_rows([held, *(described for described, _ in saved)])

    @property
    def fits_plain_checkpoint(self) -> bool:
        """Whether a plain checkpoint of transformers can hold a model with the patch."""
        return all(change.fits_plain_checkpoint for change in self.changes)

    @checked
    def values(self, model: nn.Module) -> dict[str, Tensor]:
        """
        The values that the changed parameters have with the patch.

        Args:
            model ([`~torch.nn.Module`]): the model that it was made from, without it.

        Raises:
            EditableValueError: if the patch does not fit the model.
        """
        return changed_values(self.changes, parameters_of(model, self.changes))

    @checked
    def apply(self, model: nn.Module) -> None:
        """
        Change a model; `revert` takes the change back.

        Patches stack: a patch made from a patched model is applied on top of the earlier ones. The model and the
        patch may be on different devices. If anything goes wrong, the model stays as it was.

        Raises:
            EditableValueError:
                if the model is not the one the patch was made for, every weight of it, has it in another data type,
                or has edited tensors that are tied to others or not in memory; or if the patch changes other
                parameters than those of the decoder's layers, and its editor does not.
        """
        with lock(model):
            self.check_fit(model)
            put(model, self.changes, self)

    @checked
    def check_fit(self, model: nn.Module) -> None:
        """
        Check that a model is the one that the patch was made for.

        Raises:
            EditableValueError: as `apply` does.
        """
        targets = parameters_of(model, self.changes)
        self._check_new(model)
        check_scope(model, self.names, self.editor)
        if (found := fingerprint(targets)) != self.base_fingerprint:
            problem = f"tensors with fingerprint {self.base_fingerprint}, this model's have {found}."
        elif self.model_fingerprint is None:
            logger.warning_once(
                "The patch is of an earlier version, which noted the weights that it changes only. They are those "
                "of this model; whether its other weights are those of the patch's model is not known."
            )
            return
        elif (whole := fingerprint_weights(model)) != self.model_fingerprint:
            problem = (
                f"a model whose weights have the fingerprint {self.model_fingerprint}. Those that it changes are the "
                f"same in this one, but all together have {whole}."
            )
        else:
            return
        present = any(self._is(each.owner) for each in applied(model)) or same_tensors(self.tensors, targets)
        raise EditableValueError(
            f"The patch was made for {problem} "
            f"{'It is applied already. ' if present and targets else ''}Apply it to the model that it was made from "
            f"({self.base_model or 'of unknown name'}), with the patches that were applied then."
        )

    def _check_new(self, model: nn.Module) -> None:
        """Refuse neurons that a model has already: there is no second of the same."""
        keys = {group.key for change in self.changes if isinstance(change, AddedNeurons) for group in change.groups}
        present = {key for each in added_neurons(model) for key in each.groups}
        if keys and keys <= present:
            raise EditableValueError(f"The neurons of the patch {self} are in this model: it is applied already.")

    def _is(self, other: Any) -> bool:
        """Whether another patch is this one, by content: one may come from memory and one from disk."""
        same = isinstance(other, EditPatch) and other.base_fingerprint == self.base_fingerprint
        return same and same_changes(self.changes, other.changes)

    @checked
    def revert(self, model: nn.Module) -> None:
        """
        Put back the tensors as they were before `apply`, every bit of them.

        The model may have moved to another device since, or to another data type: then the tensors are those of the
        unpatched model in that type.

        Raises:
            EditableValueError:
                if the patch is not the last one applied to this model, or its tensors have changed since.
        """
        with lock(model):
            records = applied(model)
            patches = [each.owner for each in records]
            places = [place for place, patch in enumerate(patches) if self._is(patch)]
            if not places:
                listed = f"The applied ones are: {numbered(patches)}." if patches else "None is applied."
                raise EditableValueError(f"The patch {self} is not applied to this model. {listed}")
            later = patches[places[-1] + 1 :]
            after = (change for record in records[places[-1] :] for change in record.changes)
            if later and is_of_neurons(after):
                take_out(model, places[-1])
                return
            if later:
                raise EditableValueError(
                    f"The patch {self} is under {len(later)} applied later, which were made on top of it. Revert "
                    f"these first, in this order: {numbered(reversed(later))}."
                )
            self._check_unchanged(model, records[-1].originals)
            take_back(model, len(records) - 1)

    def _check_unchanged(self, model: nn.Module, originals: Mapping[str, Tensor]) -> None:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name, value in changed_values(self.changes, originals).items():
            now = parameters[name]
            if not torch.equal(value.to(now.device, now.dtype), now):
                raise EditableValueError(
                    "The model's tensors have changed since the patch was applied, by training or by a conversion to "
                    "fewer bits and back, so reverting would lose that change. Load the base model again instead."
                )

    def after(self, earlier: "EditPatch", model: nn.Module) -> "EditPatch":
        """
        This patch and the one that it was made on top of as one.

        Args:
            earlier ([`EditPatch`]): made from the model.
            model ([`~torch.nn.Module`]): without both.
        """
        both = (*earlier.changes, *self.changes)
        changes = fold(both, parameters_of(model, both))
        base = earlier.base_fingerprint
        if {name for change in changes for name in change.names} != set(earlier.names):
            base = fingerprint(parameters_of(model, changes))
        first = {"base_fingerprint": base, "model_fingerprint": earlier.model_fingerprint}
        return dataclasses.replace(self, changes=changes, **first)

    def __str__(self) -> str:
        text = f"{self.source!r} → {self.target!r}" if self.source is not None else "of an unnamed edit"
        return f"{text} (on base {self.base_fingerprint[:8]})"

    @checked
    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """
        Write the patch to a folder: `edit_model.safetensors`, `edit_config.json` and a card. A `README.md` that a
        person wrote is kept.

        Raises:
            EditableFileError: if `save_directory` is a file.
        """
        self._write(save_directory)
        write_card(patch_card(self.card(), Path(save_directory).resolve().name), save_directory)

    @property
    def size(self) -> int:
        """Numbers that the patch holds."""
        return sum(tensor.numel() for change in self.changes for tensor in change.saved()[1].values())

    def card(self) -> dict[str, Any]:
        """What the patch's card says of it; see [`~hub.patch_card.patch_card`]."""
        return {
            "source": self.source,
            "translation": self.target,
            "base model": public_name(self.base_model, self.base_revision),
            "base revision": self.base_revision,
            "fingerprint of the base model": self.model_fingerprint,
            "fingerprint of the base tensors": self.base_fingerprint,
            "edited tensors": len(self.names),
            "edited weights": self.size,
            "editor": self.editor,
            "steps": self.steps,
            "l_e before the edit": self.loss_before,
            "l_e after the edit": self.loss_after,
            "length penalty λ": self.length_penalty,
            "created": self.created,
            **self.versions,
        }

    def _write(self, save_directory: str | os.PathLike) -> None:
        metadata = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "changes"}
        metadata["base_model"] = public_name(self.base_model, self.base_revision)
        with whole_folder(save_directory) as folder:
            write_patch(folder, self.changes, metadata)

    @classmethod
    @checked
    def from_pretrained(
        cls, name_or_path: str | os.PathLike, *, model: nn.Module | None = None, **hub_kwargs: Any
    ) -> "EditPatch":
        """
        Read a patch from a folder, or from the Hub by its name. Its tensors must be those that were saved, by their
        checksum.

        Args:
            name_or_path (`str`): a folder, or a repository of the Hub.
            model ([`~torch.nn.Module`], *optional*):
                The model that it is for. Tensors that do not fit it are refused before they are read; without it,
                files of more than 4 GiB are.
            hub_kwargs (*optional*): `revision`, `token`, `cache_dir`, … of [`~huggingface_hub.snapshot_download`].

        Raises:
            EditableFileError: if there is no such folder or repository, or a file in it is missing or damaged.
        """
        folder = Path(name_or_path)
        if not folder.is_dir():
            folder = download(name_or_path, [TENSORS_NAME, CONFIG_NAME], **hub_kwargs)
        kinds = {name: kind for name, kind in get_type_hints(cls).items() if name != "changes"}
        parameters = None if model is None else dict(model.named_parameters(remove_duplicate=False))
        changes, metadata = read_patch(folder, os.fspath(name_or_path), kinds, parameters)
        return cls(changes=changes, **metadata)

    @checked
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
