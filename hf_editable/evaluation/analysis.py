"""Which sentences an edit changes, and how alike the edits of a model are (paper, section 4.2)."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..decoding.generation import frozen
from ..errors import EditableValueError
from ..measures.edit_measures import STEPS, SUCCESS
from ..measures.similarity import cosine, means_by_decile, overlap, rank_correlation
from ..measures.statistics import bootstrap_interval
from ..modeling.mixin import EditableMixin
from ..reporting.analysis_report import EditAnalysis
from ..runs.fingerprints import fingerprint_rows
from ..runs.journal import ROWS_NAME, FinishedRows
from ..tail.decoder_tail import Tail
from .edit_space import embed, reduced, sklearn_version
from .reference_states import PREDICTIONS, ReferenceStates
from .settings import EvaluationSettings
from .study import PAIR_COLUMNS, Study, edit_row, measured, saved


# Nothing is translated.
_UNUSED = ("num_beams", "batch_size", "max_new_tokens", "bleu_tokenize", "lowercase")
NUM_WORST = 20


def analyze_edits(
    model: EditableMixin,
    tokenizer: PreTrainedTokenizerBase,
    edits: Dataset,
    test_set: Dataset,
    settings: EvaluationSettings | None = None,
    **options: Any,
) -> EditAnalysis:
    """
    Make single edits, each from the same model, and measure what each does to the predictions on each test sentence.

    The edits as points whose coordinates are the sentences' KL divergences are what the paper calls the edit space:
    its explained variance says in how many ways edits change the model, its t-SNE which edits change the same. The
    edited sentence itself, if it is in the test set, does not count: the mean of the others stands for it.

    On the processes of `accelerate launch`, all of which must call this, the edits are dealt out.

    Args:
        model ([`EditableMixin`]): the model to edit. It is not changed.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        edits ([`~datasets.Dataset`]): columns `source`, `target` and `alternatives`, as [`mine_edits`] gives them.
        test_set ([`~datasets.Dataset`]): columns `source` and `target`, at least 11 rows.
        settings ([`EvaluationSettings`], *optional*):
            How to measure; with the same ones, the edits are those of [`evaluate_edits`]. Its `output_dir` gets
            `analysis.json` and `divergences.npy`. Nothing is translated.
        options (*optional*): fields of [`EvaluationSettings`] and of [`EditConfig`].

    Returns:
        [`EditAnalysis`].

    Raises:
        EditableTypeError, EditableFileError: as [`evaluate_edits`] does.
        EditableValueError: as [`evaluate_edits`] does, and if there are too few test sentences, or one is empty.
    """
    study = Study(analyze_edits, model, tokenizer, settings, options, unused=_UNUSED)
    chosen, pairs, output_dir = study.choose_edits(edits), study.choose_pairs(test_set), study.settings.output_dir
    if len(pairs) < 11:
        raise EditableValueError(f"{len(pairs)} test sentences have no deciles by similarity; give 11 or more.")
    arguments = {**study.arguments(list(chosen.items())), "test_set": fingerprint_rows(pairs)}
    with FinishedRows(output_dir, ROWS_NAME, arguments) as finished:
        rows = finished.by_index
        measurement = _Measurement(study, pairs)
        left = {index: edit for index, edit in chosen.items() if index not in rows}
        for row in measurement.measure(left, len(chosen)):
            finished.add([row])
        return saved(measurement.analyze([rows[index] for index in chosen]), output_dir)


class _Measurement:
    """Edits of one model, and what each does to the predictions on one test set."""

    def __init__(self, study: Study, pairs: list[dict[str, str]]):
        self._study, self._pairs = study, pairs
        self._tail = Tail(study.model, study.config)
        with frozen(study.model):
            self._states = self._reference_states(pairs, PREDICTIONS)

    def measure(self, edits: dict[int, dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
        """One row for each edit; `total` counts those of an earlier run too."""
        for edit in edits.values():
            self._study.collator.collate_edits([edit])  # what cannot be edited is refused before the long work
        name = self._study.settings.name
        yield from measured(self._measure_edit, list(edits.items()), total, f"Analysing {name}")

    def _measure_edit(self, indexed: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        index, edit = indexed
        seen = self._study.make(edit)
        divergences = [0.0] * len(self._pairs)
        if seen.result is not None:
            patch, model = seen.result.patch, self._study.model
            if not patch.moves_only(self._tail.parameters):
                raise EditableValueError(
                    f"The editor {patch.editor!r} moves more than the edited layers, whose effect alone is analysed. "
                    "Choose another editor."
                )
            with frozen(model):
                divergences = self._states.divergences(patch.values(model)).tolist()
        measures = {measure.name: measure.value(seen) for measure in (SUCCESS, STEPS)}
        return {**edit_row(index, seen), **measures, "divergences": divergences}

    def analyze(self, rows: list[dict[str, Any]]) -> EditAnalysis:
        """What the rows of all edits come to."""
        divergences = np.array([row["divergences"] for row in rows], dtype=np.float64)
        sources = [pair["source"].strip() for pair in self._pairs]
        own = np.array([[source == row["source"].strip() for source in sources] for row in rows])
        others = np.where(own, np.nan, divergences)
        means = np.nanmean(others, 1)
        projected, explained = reduced(np.where(own, means[:, None], divergences))
        positions = embed(projected, self._study.settings.seed)
        edits = []
        for number, row in enumerate(rows):
            edit = {key: value for key, value in row.items() if key != "divergences"}
            itself = float(divergences[number][own[number]].mean()) if own[number].any() else None
            place = None if positions is None else positions[number].tolist()
            edits.append({**edit, "kl": float(means[number]), "kl_itself": itself, "tsne": place})
        itself = [edit["kl_itself"] for edit in edits if edit["kl_itself"] is not None]
        summary = {
            **self._study.circumstances(),
            "num_edits": len(rows),
            "num_test": len(self._pairs),
            "kl": float(means.mean()),
            "kl_interval": bootstrap_interval(means, self._study.settings.seed),
            "kl_itself": statistics.fmean(itself) if itself else None,
            "edits_in_test_set": len(itself),
            **SUCCESS.summary(rows),
            "failed_edits": sum(row["failed"] for row in rows),
            "explained_variance": explained,
            "similarity": {
                kind: self._dependence(np.where(own, np.nan, values), divergences)
                for kind, values in self._similarities(rows).items()
            },
            "worst_sentences": self._worst(others),
        }
        summary["versions"] |= {"numpy": np.__version__, **sklearn_version()}
        return EditAnalysis(summary, edits, divergences)

    def _reference_states(self, pairs: Sequence[Mapping[str, Any]], max_bytes: int = 0) -> ReferenceStates:
        collator = self._study.collator
        encoded = [collator.encode(name, [pair[name] for pair in pairs]) for name in PAIR_COLUMNS]
        return ReferenceStates(self._tail, collator, *encoded, max_bytes)

    def _similarities(self, rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        with frozen(self._study.model):
            edited = self._reference_states(rows)
            cosines = cosine(edited.embeddings(), self._states.embeddings())
        texts = [pair["source"] for pair in self._pairs]
        return {"overlap": overlap([row["source"] for row in rows], texts), "encoder": cosines}

    def _dependence(self, similarity: np.ndarray, divergences: np.ndarray) -> dict[str, Any]:
        """How the KL of a test sentence depends on its similarity to the edited one."""
        correlations = []
        for row, values in zip(similarity, divergences, strict=True):
            known = ~np.isnan(row)
            correlations.append(rank_correlation(row[known], values[known]))
        return {
            "rank_correlation": statistics.fmean(correlations),
            "rank_correlation_interval": bootstrap_interval(correlations, self._study.settings.seed),
            "kl_by_decile": means_by_decile(similarity, divergences),
        }

    def _worst(self, divergences: np.ndarray) -> list[dict[str, Any]]:
        counts = (~np.isnan(divergences)).sum(0)
        means = np.nansum(divergences, 0) / np.maximum(counts, 1)
        order = np.argsort(-means, kind="stable")[:NUM_WORST].tolist()
        return [{"index": index, **self._pairs[index], "kl": float(means[index])} for index in order]
