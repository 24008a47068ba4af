"""How far edits reach: to the same sentence written otherwise, where they should, and to others, where not."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from sacrebleu.metrics import CHRF
from transformers import PreTrainedTokenizerBase

from ..data.collator import longest_input
from ..data.references import References
from ..errors import EditableValueError
from ..measures.base import says
from ..measures.edit_measures import DECODE_SUCCESS, STEPS, SUCCESS
from ..measures.observation import Observation
from ..measures.source_variants import KINDS, NUMBER_WORDS, NearestTexts, make_variant
from ..measures.statistics import bootstrap_interval
from ..modeling.mixin import EditableMixin
from ..patches.application import changed
from ..reporting.generality_report import GeneralityReport
from ..runs.fingerprints import fingerprint_rows
from ..runs.journal import ROWS_NAME, FinishedRows
from .settings import EvaluationSettings
from .study import Study, choose_rows, edit_row, measured, saved


# There is no test set.
_UNUSED = ("num_test", "bleu_tokenize", "lowercase")
_CHRF = CHRF()


def measure_generality(
    model: EditableMixin,
    tokenizer: PreTrainedTokenizerBase,
    edits: Dataset,
    corpus: Dataset,
    settings: EvaluationSettings | None = None,
    *,
    kinds: Sequence[str] = KINDS,
    number_words: Sequence[str] = NUMBER_WORDS,
    references: References | None = None,
    **options: Any,
) -> GeneralityReport:
    """
    Make single edits, each from the same model, and translate variants of their sources before and after.

    Variants with another case, punctuation or a typo mean the same, so the correction should carry over. One with
    another number, or the nearest other sentence of a corpus, does not, so its translation should stay. On the
    processes of `accelerate launch` the edits are dealt out.

    Args:
        model ([`EditableMixin`]): the model to edit. It is not changed.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        edits ([`~datasets.Dataset`]): columns `source`, `target` and `alternatives`, as [`mine_edits`] gives them.
        corpus ([`~datasets.Dataset`]): a column `source`, in which the nearest other sentences are found.
        settings ([`EvaluationSettings`], *optional*): how to measure.
        kinds (`Sequence[str]`, *optional*): the kinds of variants; see [`make_variant`]. By default all.
        number_words (`Sequence[str]`, *optional*): number words of the source language; by default German ones.
        references ([`References`], *optional*): sentences that are to stay so, for editors that need them.
        options (*optional*): fields of [`EvaluationSettings`] and of [`EditConfig`].

    Raises:
        EditableTypeError, EditableFileError: as [`evaluate_edits`] does.
        EditableValueError: as [`evaluate_edits`] does, and if there is no such kind.

    Example:

    ```python
    >>> report = measure_generality(model, tokenizer, edits, data["test"], num_edits=100)  # doctest: +SKIP
    >>> report.summary["kinds"]["typo"]["target"], report.summary["kinds"]["neighbour"]["unchanged"]  # doctest: +SKIP
    (0.31, 0.87)
    ```
    """
    study = Study(measure_generality, model, tokenizer, settings, options, references, _UNUSED)
    if not kinds or not set(kinds) <= set(KINDS):
        raise EditableValueError(f"kinds={list(kinds)!r}: choose one or more of {', '.join(KINDS)}.")
    chosen, output_dir = study.choose_edits(edits), study.settings.output_dir
    texts = [row["source"] for row in choose_rows("corpus", corpus, ("source",), None, 0).values()]
    made = {"kinds": [kind for kind in KINDS if kind in kinds], "number_words": list(number_words)}
    arguments = {**study.arguments(list(chosen.items())), **study.decoding, **made, "corpus": fingerprint_rows(texts)}
    with FinishedRows(output_dir, ROWS_NAME, arguments) as finished:
        rows = finished.by_index
        if len(rows) == len(chosen) and (report := GeneralityReport.load_finished(output_dir)):
            return report
        reach = _Reach(study, texts, **made)
        jobs = [item for item in chosen.items() if item[0] not in rows]
        for row in measured(reach.measure, jobs, len(chosen), f"Editing {study.settings.name}"):
            finished.add([row])
        ordered = [rows[index] for index in chosen]
        summary = {**study.summary(), **_measures(ordered, made["kinds"], study.settings.seed)}
        return saved(GeneralityReport(summary, ordered), output_dir)


class _Reach:
    """Edits of one model, each with the variants of its source."""

    def __init__(self, study: Study, corpus: list[str], kinds: list[str], number_words: list[str]):
        self._study, self._kinds, self._number_words = study, kinds, number_words
        self._longest = longest_input(study.tokenizer, study.model, "encoder")
        self._nearest = NearestTexts(corpus) if "neighbour" in kinds else None

    def variants(self, index: int, source: str) -> dict[str, str]:
        """The variants of an edit's source, by kind; they depend on the seed and the edit's index alone."""
        found = {}
        for kind in self._kinds:
            # Each kind has its own numbers, so that it is the same whichever others there are.
            rng = np.random.default_rng((self._study.settings.seed, index, KINDS.index(kind)))
            if kind == "neighbour":
                text = self._nearest(source)
            else:
                text = make_variant(kind, source, rng, self._number_words)
            if text is not None and (self._longest is None or len(self._tokens(text)) <= self._longest):
                found[kind] = text
        return found

    def measure(self, indexed: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        """The row of one edit."""
        index, edit = indexed
        target = edit["target"].strip()
        variants = self.variants(index, edit["source"])
        texts = [edit["source"], *variants.values()]
        seen = self._study.make(edit)
        before = self._study.translate(texts)
        after = before if seen.result is None else self._translate_edited(texts, seen)
        seen.said = after[0]
        return {
            **edit_row(index, seen),
            **{measure.name: measure.value(seen) for measure in (SUCCESS, STEPS, DECODE_SUCCESS)},
            "before": before[0],
            "decoded": after[0],
            "variants": [
                {
                    "kind": kind,
                    "text": text,
                    "same_tokens": self._tokens(text) == self._tokens(edit["source"]),
                    "before": old,
                    "after": new,
                    "chrf_before": _CHRF.sentence_score(old.strip(), [target]).score,
                    "chrf": _CHRF.sentence_score(new.strip(), [target]).score,
                }
                for (kind, text), old, new in zip(variants.items(), before[1:], after[1:], strict=True)
            ],
        }

    def _tokens(self, text: str) -> list[int]:
        return self._study.tokenizer(text, verbose=False).input_ids

    def _translate_edited(self, texts: list[str], seen: Observation) -> list[str]:
        with changed(self._study.model, seen.result.patch.changes):
            return self._study.translate(texts)


def _measures(rows: list[dict[str, Any]], kinds: list[str], seed: int) -> dict[str, Any]:
    """The measures over all edits, by kind of variant; kinds that no source has a variant of are left out."""
    by_kind = {}
    for kind in kinds:
        pairs = [(variant, row["target"]) for row in rows for variant in row["variants"]]
        pairs = [(variant, target) for variant, target in pairs if variant["kind"] == kind]
        if not pairs:
            continue
        variants = [variant for variant, _ in pairs]
        gains = [variant["chrf"] - variant["chrf_before"] for variant in variants]
        by_kind[kind] = {
            "count": len(pairs),
            "same_tokens": statistics.fmean(variant["same_tokens"] for variant in variants),
            "target_before": statistics.fmean(says(variant["before"], target) for variant, target in pairs),
            "target": statistics.fmean(says(variant["after"], target) for variant, target in pairs),
            "closer": statistics.fmean(gain > 0 for gain in gains),
            "unchanged": statistics.fmean(variant["before"] == variant["after"] for variant in variants),
            "chrf_before": statistics.fmean(variant["chrf_before"] for variant in variants),
            "chrf": statistics.fmean(variant["chrf"] for variant in variants),
            "gain": statistics.fmean(gains),
            "gain_interval": bootstrap_interval(gains, seed),
        }
    return {
        "kinds": by_kind,
        "num_edits": len(rows),
        "failed_edits": sum(row["failed"] for row in rows),
        **SUCCESS.summary(rows),
        **DECODE_SUCCESS.summary(rows),
        "chrf_signature": str(_CHRF.get_signature()),
    }
