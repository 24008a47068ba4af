"""What a store's files amount to: patches, and the tensors of the base model with so many of them."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import EditableFileError, EditableValueError, StaleEditError
from ...models.weights import model_weights
from ...patches.added_neurons import AddedNeurons, RemovedNeurons
from ...patches.application import looked_up
from ...patches.changes import Lookup, Whole, changed_values
from ...patches.files import CONFIG_NAME, TENSORS_NAME, changed_kinds, described, read_patch
from ...patches.patch import EditPatch
from ...patches.scope import widest
from ...runs.fingerprints import fingerprint, fingerprint_sum
from ..corrections.correction_list import Correction
from ..gate.report import IMPACT_NAME, ImpactReport
from .edit_diff import EditDiff, tensor_changes
from .files import BASE, EDITS, look
from .manifest import Manifest, StoredEdit
from .state import State, changes_of_neurons, neurons_of, same_neurons


# Kinds of changes that no later one has in it.
_BESIDE = {Lookup.kind, AddedNeurons.kind, RemovedNeurons.kind}


class Contents:
    """
    The edits that one state of a store's `store.json` lists.

    Args:
        path (`Path`): the store.
        manifest ([`Manifest`]): what its `store.json` says.
    """

    def __init__(self, path: Path, manifest: Manifest):
        self._path = path
        self.manifest = manifest

    def look(self) -> tuple[tuple[int, ...], ...]:
        """
        Look at every file, without opening it; see [`look`].

        Returns:
            `tuple`: differs once other files are there.

        Raises:
            EditableFileError: if a file of the base or of a listed edit is missing, or is none.
        """
        return (*self.look_at(None), *chain.from_iterable(map(self.look_at, self.manifest.edits)))

    def look_at(self, edit: StoredEdit | None) -> list[tuple[int, ...]]:
        """`look` at the files of an edit; those of the base for `None`."""
        folders = [BASE] if edit is None else [EDITS, f"{EDITS}/{edit.folder}"]
        seen = [look(self._path, folder, is_folder=True)[:1] for folder in folders]
        seen += [look(self._path, f"{folders[-1]}/{name}") for name in (TENSORS_NAME, CONFIG_NAME)]
        if edit is not None and os.path.lexists(self.folder(edit) / IMPACT_NAME):
            seen.append(look(self._path, f"{folders[-1]}/{IMPACT_NAME}"))
        return seen

    def folder(self, edit: StoredEdit | None) -> Path:
        """Where an edit is; the base for `None`."""
        return self._path / BASE if edit is None else self._path / EDITS / edit.folder

    def base(self) -> dict[str, Tensor]:
        """The base model's own values of the tensors that edits may change."""
        self.look_at(None)
        changes, _ = read_patch(self._path / BASE, str(self._path / BASE), {"base_fingerprint": str})
        tensors = changed_values(changes, {})
        if tensors.keys() != set(self.manifest.tensors):
            raise EditableFileError(
                f"The store {str(self._path)!r} is damaged: {BASE} does not hold the tensors that its list names. "
                "Take it from a commit or a backup."
            )
        return tensors

    def patch(self, edit: StoredEdit) -> EditPatch:
        """The patch of an edit."""
        self.look_at(edit)  # from_pretrained would look for a missing one on the Hub
        return EditPatch.from_pretrained(self.folder(edit))

    def impact(self, edit: StoredEdit) -> ImpactReport | None:
        """The impact report of an edit, if it has one."""
        folder = self.folder(edit)
        return ImpactReport.load(folder) if (folder / IMPACT_NAME).exists() else None

    def describe(self, edit: StoredEdit) -> dict[str, Any]:
        """All that is known of an edit, as plain JSON values."""
        patch, impact, base = self.patch(edit), self.impact(edit), self.base()
        fields = {item.name for item in dataclasses.fields(patch)} - {"changes", "source", "target"}
        return {
            **edit.to_dict(),
            "folder": str(self.folder(edit)),
            "patch": {name: getattr(patch, name) for name in sorted(fields)},
            "changes": [change.saved()[0]["kind"] for change in patch.changes],
            "tensors": {name: list(base[name].shape) for name in sorted(patch.names)},
            "impact": None if impact is None else impact.to_dict(),
        }

    def diff(self, edit: StoredEdit) -> EditDiff:
        """What an edit changed, against the model with the edits before it."""
        before, impact = self.state(self.manifest.edits.index(edit)).tensors, self.impact(edit)
        changes = tensor_changes(before, changed_values(self.patch(edit).changes, before))
        return EditDiff(edit, changes, None if impact is None else impact.changed)

    def state(self, count: int) -> State:
        """The model with the first `count` edits."""
        needed, patches = set(self.manifest.tensors), []
        # Patches mostly hold whole tensors, so the last one often says it all, but for tables and neurons.
        for edit in reversed(self.manifest.edits[:count]):
            if needed or self.kinds(edit) & _BESIDE:
                patches.append(self.patch(edit))
                needed -= patches[-1].tensors.keys()
        found = State(self.base() if needed else {})
        for patch in reversed(patches):
            found = found.after(patch.changes)
        return State({name: found.tensors[name] for name in self.manifest.tensors}, found.table, found.neurons)

    def kinds(self, edit: StoredEdit) -> set[str]:
        """The kinds of an edit's changes, by what its `edit_config.json` says."""
        return set(changed_kinds(described(self.folder(edit))))

    def commute(self, edits: Sequence[StoredEdit]) -> bool:
        """Whether edits only add neurons, so that any of them can be taken out alone."""
        return all(self.kinds(edit) == {AddedNeurons.kind} for edit in edits)

    def without(self, place: int) -> State:
        """The model with all edits but one, after which all `commute`."""
        found = self.state(place)
        for edit in self.manifest.edits[place + 1 :]:
            found = found.after(self.patch(edit).changes)
        return found

    def merge(self, count: int) -> EditPatch | None:
        """One patch from the base model to the first `count` edits."""
        edits = self.manifest.edits[:count]
        if not edits:
            return None
        if len(edits) == 1:
            return self.patch(edits[0])
        steps = [edit.steps for edit in edits]
        patch = self.transition(State(self.base()), self.state(count))
        patch.steps = None if None in steps else sum(steps)
        return patch

    def transition(self, before: State, after: State) -> EditPatch:
        """A patch from one state of the model to another."""
        differing = [name for name, value in after.tensors.items() if not torch.equal(before.tensors[name], value)]
        table = {source: after.table.get(source, ()) for source in {**before.table, **after.table}}
        table = {source: said for source, said in table.items() if said != before.table.get(source, ())}
        neurons = changes_of_neurons(before.neurons, after.neurons)
        changed = differing or ([] if table or neurons else list(after.tensors))
        whole = [Whole({name: after.tensors[name] for name in changed})] if changed else []
        return EditPatch(
            changes=(*whole, *neurons, *([Lookup(table)] if table else [])),
            base_fingerprint=fingerprint({name: before.tensors[name] for name in changed}),
            model_fingerprint=self.model_fingerprint(before.tensors),
            editor=widest(edit.editor for edit in self.manifest.edits),
            base_model=self.manifest.base_model,
            base_revision=self.manifest.base_revision,
        )

    def check_patch(self, patch: EditPatch, before: Mapping[str, Tensor]) -> None:
        """
        Raises:
            EditableValueError: if a patch does not fit the store.
            StaleEditError: if it was not made on top of `before`.
        """
        if unknown := sorted(set(patch.names) - before.keys()):
            raise EditableValueError(
                f"The edit changes {unknown}, and edits of the store {str(self._path)!r} may change "
                f"{sorted(before)}. Make a store with EditStore.create(…, edit_config=…) whose editor, target_modules "
                "and layers_to_transform cover both."
            )
        self.check_fit(patch, before)
        expected = fingerprint({name: before[name] for name in patch.names})
        if expected != patch.base_fingerprint:
            raise StaleEditError(
                f"The edit was made from tensors with fingerprint {patch.base_fingerprint}; those of the base with "
                f"the {len(self.manifest.edits)} edits of the store {str(self._path)!r} have {expected}. Make it from "
                "the base model after store.load(model)."
            )
        whole = self.model_fingerprint(before)
        if None not in (whole, patch.model_fingerprint) and whole != patch.model_fingerprint:
            raise StaleEditError(
                f"The edit was made from a model whose weights have the fingerprint {patch.model_fingerprint}; those "
                f"of the base with the {len(self.manifest.edits)} edits of the store {str(self._path)!r} have "
                f"{whole}. Make it from the base model after store.load(model)."
            )

    def model_fingerprint(self, tensors: Mapping[str, Tensor]) -> str | None:
        """Of the whole model, if the edited tensors have these values; `None` if a store of earlier versions."""
        rest = self.manifest.rest_fingerprint
        return None if rest is None else fingerprint_sum(tensors, rest)

    def check_fit(self, patch: EditPatch, before: Mapping[str, Tensor]) -> None:
        """
        Raises:
            EditableValueError: if a patch changes tensors of another shape or type, or is not finite.
        """
        for change in patch.changes:
            for name in change.names:
                try:
                    change.check_fit(name, before[name])
                except EditableValueError as error:
                    raise EditableValueError(
                        f"The edit does not fit the store {str(self._path)!r}; {name!r}: it must be finite, and "
                        f"{before[name].dtype} of shape {tuple(before[name].shape)}. {error}"
                    ) from error

    def check_model(self, model: nn.Module) -> bool:
        """
        Find out in which state a model is.

        Returns:
            `bool`: whether it has all edits of the store; if not, it is the base.

        Raises:
            EditableValueError: if it is neither.
        """
        manifest, base = self.manifest, self.base()
        weights = model_weights(model)
        found = fingerprint({**weights, **base})
        if found != manifest.base_fingerprint or not base.keys() <= weights.keys():
            name = manifest.base_model or "the model that the store was made for"
            raise EditableValueError(
                f"The store {str(self._path)!r} is of a base model with fingerprint {manifest.base_fingerprint}, and "
                f"this {type(model).__name__} has {found}. Load {name}, in {next(iter(base.values())).dtype} and "
                "without training it further."
            )
        present, table = fingerprint({name: weights[name] for name in base}), looked_up(model)
        edited = self.state(len(manifest.edits))
        neurons = neurons_of(model)
        same = table == edited.table and same_neurons(neurons, edited.neurons)
        if manifest.edits and present == fingerprint(edited.tensors) and same:
            return True
        if present == fingerprint(base) and not table and not neurons:
            return False
        raise EditableValueError(
            f"The model has neither all {len(manifest.edits)} edits of the store {str(self._path)!r} in it nor none "
            "of them. Load the base model again, and then store.load(model)."
        )


def find(edits: Iterable[StoredEdit], id: str) -> StoredEdit:
    """
    The edit whose id is, or alone begins with, `id`.

    Raises:
        EditableValueError: if there is none, or there are several.
    """
    listed = list(edits)
    found = [edit for edit in listed if edit.id == id] or [edit for edit in listed if id and edit.id.startswith(id)]
    if len(found) == 1:
        return found[0]
    ids = ", ".join(edit.id for edit in (found or listed)[-20:]) or "none, as it is empty"
    problem = f"{len(found)} edits have ids that begin with {id!r}" if found else f"There is no edit {id!r}"
    raise EditableValueError(f"{problem}. Give one of the store's ids: {ids}.")


def named_corrections(patch: EditPatch, corrections: Sequence[Correction] | None) -> tuple[Correction, ...]:
    """
    What an edit corrects: what is given, or what its patch names.

    Raises:
        EditableValueError: if neither tells.
    """
    if corrections:
        return tuple(corrections)
    if patch.source is None or patch.target is None:
        raise EditableValueError(
            "The patch does not say what it corrects, so it could not be asked or made anew. Give corrections=[…]."
        )
    return (Correction(patch.source, patch.target),)
