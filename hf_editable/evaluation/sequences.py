"""Edits one after the other on one model: what many of them cost, and whether the earlier ones hold."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..checks import check_count
from ..data.references import References
from ..decoding.generation import frozen
from ..editors.problems.constraint import constraint_value
from ..errors import EditableValueError, NonFiniteEditError
from ..measures.base import says
from ..measures.edit_measures import MILLISECONDS, STEPS, SUCCESS
from ..measures.observation import Observation
from ..measures.registry import corpus_measures, measure_arguments
from ..modeling.mixin import EditableMixin
from ..patches.application import applied, lock, parameters_of, put, take_back
from ..patches.changes import Change, fold
from ..reporting.sequence_report import SequenceReport
from ..runs.files import check_folder
from ..runs.fingerprints import fingerprint_rows
from ..runs.journal import ROWS_NAME, Journal
from ..runs.processes import is_main_process
from .settings import EvaluationSettings
from .study import Study, edit_row, losses, saved


_Indexed = tuple[int, dict[str, Any]]
COUNTS = (1, 2, 5, 10, 20, 50, 100)


def edit_sequence(
    model: EditableMixin,
    tokenizer: PreTrainedTokenizerBase,
    edits: Dataset,
    test_set: Dataset,
    settings: EvaluationSettings | None = None,
    *,
    counts: Sequence[int] = COUNTS,
    references: References | None = None,
    **options: Any,
) -> SequenceReport:
    """
    Make edits one after the other, each of the model with all earlier ones, and measure after some of them.

    After each of `counts` edits, and before the first, the test set is translated; and for every edit made so far it
    is asked whether its target still outranks its alternatives, and whether beam search gives it. The edits are made
    in a random order. One that does not succeed stays in the model as far as it came, but for one whose loss becomes
    NaN or infinite, which changes nothing. Afterwards the model is as it was, bit for bit.

    A run that was interrupted makes its edits again, which is quick, and skips the measures that it has. Several
    processes do the same work.

    Args:
        model ([`EditableMixin`]): the model to edit.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        edits ([`~datasets.Dataset`]): columns `source`, `target` and `alternatives`, as [`mine_edits`] gives them.
        test_set ([`~datasets.Dataset`]): columns `source` and `target`.
        settings ([`EvaluationSettings`], *optional*): how to measure.
        counts (`Sequence[int]`, *optional*, defaults to `(1, 2, 5, 10, 20, 50, 100)`):
            After how many edits to measure. Those above the number of edits are left out; that number is added.
        references ([`References`], *optional*): sentences that are to stay so, for editors that need them.
        options (*optional*): fields of [`EvaluationSettings`] and of [`EditConfig`].

    Raises:
        EditableTypeError, EditableValueError, EditableFileError: as [`evaluate_edits`] does.

    Example:

    ```python
    >>> report = edit_sequence(model, tokenizer, edits, data["test"], num_edits=100)  # doctest: +SKIP
    >>> [(point["count"], point["bleu"], point["held"]) for point in report.summary["points"]]  # doctest: +SKIP
    ```
    """
    study = Study(edit_sequence, model, tokenizer, settings, options, references)
    ordered = _in_random_order(study.choose_edits(edits), study.settings.seed)
    pairs = study.choose_pairs(test_set)
    arguments = {
        **study.arguments(ordered),
        **study.decoding,
        **study.scoring,
        **measure_arguments(corpus_measures()),
        "test_set": fingerprint_rows(pairs),
        "counts": _counts(counts, len(ordered)),
    }
    output_dir = study.settings.output_dir
    with Journal(None if output_dir is None else check_folder(output_dir) / ROWS_NAME, arguments) as journal:
        points = {row["count"]: row for row in journal.rows}
        if points.keys() >= {0, *arguments["counts"]} and (finished := SequenceReport.load_finished(output_dir)):
            return finished
        return saved(_Sequence(study, pairs).report(ordered, arguments["counts"], points, journal), output_dir)


def _in_random_order(edits: dict[int, dict[str, Any]], seed: int) -> list[_Indexed]:
    order = torch.randperm(len(edits), generator=torch.Generator().manual_seed(seed)).tolist()
    indexed = list(edits.items())
    return [indexed[place] for place in order]


def _counts(counts: Sequence[int], most: int) -> list[int]:
    for count in counts:
        check_count("counts", count)
    if not counts:
        raise EditableValueError("counts is empty; give the numbers of edits to measure after, such as [1, 10, 100].")
    return sorted({count for count in counts if count < most} | {most})


class _Sequence:
    """Edits on top of each other, and the measures of the model that they make."""

    def __init__(self, study: Study, pairs: list[dict[str, str]]):
        self._study = study
        self._below = len(applied(study.model))
        self._kept: tuple[Change, ...] = ()
        self._before = study.before(pairs, study.translate([pair["source"] for pair in pairs]))

    def report(
        self, edits: list[_Indexed], counts: Sequence[int], points: dict[int, dict[str, Any]], journal: Journal
    ) -> SequenceReport:
        """Make all edits, and take the measures after `counts` of them that are not in `points` yet."""
        rows = []
        with closing(self._run(edits, counts, points)) as results:  # closing it puts the model back
            for kind, row in results:
                if kind == "edit":
                    rows.append(row)
                    continue
                points[row["count"]] = row
                journal.append([row])
        return SequenceReport(self._summary([points[count] for count in sorted(points)], rows), rows)

    def _run(
        self, edits: list[_Indexed], counts: Sequence[int], points: Mapping[int, Any]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Pairs of `"edit"` or `"point"` and a row; points that are there already are not measured again."""
        self._study.collator.collate_edits([edit for _, edit in edits])  # refused before the long work
        if 0 not in points:
            yield "point", self._measure([], [])
        made: list[bool] = []
        name = self._study.settings.name
        options = {"total": len(edits), "desc": f"Editing {name}", "unit": "edit", "disable": not is_main_process()}
        try:
            with logging.tqdm(**options) as progress:
                for count, (index, edit) in enumerate(edits, 1):
                    seen = self._study.make(edit)
                    row = _row(index, seen)
                    made.append(row["success"])
                    self._keep(seen)
                    yield "edit", row
                    if count in counts and count not in points:
                        yield "point", self._measure([edit for _, edit in edits[:count]], made)
                    progress.update()
        finally:
            take_back(self._study.model, self._below)

    def _keep(self, seen: Observation) -> None:
        """Leave an edit in the model, as one change with the earlier ones: each alone would be kept whole."""
        if seen.result is None:
            return
        model, changes = self._study.model, (*self._kept, *seen.result.patch.changes)
        with lock(model):
            take_back(model, self._below)
            self._kept = fold(changes, parameters_of(model, changes))
            put(model, self._kept)

    def _measure(self, edits: list[dict[str, Any]], made: list[bool]) -> dict[str, Any]:
        """What the model is worth now, and how many of the edits hold."""
        translations = self._study.translate(self._before.sources)
        decoded = self._study.translate([edit["source"] for edit in edits])
        said = [says(text, edit["target"]) for text, edit in zip(decoded, edits, strict=True)]
        with frozen(self._study.model):
            held = [self._holds(edit) for edit in edits]
        return {
            "count": len(edits),
            **{score.name: score.scorer(self._before).score_of(translations) for score in corpus_measures()},
            "changed_rate": len(self._before.changes(translations)) / len(translations),
            "made": sum(made),
            "held": sum(held),
            "decoded": sum(said),
            "held_edits": held,
            "decoded_edits": said,
        }

    def _holds(self, edit: dict[str, Any]) -> bool:
        model, config = self._study.model, self._study.config
        inputs = self._study.collator.edit_inputs(edit, model.device)
        inputs["alternative_labels"] = inputs["alternative_labels"][:, : config.num_alternatives]
        try:
            return constraint_value(model, [inputs], model.edit_length_penalty(config)) <= 0
        except NonFiniteEditError:
            return False

    def _summary(self, points: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The measures, and how they were taken."""
        summary = {
            **self._study.summary(),
            "points": points,
            "num_edits": len(rows),
            "num_test": len(self._before),
            "failed_edits": sum(row["failed"] for row in rows),
        }
        for score in corpus_measures():
            summary |= score.signature(self._before)
        return summary


def _row(index: int, seen: Observation) -> dict[str, Any]:
    time = None if seen.result is None else MILLISECONDS.value(seen)
    measures = {measure.name: measure.value(seen) for measure in (SUCCESS, STEPS)}
    return {**edit_row(index, seen), **losses(seen), **measures, "milliseconds": time}
