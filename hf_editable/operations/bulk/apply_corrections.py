"""A list of corrections applied to a model, one after the other or as one edit, so that it can be interrupted."""

import dataclasses
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from ...checks import check_count, given_settings
from ...errors import EditableFileError, EditableValueError
from ...models.weights import fingerprint_model
from ...patches.application import applied
from ...runs.files import check_folder, whole_folder
from ...runs.fingerprints import fingerprint_rows
from ...runs.journal import ROWS_NAME, Journal
from ...runs.places import check_apart
from ...runs.processes import process_state
from ..corrections.correction_list import Correction
from ..store.edit_store import EditStore
from .plan import ConflictPolicy, PlannedCorrection, plan_corrections
from .report import BulkReport
from .run import BulkRun


if TYPE_CHECKING:
    from ...correction.translation_editor import TranslationEditor
    from ..gate.impact import ImpactGate

logger = logging.get_logger(__name__)

RESULT_NAME = "result"


@dataclass(frozen=True)
class BulkSettings:
    """
    How a list of corrections is applied. [`apply_corrections`] takes these fields by name too.

    Args:
        joint (`bool`, *optional*, defaults to `False`): whether to make one edit of all corrections.
        on_conflict (`str`, *optional*, defaults to `"skip"`):
            what to apply where one source has two targets: none of them (`"skip"`), the `"first"` or the `"last"`;
            `"error"` raises.
        max_rounds (`int`, *optional*, defaults to `20`): see [`TranslationEditor.edit`].
        max_steps (`int`, *optional*): the most steps of a round of edits; `None` takes the model's.
        keep_earlier (`bool`, *optional*, defaults to `True`):
            Whether edits are made so that earlier corrections, of the list and of the store, go on being said; each
            edit then translates all of them.
        save_model (`bool`, *optional*, defaults to `True`): whether to write the corrected model.

    Raises:
        EditableValueError: if `max_rounds` is out of range.

    Example:

    ```python
    >>> from hf_editable.operations import EditStore, apply_corrections, read_corrections

    >>> store = EditStore.create("store", model)  # doctest: +SKIP
    >>> report = apply_corrections(editor, read_corrections("list.csv"), store, "out", joint=True)  # doctest: +SKIP
    >>> report.rows[0]["outcome"]  # doctest: +SKIP
    'accepted'
    ```
    """

    joint: bool = False
    on_conflict: ConflictPolicy | str = ConflictPolicy.SKIP
    max_rounds: int = 20
    max_steps: int | None = None
    keep_earlier: bool = True
    save_model: bool = True

    def __post_init__(self):
        check_count("max_rounds", self.max_rounds)


def apply_corrections(
    editor: "TranslationEditor",
    corrections: Sequence[Correction],
    store: EditStore,
    output_dir: str | os.PathLike,
    settings: BulkSettings | None = None,
    gate: "ImpactGate | None" = None,
    **options: Any,
) -> BulkReport:
    """
    Correct a model by a list of corrections.

    One after the other, each correction that the model does not say yet is an edit on top of the earlier ones. It is
    accepted if beam search says the target then and the gate accepts it; if not, the model stays as it was. Jointly,
    all of them are one edit, which is accepted if more of them are said with it than without it.

    What is accepted is in the store before it is noted in `output_dir`. A run that was interrupted goes on where it
    ended, if it is called again with the same arguments; an edit that only the store knows of is found there. At the
    end, `output_dir/result` appears in one step: `patch`, from the base model to all edits of the store; `model`, the
    base model with them; and the report, `corrections.json`, `corrections.md` and `corrections.html`. The
    editor's model is not changed.

    Args:
        editor ([`TranslationEditor`]): its model is the store's base, with no patch applied.
        corrections (`Sequence[Correction]`): see [`read_corrections`].
        store ([`EditStore`]): takes the edits. Those that it has already come first.
        output_dir (`str`): folder for the results and for what is finished meanwhile.
        settings ([`BulkSettings`], *optional*): how they are applied.
        gate ([`ImpactGate`], *optional*): measures each edit, and may refuse it; and all of them together at the end.
        options (`Any`): fields of [`BulkSettings`] by name.

    Raises:
        EditableTypeError: if an option is not known.
        EditableValueError: if there is no correction, there are conflicts and `on_conflict` is `"error"`, the model
            is not the store's base or has patches, the store was changed since the run was interrupted, several
            processes call this, or `output_dir` holds the results of other arguments.
        EditableFileError: if `output_dir` is a file or in the store, or files in it or the store are damaged.
    """
    settings = given_settings(BulkSettings, settings, options)
    _check_start(editor, corrections)
    result = check_folder(output_dir) / RESULT_NAME
    check_apart(result, [("store", store.path)])
    planned = plan_corrections(editor, corrections, settings.on_conflict)
    arguments = _arguments(editor, corrections, gate, settings)
    with _journal(result, arguments) as journal:
        if result.exists():
            return BulkReport.load(result)
        editor.warn_of_unknown([each.correction.source for each in planned if each.outcome is None])
        working = editor.on_copy()
        run = BulkRun(working, store, gate and gate.of(working), journal, arguments)
        report = run.report(_rows(run, planned, settings.joint), arguments)
        with whole_folder(result) as folder:
            run.save(folder, report, settings.save_model)
        return report


def _arguments(
    editor: "TranslationEditor", corrections: Sequence[Correction], gate: "ImpactGate | None", settings: BulkSettings
) -> dict[str, Any]:
    """What the results depend on, as a journal keeps it."""
    return {
        "model": fingerprint_model(editor.model),
        "corrections": fingerprint_rows(dataclasses.asdict(each) for each in corrections),
        "edit_config": editor.edit_config.to_dict(),
        "num_beams": editor.num_beams,
        "batch_size": editor.batch_size,
        "joint": settings.joint,
        "gate": None if gate is None else gate.arguments(),
        "on_conflict": ConflictPolicy(settings.on_conflict).value,
        "max_rounds": settings.max_rounds,
        "max_steps": settings.max_steps,
        "keep_earlier": settings.keep_earlier,
    }


def _journal(result: Path, arguments: dict[str, Any]) -> Journal:
    """The run's journal, beside its result; of a run that was killed while it wrote its results, nothing stays."""
    rows = result.with_name(ROWS_NAME)
    if result.exists() and not rows.exists():
        raise EditableFileError(f"{str(result)!r} is there, without {ROWS_NAME} of its run. Give another output_dir.")
    journal = Journal(rows, arguments)
    if not result.exists():
        for left in result.parent.glob(f".{RESULT_NAME}-*"):
            shutil.rmtree(left)
    return journal


def _rows(run: BulkRun, planned: list[PlannedCorrection], joint: bool) -> list[dict[str, Any]]:
    """The report's rows, after the edits that are still to make."""
    todo = [entry for entry in planned if entry.outcome is None]
    made = run.jointly(todo) if joint else run.in_order(todo)
    return [made.get(each.index) or each.row(each.outcome, [each.reason]) for each in planned]


def _check_start(editor: "TranslationEditor", corrections: Sequence[Correction]) -> None:
    if not corrections:
        raise EditableValueError("There are no corrections. Give at least one.")
    if count := len(applied(editor.model)):
        raise EditableValueError(
            f"The model has {count} patches applied. Take them back (patch.revert): the store's are applied here."
        )
    if process_state() is not None:
        raise EditableValueError("Corrections build on each other, so one process applies them. Start only one.")
