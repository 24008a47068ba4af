"""How far edits reach: to the same sentence written otherwise, where they should, and to others, where not."""

import os
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from sacrebleu.metrics import CHRF
from transformers import PreTrainedTokenizerBase

from ..checks import check_count
from ..data.collator import DataCollatorForEditableSeq2Seq, longest_input
from ..decoding.translate import translate_texts
from ..editors.result import EditResult
from ..errors import EditableValueError
from ..measures.source_variants import KINDS, NUMBER_WORDS, NearestTexts, make_variant
from ..measures.statistics import bootstrap_interval
from ..modeling.mixin import EditableMixin, check_model
from ..patches.application import weights
from ..reporting.generality_report import GeneralityReport
from ..runs.fingerprints import fingerprint_rows
from ..runs.journal import ROWS_NAME, FinishedRows
from ..runs.processes import on_main
from .methods.base import EditMethod, LookupResult
from .study import choose_rows, measured, shared_arguments, shared_summary, try_edit


_CHRF = CHRF()


def measure_generality(
    model: EditableMixin,
    tokenizer: PreTrainedTokenizerBase,
    edits: Dataset,
    corpus: Dataset,
    *,
    kinds: Sequence[str] = KINDS,
    num_edits: int | None = None,
    num_beams: int = 5,
    batch_size: int = 64,
    max_new_tokens: int | None = None,
    output_dir: str | os.PathLike | None = None,
    seed: int = 0,
    number_words: Sequence[str] = NUMBER_WORDS,
    name: str = "model",
    method: EditMethod | None = None,
    **edit_overrides: Any,
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
        kinds (`Sequence[str]`, *optional*): the kinds of variants; see [`make_variant`]. By default all.
        num_edits (`int`, *optional*): how many of `edits` to measure, chosen at random; `None` takes all.
        num_beams (`int`, *optional*, defaults to `5`): beam size of all translations.
        batch_size (`int`, *optional*, defaults to `64`): sentences translated at once.
        max_new_tokens (`int`, *optional*):
            The most tokens of a translation; `None` takes the model's generation settings, or 256 without any.
        output_dir (`str`, *optional*): folder for `report.json`, `report.md`, `picture.png` and what is finished
            meanwhile: a second call with the same arguments goes on where the first one ended.
        seed (`int`, *optional*, defaults to `0`): of the choices at random and of the bootstrap.
        number_words (`Sequence[str]`, *optional*): number words of the source language; by default German ones.
        name (`str`, *optional*, defaults to `"model"`): what tables and pictures call the model.
        method ([`EditMethod`], *optional*): what makes the edits; `None` is the model's own `edit`.
        edit_overrides (*optional*): fields of [`EditConfig`] to edit with.

    Returns:
        [`GeneralityReport`].

    Raises:
        EditableTypeError: if the model is not editable.
        EditableValueError:
            if a number or a kind is out of range, a column is missing, a dataset is empty, or `output_dir` holds the
            results of other arguments.
        EditableFileError: if `output_dir` is a file, or results in it are damaged.

    Example:

    ```python
    >>> from hf_editable.evaluation import measure_generality

    >>> report = measure_generality(model, tokenizer, edits, data["test"], num_edits=100)  # doctest: +SKIP
    >>> report.summary["kinds"]["typo"]["target"], report.summary["kinds"]["neighbour"]["unchanged"]  # doctest: +SKIP
    (0.31, 0.87)
    ```
    """
    check_model(model)
    check_count("seed", seed, least=0)
    if not kinds or not set(kinds) <= set(KINDS):
        raise EditableValueError(f"kinds={list(kinds)!r}: choose one or more of {', '.join(KINDS)}.")
    chosen = choose_rows("edits", edits, ("source", "target", "alternatives"), num_edits, seed)
    texts = [row["source"] for row in choose_rows("corpus", corpus, ("source",), None, seed).values()]
    shared = {"num_beams": num_beams, "batch_size": batch_size, "max_new_tokens": max_new_tokens, "seed": seed}
    arguments = {
        **shared_arguments(model, list(chosen.items()), edit_overrides, method, name=name, **shared),
        "corpus": fingerprint_rows(texts),
        "kinds": [kind for kind in KINDS if kind in kinds],
        "number_words": list(number_words),
    }
    finished = FinishedRows(output_dir, ROWS_NAME, arguments)
    rows = finished.by_index
    if len(rows) == len(chosen) and (report := GeneralityReport.load_finished(output_dir)):
        return report
    reach = _Reach(model, tokenizer, texts, arguments, edit_overrides, method)
    jobs = [item for item in chosen.items() if item[0] not in rows]
    for row in measured(reach.measure, jobs, len(chosen), f"Editing {name}"):
        finished.add([row])
    ordered = [rows[index] for index in chosen]
    report = GeneralityReport(
        {**shared_summary(model, arguments, method), **_measures(ordered, arguments["kinds"], seed)}, ordered
    )
    if output_dir is not None:
        on_main(lambda: report.save(output_dir))
    return report


class _Reach:
    """Edits of one model, each with the variants of its source."""

    def __init__(
        self,
        model: EditableMixin,
        tokenizer: PreTrainedTokenizerBase,
        corpus: list[str],
        arguments: dict[str, Any],
        overrides: dict[str, Any],
        method: EditMethod | None,
    ):
        self._model = model
        self._tokenizer = tokenizer
        self._arguments = arguments
        self._overrides = overrides
        self._method = method
        self._collator = DataCollatorForEditableSeq2Seq(tokenizer, model)
        self._longest = longest_input(tokenizer, model, "encoder")
        self._nearest = NearestTexts(corpus) if "neighbour" in arguments["kinds"] else None

    def variants(self, index: int, source: str) -> dict[str, str]:
        """The variants of an edit's source, by kind; they depend on the seed and the edit's index alone."""
        found = {}
        for kind in self._arguments["kinds"]:
            # Each kind has its own numbers, so that it is the same whichever others there are.
            rng = np.random.default_rng((self._arguments["seed"], index, KINDS.index(kind)))
            if kind == "neighbour":
                text = self._nearest(source)
            else:
                text = make_variant(kind, source, rng, self._arguments["number_words"])
            if text is not None and (self._longest is None or len(self._tokenizer(text).input_ids) <= self._longest):
                found[kind] = text
        return found

    def measure(self, indexed: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        """The row of one edit."""
        index, edit = indexed
        target = edit["target"].strip()
        variants = self.variants(index, edit["source"])
        texts = [edit["source"], *variants.values()]
        result, _ = try_edit(self._model, self._collator, edit, self._method, self._overrides)
        before = self._translate(texts)
        after = before if result is None else self._translate_edited(texts, edit, result)
        return {
            "index": index,
            "source": edit["source"],
            "target": edit["target"],
            "failed": result is None,
            "success": result is not None and result.success,
            "steps": None if result is None else result.steps,
            "before": before[0],
            "decoded": after[0],
            "decode_success": after[0].strip() == target,
            "variants": [
                {
                    "kind": kind,
                    "text": text,
                    "same_tokens": self._tokenizer(text).input_ids == self._tokenizer(edit["source"]).input_ids,
                    "before": old,
                    "after": new,
                    "chrf_before": _CHRF.sentence_score(old.strip(), [target]).score,
                    "chrf": _CHRF.sentence_score(new.strip(), [target]).score,
                }
                for (kind, text), old, new in zip(variants.items(), before[1:], after[1:], strict=True)
            ],
        }

    def _translate(self, texts: list[str]) -> list[str]:
        options = {key: self._arguments[key] for key in ("num_beams", "batch_size", "max_new_tokens")}
        return translate_texts(self._model, self._tokenizer, texts, **options)

    def _translate_edited(self, texts: list[str], edit: dict[str, Any], result: EditResult) -> list[str]:
        with weights(self._model, result.patch.tensors):
            after = self._translate(texts)
        if isinstance(result, LookupResult):
            return [
                edit["target"] if text == edit["source"] else said for text, said in zip(texts, after, strict=True)
            ]
        return after


def _measures(rows: list[dict[str, Any]], kinds: list[str], seed: int) -> dict[str, Any]:
    """The measures over all edits, by kind of variant; kinds that no source has a variant of are left out."""
    by_kind = {}
    for kind in kinds:
        pairs = [(variant, row["target"].strip()) for row in rows for variant in row["variants"]]
        pairs = [(variant, target) for variant, target in pairs if variant["kind"] == kind]
        if not pairs:
            continue
        variants = [variant for variant, _ in pairs]
        gains = [variant["chrf"] - variant["chrf_before"] for variant in variants]
        by_kind[kind] = {
            "count": len(pairs),
            "same_tokens": statistics.fmean(variant["same_tokens"] for variant in variants),
            "target_before": statistics.fmean(variant["before"].strip() == target for variant, target in pairs),
            "target": statistics.fmean(variant["after"].strip() == target for variant, target in pairs),
            "closer": statistics.fmean(gain > 0 for gain in gains),
            "unchanged": statistics.fmean(variant["before"] == variant["after"] for variant in variants),
            "chrf_before": statistics.fmean(variant["chrf_before"] for variant in variants),
            "chrf": statistics.fmean(variant["chrf"] for variant in variants),
            "gain": statistics.fmean(gains),
            "gain_interval": list(bootstrap_interval(gains, seed)),
        }
    return {
        "kinds": by_kind,
        "num_edits": len(rows),
        "failed_edits": sum(row["failed"] for row in rows),
        "success_rate": statistics.fmean(row["success"] for row in rows),
        "decode_success_rate": statistics.fmean(row["decode_success"] for row in rows),
        "chrf_signature": str(_CHRF.get_signature()),
    }
