"""Taking back an edit of a store: the later ones are made anew on the model without it."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers.utils import logging

from ...configuration import EditConfig
from ...correction.translation_editor import JointEditResult, TranslationEditor, TranslationEditResult
from ...errors import EditableValueError, EditRefusedError, NonFiniteEditError
from ...measures.base import says
from ...patches.application import changed
from ...patches.patch import EditPatch
from ..corrections.correction_list import Correction
from ..gate.impact import ImpactGate
from ..gate.report import ImpactReport
from .manifest import StoredEdit, corrections_of
from .state import State


UNCHANGED = "The store and the model are as they were."


@dataclass(frozen=True)
class RevertResult:
    """
    What taking back an edit of a store came to.

    Args:
        reverted ([`StoredEdit`]): the edit that is gone.
        redone (`list[StoredEdit]`): the later edits, made anew on the model without it; their ids are the same.
        lost (`list[Correction]`): corrections that held before and do not any more; empty, unless `allow_lost`.
        patch ([`EditPatch`]):
            from the model with the edits as they were to that with the edits as they are. It is applied to the
            editor's model if that had the store's edits in it.
        impact ([`ImpactReport`], *optional*): of that patch, if a gate was given.
    """

    reverted: StoredEdit
    redone: list[StoredEdit]
    lost: list[Correction]
    patch: EditPatch
    impact: ImpactReport | None = None


def redo_edits(
    editor: TranslationEditor,
    edits: Sequence[StoredEdit],
    earlier: Sequence[StoredEdit],
    state: State,
    save: Callable[[StoredEdit, EditPatch], None],
    allow_lost: bool,
) -> tuple[list[StoredEdit], State]:
    """
    Make edits anew, one on top of the other. The editor's model is not changed.

    Args:
        editor ([`TranslationEditor`]): makes those of its own family of editors. Edits of another family are made by
            that, with its own settings, and with this editor's references, beams and step size.
        edits (`Sequence[StoredEdit]`): the edits as they were.
        earlier (`Sequence[StoredEdit]`): the edits before them, which they are to keep, as they keep each other.
        state ([`State`]): what to begin with.
        save (`Callable`): is called with each edit as it is now, and its patch.
        allow_lost (`bool`): whether an edit may come out worse than it was.

    Returns:
        `tuple`: the edits as they are now, and the state with them.

    Raises:
        EditableValueError: if an edit cannot be made, or comes out worse than it was.
    """
    redone: list[StoredEdit] = []
    editor = editor.on_copy()
    for edit in logging.tqdm(edits, desc="Redoing", unit="edit"):
        try:
            with changed(editor.model, state.changes(editor.model)):
                result = correct(_editor_of(edit, editor), edit.corrections, corrections_of([*earlier, *redone]))
        except (EditableValueError, NonFiniteEditError) as error:
            raise EditableValueError(f"The edit {edit.id} cannot be made anew: {error} {UNCHANGED}") from error
        said = decoded_all(result)
        # What beam search said counts; where nobody asked it, the constraint.
        held, holds = (edit.success, result.success) if edit.decoded is None else (edit.decoded, said)
        if held and not holds and not allow_lost:
            raise EditRefusedError(
                f"The edit {edit.id} of {edit.source!r} does not come out as well as it was when it is made anew. "
                f"{UNCHANGED} Revert it first, or give allow_lost=True."
            )
        measured = {"steps": result.steps, "success": result.success, "decoded": said, "accepted": None}
        measured["editor"] = result.patch.editor
        new = dataclasses.replace(edit, revision=edit.revision + 1, created=result.patch.created, **measured)
        save(new, result.patch)
        redone.append(new)
        state = state.after(result.patch.changes)
    return redone, state


def _editor_of(edit: StoredEdit, editor: TranslationEditor) -> TranslationEditor:
    """The editor, or one like it of the family that the edit is of."""
    if edit.editor in (None, editor.edit_config.editor):
        return editor
    shared = {field.name for field in dataclasses.fields(EditConfig)} - {"editor", "editor_options"}
    overrides = {name: value for name, value in editor.overrides.items() if name in shared}
    decoding = (editor.num_beams, editor.batch_size)
    return TranslationEditor(
        editor.model, editor.tokenizer, *decoding, edit.editor, references=editor.references, **overrides
    )


def correct(
    editor: TranslationEditor, corrections: Sequence[Correction], earlier: Sequence[Correction]
) -> TranslationEditResult | JointEditResult:
    """One edit for one or several corrections, which keeps the earlier ones."""
    keep = [(each.source, each.target) for each in earlier]
    if len(corrections) == 1:
        return editor.edit(corrections[0].source, corrections[0].target, keep=keep)
    sources, targets = [each.source for each in corrections], [each.target for each in corrections]
    return editor.edit_jointly(sources, targets, keep=keep)


def decoded_all(result: object) -> bool | None:
    """Whether beam search says all targets of an edit; `None` if the result does not tell."""
    decoded = getattr(result, "decoded", None)
    return all(decoded) if isinstance(decoded, list | tuple) else decoded


def lost_corrections(
    editor: TranslationEditor,
    corrections: Sequence[Correction],
    before: State,
    after: State,
) -> list[Correction]:
    """Those that the model says in the state before, and not in that after."""
    if not corrections:
        return []
    said, editor = [], editor.on_copy()
    for state in (before, after):
        with changed(editor.model, state.changes(editor.model)):
            texts = editor.translate([correction.source for correction in corrections])
        said.append([says(text, each.target) for text, each in zip(texts, corrections, strict=True)])
    return [each for each, held, holds in zip(corrections, *said, strict=True) if held and not holds]


def one_editor(editor: TranslationEditor | None, gate: ImpactGate | None) -> TranslationEditor | None:
    """
    The editor, or else the gate's.

    Raises:
        EditableValueError: if they have two models.
    """
    if gate is None:
        return editor
    if editor is not None and editor.model is not gate.editor.model:
        raise EditableValueError("The editor and the gate have two models. Make the gate with this editor.")
    return editor or gate.editor


def weigh(
    patch: EditPatch,
    corrections: list[Correction],
    states: tuple[State, State],
    editor: TranslationEditor | None,
    gate: ImpactGate | None,
    allow_lost: bool,
) -> tuple[ImpactReport | None, list[Correction]]:
    """
    Weigh a change of the store's edits.

    Args:
        patch ([`EditPatch`]): the change.
        corrections (`list[Correction]`): what is to hold with it.
        states (`tuple[State, State]`): the model's before it and after it.
        editor ([`TranslationEditor`], *optional*): asks the corrections.
        gate ([`ImpactGate`], *optional*): asks them instead, and measures the change.
        allow_lost (`bool`): whether corrections may be lost.

    Returns:
        `tuple`: what the gate measured, and the corrections that are lost.

    Raises:
        EditableValueError: if the gate refuses the change, or corrections are lost that must not be.
    """
    impact, lost = None, []
    if gate is not None:
        gate = gate.of(gate.editor.on_copy())
        with changed(gate.editor.model, states[0].changes(gate.editor.model)):
            impact = gate.measure(patch, keep=corrections)
        lost = impact.lost
        if not impact.accepted:
            raise EditRefusedError(f"The gate refuses the change: {' '.join(impact.reasons)} {UNCHANGED}")
    elif editor is not None:
        lost = lost_corrections(editor, corrections, *states)
    if lost and not allow_lost:
        named = "; ".join(f"{each.source!r} → {each.target!r}" for each in lost)
        raise EditRefusedError(
            f"Without the edit, {len(lost)} corrections that hold now would be lost: {named}. {UNCHANGED} Give "
            "allow_lost=True to accept that."
        )
    return impact, lost
