"""The edits of a list of corrections, made and kept one by one or as one."""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from ...errors import EditableValueError, NonFiniteEditError
from ...models.weights import fingerprint_weights
from ...patches.application import put, take_back
from ...patches.patch import EditPatch
from ...runs.fingerprints import fingerprint
from ...runs.journal import Journal
from ...runs.provenance import machine, versions
from ..corrections.correction_list import Correction
from ..gate.report import ImpactReport
from ..store.edit_store import EditStore
from ..store.manifest import StoredEdit
from .plan import PlannedCorrection
from .report import RIGHT, BulkReport, Outcome


if TYPE_CHECKING:
    from ...correction.translation_editor import TranslationEditor
    from ..gate.impact import ImpactGate

PATCH_NAME = "patch"
MODEL_NAME = "model"
_MISTAKES = (EditableValueError, NonFiniteEditError)


class BulkRun:
    """
    The corrections of a list on their way into the model and the store.

    Args:
        editor ([`TranslationEditor`]): its model is the store's base. It is left with all edits of the store.
        store ([`EditStore`]): takes the edits.
        gate ([`ImpactGate`], *optional*): measures each edit, and may refuse it.
        journal ([`Journal`]): has the rows that an interrupted run finished.
        arguments (`dict[str, Any]`): `max_rounds`, `max_steps` and `keep_earlier`; see [`apply_corrections`].

    Raises:
        EditableValueError: if the store was changed since the run was interrupted.
    """

    def __init__(
        self,
        editor: "TranslationEditor",
        store: EditStore,
        gate: "ImpactGate | None",
        journal: Journal,
        arguments: dict[str, Any],
    ):
        self._editor, self._model = editor, editor.model
        self._store, self._gate = store, gate
        self._journal = journal
        self._options = {name: arguments[name] for name in ("max_rounds", "max_steps")}
        self._keep_earlier = arguments["keep_earlier"]
        self._rows = {row["index"]: row for line in journal.rows for row in line.get("rows", ())}
        self._right: list[Correction] = []
        self._load()

    def _load(self) -> None:
        """
        Bring the model to where the rows of the journal end. `_found` is the edit that the store has beyond them, if
        the run was killed before it was noted.
        """
        stored = [edit.id for edit in self._store.edits]
        if not self._journal.rows:
            self._journal.append([{"edits_before": stored}])
            self._before = stored
        else:
            self._before = self._journal.rows[0]["edits_before"]
        noted = [row["edit"] for _, row in sorted(self._rows.items()) if row.get("edit")]
        known = [*self._before, *dict.fromkeys(noted)]
        beyond = stored[len(known) :]
        if stored[: len(known)] != known or len(beyond) > 1:
            raise self._changed(f"its edits are {stored}, and the run left {known}")
        self._found: StoredEdit | None = self._store.edits[-1] if beyond else None
        if not beyond:
            self._store.load(self._model)
        elif known:
            self._store.merge(until=known[-1]).apply(self._model)

    def _apply(self, patch: EditPatch) -> None:
        """Put a patch on top of what is applied; as one with it, for each keeps the values that it has replaced."""
        put(self._model, patch.changes, patch, merge=True)

    def _fingerprint(self, names: Iterable[str]) -> str:
        parameters = dict(self._model.named_parameters(remove_duplicate=False))
        return fingerprint({name: parameters[name] for name in names})

    def _changed(self, how: str) -> EditableValueError:
        return EditableValueError(
            f"{self._store.path!r} was changed since this run was interrupted: {how}. Give another output_dir, to "
            "start with the store as it is."
        )

    def in_order(self, todo: Sequence[PlannedCorrection]) -> dict[int, dict[str, Any]]:
        """Rows of corrections that are applied one after the other, by their indices."""
        options = {
            "total": len(todo),
            "initial": len(self._rows),
            "desc": "Applying corrections",
            "unit": "correction",
        }
        with logging.tqdm(**options) as progress:
            for entry in todo:
                if entry.index not in self._rows:
                    row = self._correct(entry)
                    self._journal.append([{"rows": [row]}])
                    self._rows[entry.index] = row
                    progress.update()
                if self._rows[entry.index]["outcome"] == Outcome.ALREADY_RIGHT.value:
                    self._right.append(entry.correction)
        return self._rows

    def _correct(self, entry: PlannedCorrection) -> dict[str, Any]:
        """Make one correction, and leave it in the model if it is accepted."""
        correction = entry.correction
        if self._found is not None:
            return self._recover(entry)
        start = time.perf_counter()
        try:
            before = self._editor.translate([correction.source])[0]
            if _says(before, correction):
                return entry.row(Outcome.ALREADY_RIGHT, before=before, after=before)
            keep = self._to_keep([correction.source])
            result = self._editor.edit(correction.source, correction.target, keep=keep, **self._options)
        except _MISTAKES as error:
            return entry.row(Outcome.FAILED, [str(error)])
        measured = {"before": before, "after": result.translation, "steps": result.steps, "rounds": result.rounds}
        measured["milliseconds"] = 1000 * (time.perf_counter() - start)
        if not result.decoded:
            return entry.row(Outcome.NOT_DECODED, [_why_not(result.success)], **measured)
        impact = self._measure(result.patch, [correction.source])
        measured |= _brief(impact)
        if impact is not None and not impact.accepted:
            return entry.row(Outcome.REFUSED, impact.reasons, **measured)
        stored = self._store.add(result, impact, corrections=[correction], decoded=True)
        self._apply(result.patch)
        return entry.row(Outcome.ACCEPTED, edit=stored.id, **measured)

    def _recover(self, entry: PlannedCorrection) -> dict[str, Any]:
        """The row of an edit that the store has, and the run was killed before it noted."""
        source = entry.correction.source
        before = self._editor.translate([source])[0]
        stored = self._take_found([entry])
        after = self._editor.translate([source])[0]
        impact = self._store.impact(stored.id)
        measured = {"before": before, "after": after, "steps": stored.steps, **_brief(impact)}
        return entry.row(Outcome.ACCEPTED, edit=stored.id, **measured)

    def _take_found(self, entries: Sequence[PlannedCorrection]) -> StoredEdit:
        """Apply the edit that only the store knows of, if it is of these corrections."""
        stored, self._found = self._found, None
        asked = {(entry.correction.source, entry.correction.target) for entry in entries}
        if not {(each.source, each.target) for each in stored.corrections} <= asked:
            raise self._changed(f"its edit {stored.id} is of {stored.source!r}")
        self._apply(self._store.patch(stored.id))
        return stored

    def jointly(self, todo: Sequence[PlannedCorrection]) -> dict[int, dict[str, Any]]:
        """Rows of corrections that are one edit, by their indices."""
        if todo and not self._rows:
            rows, possible = [], []
            for entry in todo:
                reason = self._impossible(entry.correction)
                if reason is None:
                    possible.append(entry)
                else:
                    rows.append(entry.row(Outcome.FAILED, [reason]))
            if possible:
                rows += self._correct_together(possible)
            self._journal.append([{"rows": rows}])  # one line, so that a kill leaves all of them or none
            self._rows = {row["index"]: row for row in rows}
        return self._rows

    def _impossible(self, correction: Correction) -> str | None:
        """Why a correction cannot be edited, which would stop the edit of all."""
        try:
            self._editor.collator.encode("source", [correction.source])
            self._editor.written(correction.target, correction.source)
        except EditableValueError as error:
            return str(error)
        return None

    def _correct_together(self, entries: Sequence[PlannedCorrection]) -> list[dict[str, Any]]:
        """Make one edit of corrections, and leave it in the model if it is accepted."""
        corrections = [entry.correction for entry in entries]
        sources = [each.source for each in corrections]
        start = time.perf_counter()
        befores = self._editor.translate(sources)
        right = [_says(text, each) for text, each in zip(befores, corrections, strict=True)]
        answers = _Answers(entries, befores, right)
        if self._found is not None:
            stored = self._take_found(entries)
            impact = self._store.impact(stored.id)
            return answers.rows(self._editor.translate(sources), edit=stored.id, steps=stored.steps, **_brief(impact))
        if all(right):
            return answers.rows(befores)
        try:
            targets = [each.target for each in corrections]
            result = self._editor.edit_jointly(sources, targets, keep=self._to_keep(sources), **self._options)
        except _MISTAKES as error:
            return answers.rows(befores, (Outcome.FAILED, [str(error)]))
        measured = {"steps": result.steps, "rounds": result.rounds}
        measured["milliseconds"] = 1000 * (time.perf_counter() - start)
        if sum(result.decoded) <= sum(right):
            reason = f"The joint edit was not made: with it, {sum(result.decoded)} of {len(right)} are as asked, "
            reason += f"without it {sum(right)}."
            return answers.rows(befores, (Outcome.NOT_DECODED, [reason]), **measured)
        impact = self._measure(result.patch, sources)
        measured |= _brief(impact)
        if impact is not None and not impact.accepted:
            return answers.rows(befores, (Outcome.REFUSED, impact.reasons), **measured)
        made = [each for each, decoded in zip(corrections, result.decoded, strict=True) if decoded]
        stored = self._store.add(result, impact, corrections=made, decoded=True)
        self._apply(result.patch)
        return answers.rows(result.translations, edit=stored.id, **measured)

    def _measure(self, patch: EditPatch, sources: Sequence[str]) -> ImpactReport | None:
        """What the gate says of an edit of the sources, asked to keep what was corrected before."""
        if self._gate is None:
            return None
        return self._gate.measure(patch, keep=self._earlier(sources))

    def _to_keep(self, sources: Sequence[str]) -> list[tuple[str, str]]:
        """What an edit of the sources is to keep: earlier corrections of others."""
        return [(each.source, each.target) for each in self._earlier(sources)] if self._keep_earlier else []

    def _earlier(self, sources: Sequence[str]) -> list[Correction]:
        return [each for each in (*self._store.corrections, *self._right) if each.source not in sources]

    def report(self, rows: list[dict[str, Any]], arguments: dict[str, Any]) -> BulkReport:
        """What the rows came to, asked of the model with all edits."""
        if self._found is not None:
            raise self._changed(f"its edit {self._found.id} is none of the run")
        right = [row for row in rows if Outcome(row["outcome"]) in RIGHT]
        finals = self._editor.translate([row["source"] for row in right]) if right else []
        for row, final in zip(right, finals, strict=True):
            row |= {"final": final, "holds": final.strip() == row["target"]}
        summary = {
            **{name: value for name, value in arguments.items() if name not in ("model", "corrections")},
            "num_corrections": len(rows),
            "outcomes": {each.value: sum(row["outcome"] == each.value for row in rows) for each in Outcome},
            "right": len(right),
            "holding": sum(row["holds"] for row in right),
            "store": self._store.path,
            "edits_before": len(self._before),
            "edits_after": len(self._store.edits),
            "base_model": self._store.base_model,
            "machine": machine(self._model.device),
            "versions": versions(),
        }
        return BulkReport(summary, rows, self._whole_impact([Correction(r["source"], r["target"]) for r in right]))

    def _whole_impact(self, right: list[Correction]) -> ImpactReport | None:
        """What all edits of the run changed together."""
        patch = self._store.merge()
        if self._gate is None or patch is None or len(self._store.edits) == len(self._before):
            return None
        take_back(self._model)
        if self._before:
            self._store.merge(until=self._before[-1]).apply(self._model)
        base = self._fingerprint(patch.names)
        whole = dataclasses.replace(
            patch,
            base_fingerprint=base,
            model_fingerprint=fingerprint_weights(self._model),
            source=None,
            target=None,
        )
        return self._gate.measure(whole, keep=right)

    def save(self, folder: Path, report: BulkReport, save_model: bool) -> None:
        """Write the patch of all edits, the model with them, and the report."""
        patch = self._store.merge()
        if patch is not None:
            patch.save_pretrained(folder / PATCH_NAME)
        if save_model:
            take_back(self._model)
            self._store.load(self._model)
            self._model.save_pretrained(folder / MODEL_NAME)
            self._editor.tokenizer.save_pretrained(folder / MODEL_NAME)
        report.save(folder)


@dataclass
class _Answers:
    """Corrections of one edit, what the model said of them before, and whether that was right."""

    entries: Sequence[PlannedCorrection]
    befores: list[str]
    right: list[bool]

    def rows(
        self,
        afters: Sequence[str],
        refused: tuple[Outcome, Sequence[str]] | None = None,
        edit: str | None = None,
        **measured: Any,
    ) -> list[dict[str, Any]]:
        """One row each; `refused` is what became of those that were not right before, if the edit was not made."""
        rows = []
        for entry, before, right, after in zip(self.entries, self.befores, self.right, afters, strict=True):
            said = {"before": before, "after": after, **measured}
            if _says(after, entry.correction):
                outcome = (Outcome.ALREADY_RIGHT, {}) if right else (Outcome.ACCEPTED, {"edit": edit})
                rows.append(entry.row(outcome[0], **said, **outcome[1]))
            elif refused is not None:
                rows.append(entry.row(*refused, **said))
            else:
                reason = "With the joint edit, beam search says something else."
                rows.append(entry.row(Outcome.NOT_DECODED, [reason], **said))
        return rows


def _says(translation: str, correction: Correction) -> bool:
    return translation.strip() == correction.target


def _why_not(success: bool) -> str:
    if success:
        return "The target outranks all that was tried, and beam search still says something else."
    return "The edit took all its steps, and the target does not outrank all that was tried."


def _brief(impact: ImpactReport | None) -> dict[str, Any]:
    """What a row says of its impact; the store has the rest of those that are accepted."""
    if impact is None:
        return {}
    lost = [dataclasses.asdict(each) for each in impact.lost]
    bleu, chrf = (None if score is None else score.difference for score in (impact.bleu, impact.chrf))
    return {"impact": {"bleu": bleu, "chrf": chrf, "changed": len(impact.changed), "lost": lost}}
