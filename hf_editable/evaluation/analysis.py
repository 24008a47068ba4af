"""Which sentences an edit changes, and how alike the edits of a model are (paper, section 4.2)."""

import os
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..checks import check_count
from ..data.collator import DataCollatorForEditableSeq2Seq
from ..decoding.generation import frozen
from ..errors import EditableValueError
from ..measures.similarity import cosine, means_by_decile, overlap, rank_correlation
from ..measures.statistics import bootstrap_interval
from ..modeling.mixin import EditableMixin, check_model
from ..reporting.analysis_report import EditAnalysis
from ..runs.fingerprints import fingerprint_model, fingerprint_rows
from ..runs.journal import ROWS_NAME, FinishedRows
from ..runs.processes import on_main
from ..runs.provenance import machine, versions
from ..tail.decoder_tail import Tail
from .edit_space import embed, reduced, sklearn_version
from .references import PREDICTIONS, ReferenceStates
from .study import choose_rows, measured, try_edit


NUM_WORST = 20


def analyze_edits(
    model: EditableMixin,
    tokenizer: PreTrainedTokenizerBase,
    edits: Dataset,
    test_set: Dataset,
    *,
    num_edits: int | None = None,
    num_test: int | None = None,
    output_dir: str | os.PathLike | None = None,
    seed: int = 0,
    name: str = "model",
    **edit_overrides: Any,
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
        num_edits (`int`, *optional*):
            How many of `edits` to make, chosen at random, the same as [`evaluate_edits`]; `None` takes all.
        num_test (`int`, *optional*): how many of `test_set` to take, chosen at random; `None` takes all.
        output_dir (`str`, *optional*):
            Folder for `analysis.json` and `divergences.npy`, and for what is finished meanwhile: a second call with
            the same arguments goes on where the first one ended.
        seed (`int`, *optional*, defaults to `0`): of the choices at random, the bootstrap and the t-SNE.
        name (`str`, *optional*, defaults to `"model"`): what tables and pictures call the model.
        edit_overrides (*optional*): fields of [`EditConfig`] to edit with, such as `learning_rate=3e-4`.

    Returns:
        [`EditAnalysis`].

    Raises:
        EditableTypeError: if the model is not editable.
        EditableValueError:
            if a number is out of range, a column is missing, there are too few test sentences, one is empty or longer
            than the model takes, or `output_dir` holds the results of other arguments.
        EditableFileError: if `output_dir` is a file, or results in it are damaged.
    """
    check_model(model)
    check_count("seed", seed, least=0)
    chosen = choose_rows("edits", edits, ("source", "target", "alternatives"), num_edits, seed)
    sentences = list(choose_rows("test_set", test_set, ("source", "target"), num_test, seed).values())
    if len(sentences) < 11:
        raise EditableValueError(f"{len(sentences)} test sentences have no deciles by similarity; give 11 or more.")
    arguments = {
        "name": name,
        "model": fingerprint_model(model),
        "edits": fingerprint_rows(chosen.items()),
        "test_set": fingerprint_rows(sentences),
        "edit_config": model.edit_config.replace(**edit_overrides).to_dict(),
        "seed": seed,
    }
    finished = FinishedRows(output_dir, ROWS_NAME, arguments)
    rows = finished.by_index
    measurement = _Measurement(model, tokenizer, chosen, sentences, arguments, edit_overrides)
    for row in measurement.measure([index for index in chosen if index not in rows]):
        finished.add([row])
    analysis = measurement.analyze([rows[index] for index in chosen])
    if output_dir is not None:
        on_main(lambda: analysis.save(output_dir))
    return analysis


class _Measurement:
    """Edits of one model, and what each does to the predictions on one test set."""

    def __init__(
        self,
        model: EditableMixin,
        tokenizer: PreTrainedTokenizerBase,
        edits: dict[int, dict[str, Any]],
        sentences: list[dict[str, str]],
        arguments: dict[str, Any],
        overrides: dict[str, Any],
    ):
        self._model, self._edits, self._sentences = model, edits, sentences
        self._arguments, self._overrides = arguments, overrides
        self._config = model.edit_config.replace(**overrides)
        self._collator = DataCollatorForEditableSeq2Seq(tokenizer, model)
        self._tail = Tail(model, self._config)
        with frozen(model):
            self._states = self._reference_states(sentences, PREDICTIONS)

    def measure(self, indices: list[int]) -> Iterator[dict[str, Any]]:
        """One row for each of the edits."""
        for index in indices:
            self._collator.collate_edits([self._edits[index]])  # what cannot be edited is refused before the long work
        total, name = len(self._edits), self._arguments["name"]
        yield from measured(self._measure_edit, indices, total, f"Analysing {name}")

    def _measure_edit(self, index: int) -> dict[str, Any]:
        edit = self._edits[index]
        row = {"index": index, "source": edit["source"], "target": edit["target"]}
        result, _ = try_edit(self._model, self._collator, edit, overrides=self._overrides)
        if result is None:
            unchanged = [0.0] * len(self._sentences)
            return {**row, "success": False, "steps": None, "failed": True, "divergences": unchanged}
        with frozen(self._model):
            divergences = self._states.divergences(result.patch.tensors).tolist()
        return {**row, "success": result.success, "steps": result.steps, "failed": False, "divergences": divergences}

    def analyze(self, rows: list[dict[str, Any]]) -> EditAnalysis:
        """What the rows of all edits come to."""
        divergences = np.array([row["divergences"] for row in rows], dtype=np.float64)
        sources = [sentence["source"].strip() for sentence in self._sentences]
        own = np.array([[source == row["source"].strip() for source in sources] for row in rows])
        others = np.where(own, np.nan, divergences)
        means = np.nanmean(others, 1)
        projected, explained = reduced(np.where(own, means[:, None], divergences))
        positions = embed(projected, self._arguments["seed"])
        edits = []
        for number, row in enumerate(rows):
            edit = {key: value for key, value in row.items() if key != "divergences"}
            itself = float(divergences[number][own[number]].mean()) if own[number].any() else None
            place = None if positions is None else positions[number].tolist()
            edits.append({**edit, "kl": float(means[number]), "kl_itself": itself, "tsne": place})
        itself = [edit["kl_itself"] for edit in edits if edit["kl_itself"] is not None]
        summary = {
            "name": self._arguments["name"],
            "kl": float(means.mean()),
            "kl_interval": list(bootstrap_interval(means, self._arguments["seed"])),
            "kl_itself": statistics.fmean(itself) if itself else None,
            "edits_in_test_set": len(itself),
            "success_rate": statistics.fmean(row["success"] for row in rows),
            "failed_edits": sum(row["failed"] for row in rows),
            "explained_variance": explained,
            "similarity": {
                kind: self._dependence(np.where(own, np.nan, values), divergences)
                for kind, values in self._similarities(rows).items()
            },
            "worst_sentences": self._worst(others),
        }
        return EditAnalysis({**summary, **self._circumstances(len(rows))}, edits, divergences)

    def _reference_states(self, pairs: list[dict[str, str]], max_bytes: int = 0) -> ReferenceStates:
        encoded = [self._collator.encode(name, [pair[name] for pair in pairs]) for name in ("source", "target")]
        return ReferenceStates(self._tail, self._collator, *encoded, max_bytes)

    def _similarities(self, rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        sources = [{"source": row["source"], "target": row["target"]} for row in rows]
        with frozen(self._model):
            edited = self._reference_states(sources)
            cosines = cosine(edited.embeddings(), self._states.embeddings())
        texts = [sentence["source"] for sentence in self._sentences]
        return {"overlap": overlap([row["source"] for row in rows], texts), "encoder": cosines}

    def _dependence(self, similarity: np.ndarray, divergences: np.ndarray) -> dict[str, Any]:
        """How the KL of a test sentence depends on its similarity to the edited one."""
        correlations = []
        for row, values in zip(similarity, divergences, strict=True):
            known = ~np.isnan(row)
            correlations.append(rank_correlation(row[known], values[known]))
        return {
            "rank_correlation": statistics.fmean(correlations),
            "rank_correlation_interval": list(bootstrap_interval(correlations, self._arguments["seed"])),
            "kl_by_decile": means_by_decile(similarity, divergences),
        }

    def _worst(self, divergences: np.ndarray) -> list[dict[str, Any]]:
        counts = (~np.isnan(divergences)).sum(0)
        means = np.nansum(divergences, 0) / np.maximum(counts, 1)
        order = np.argsort(-means, kind="stable")[:NUM_WORST].tolist()
        return [{"index": index, **self._sentences[index], "kl": float(means[index])} for index in order]

    def _circumstances(self, num_edits: int) -> dict[str, Any]:
        return {
            "num_edits": num_edits,
            "num_test": len(self._sentences),
            "length_penalty": self._model.edit_length_penalty(self._config),
            "edit_config": self._arguments["edit_config"],
            "seed": self._arguments["seed"],
            "machine": machine(self._model.device),
            "versions": {**versions(), "numpy": np.__version__, **sklearn_version()},
        }
