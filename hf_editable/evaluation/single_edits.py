"""Single edits of one model, each measured on a whole test set."""

from collections.abc import Iterator
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..checks import check_count, checked
from ..data.references import References
from ..decoding.generation import frozen
from ..errors import EditableValueError
from ..measures.observation import Observation
from ..measures.registry import measure_arguments, summary_of, values_of
from ..mining.target_prefixes import COLUMN as PREFIXES
from ..modeling.mixin import EditableMixin
from ..patches.application import changed
from ..patches.patch import EditPatch
from ..reporting.edit_report import EditReport
from ..runs.fingerprints import fingerprint_rows
from ..runs.journal import ROWS_NAME, FinishedRows
from ..tail.decoder_tail import Tail
from .full_divergence import full_divergence
from .settings import EvaluationSettings
from .study import EDIT_COLUMNS, Study, edit_row, losses, measured, saved
from .test_set import EncodedTestSet


_Edits = dict[int, dict[str, Any]]


@checked
def evaluate_edits(
    model: EditableMixin,
    tokenizer: PreTrainedTokenizerBase,
    edits: Dataset,
    test_set: Dataset,
    settings: EvaluationSettings | None = None,
    *,
    references: References | None = None,
    record_gigabytes: float = 4.0,
    verify: int = 0,
    **options: Any,
) -> EditReport:
    """
    Make single edits, each from the same model, and measure what each one changes (paper, section 4.3 and Table 6).

    The test set is translated after every edit as the edited model's own `generate` would do it, from a record of the
    search before it, and every registered measure is taken. An edit whose loss becomes NaN or infinite counts as one
    without success that changes nothing. On the processes of `accelerate launch`, the edits are dealt out.

    Args:
        model ([`EditableMixin`]): the model to edit. It is not changed.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        edits ([`~datasets.Dataset`]): columns `source`, `target` and `alternatives`, as [`mine_edits`] gives them.
        test_set ([`~datasets.Dataset`]): columns `source` and `target`.
        settings ([`EvaluationSettings`], *optional*): how to measure.
        references ([`References`], *optional*): sentences that are to stay so, for editors that need them.
        record_gigabytes (`float`, *optional*, defaults to `4.0`): most memory for the record, in 10⁹ bytes.
        verify (`int`, *optional*, defaults to `0`): so many translations, chosen at random, are decoded anew after
            every edit, to hold the record against.
        options (*optional*): fields of [`EvaluationSettings`], and of [`EditConfig`], such as `learning_rate=3e-4`.

    Raises:
        EditableTypeError: if the model is not editable, or a name is no field.
        EditableValueError: if a value is out of range, a dataset does not fit, or `output_dir` holds other results.
        EditableFileError: if `output_dir` is a file, or results in it are damaged.

    Example:

    ```python
    >>> report = evaluate_edits(model, tokenizer, edits, data["test"], num_edits=100)  # doctest: +SKIP
    >>> report.summary["drawdown"], report.summary["drawdown_interval"]  # doctest: +SKIP
    (0.76, [0.61, 0.93])
    ```
    """
    study = Study(evaluate_edits, model, tokenizer, settings, options, references)
    if not record_gigabytes >= 0:
        raise EditableValueError(f"record_gigabytes={record_gigabytes!r}: it must be 0 or more.")
    memory = (int(record_gigabytes * 1e9), check_count("verify", verify, least=0))
    chosen = study.choose_edits(edits, [*EDIT_COLUMNS, *([PREFIXES] if PREFIXES in edits.column_names else [])])
    pairs = study.choose_pairs(test_set)
    arguments = {**study.arguments(list(chosen.items())), **study.decoding, **study.scoring, **measure_arguments()}
    output_dir = study.settings.output_dir
    with FinishedRows(output_dir, ROWS_NAME, {**arguments, "test_set": fingerprint_rows(pairs)}) as finished:
        rows = finished.by_index
        if len(rows) == len(chosen) and (report := EditReport.load_finished(output_dir)):
            return report
        evaluation = _Evaluation(study, pairs, *memory)
        for row in evaluation.measure({n: edit for n, edit in chosen.items() if n not in rows}, len(chosen)):
            finished.add([row])
        return saved(evaluation.report([rows[index] for index in chosen]), output_dir)


class _Evaluation:
    """Edits of one model, measured one by one on one test set."""

    def __init__(self, study: Study, pairs: list[dict[str, str]], max_record_bytes: int, verify: int):
        self._study, self._pairs, self._verify = study, pairs, verify
        model = study.model
        self._tail = Tail(model, study.config)
        with frozen(model):
            # By generate: a record is held against it, and batches are formed by the lengths.
            self._encoding = (model, self._tail, study.collator, pairs, study.settings.batch_size)
            translations = EncodedTestSet(*self._encoding).translate(model, **study.limits)
            self._test_set = EncodedTestSet(*self._encoding, translations)
            translations = self._test_set.record(**study.limits, max_bytes=max_record_bytes)
        self._before = study.before(pairs, translations)

    def measure(self, edits: _Edits, total: int) -> Iterator[dict[str, Any]]:
        """One row for each edit; `total` counts those of an earlier run too."""
        for edit in edits.values():
            self._study.collator.collate_edits([edit])  # what cannot be edited is refused before the long work
        for edit in list(edits.values())[:1]:
            self._study.make(edit)  # the first call pays for what is set up once
        name = self._study.settings.name
        yield from measured(self._measure_edit, list(edits.items()), total, f"Editing {name}")

    def _measure_edit(self, indexed: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        index, edit = indexed
        seen = self._study.make(edit)
        self._look_at(seen)
        facts = {**edit_row(index, seen), **losses(seen), "decoded": seen.said}
        return {**facts, **values_of(seen), "changes": [list(change) for change in seen.changes]}

    def _look_at(self, seen: Observation) -> None:
        """Note what the edited model says of the edit's source and of the test set."""
        seen.before, seen.translations, seen.divergence = self._before, self._before.translations, lambda: 0.0
        if seen.result is None:
            return
        model, patch, test_set = self._study.model, seen.result.patch, self._test_set
        in_tail = patch.moves_only(self._tail.parameters)
        with changed(model, patch.changes, patch), frozen(model):
            (seen.said,) = self._study.translate([seen.edit["source"]])
            if not in_tail:  # what is kept of the encoder and the trunk does not hold
                test_set = EncodedTestSet(*self._encoding, self._before.translations)
            translations = test_set.retranslate() if in_tail else test_set.translate(model, **self._study.limits)
            if in_tail and self._verify:
                test_set.verify(translations, self._verify, self._study.settings.seed)
        seen.translations, seen.divergence = translations, lambda: self._divergence(patch, in_tail)

    def _divergence(self, patch: EditPatch, in_tail: bool) -> float:
        model, *_, batch_size = self._encoding
        with frozen(model):
            if in_tail:
                return self._test_set.divergence(self._tail, patch.values(model))
            return full_divergence(model, patch.changes, self._study.collator, self._pairs, batch_size)

    def report(self, rows: list[dict[str, Any]]) -> EditReport:
        """The report of finished rows; their changes stay in the journal."""
        summary = {
            **self._study.summary(),
            "record": self._test_set.describe_record(),
            **summary_of(rows, self._before),
            "num_edits": len(rows),
            "failed_edits": sum(row["failed"] for row in rows),
            "num_test": len(self._before),
        }
        return EditReport(summary, [{key: row[key] for key in row if key != "changes"} for row in rows])
