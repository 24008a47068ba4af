"""Edits one after the other on one model: what many of them cost, and whether the earlier ones hold."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..checks import check_count
from ..data.collator import DataCollatorForEditableSeq2Seq
from ..decoding.generation import frozen
from ..decoding.translate import translate_texts
from ..editors.result import EditResult
from ..errors import EditableValueError, NonFiniteEditError
from ..measures.corpus_scores import CorpusBleu, CorpusChrf
from ..modeling.mixin import EditableMixin, check_model
from ..patches.application import copy_tensors
from ..reporting.sequence_report import SequenceReport
from ..runs.files import check_folder
from ..runs.fingerprints import fingerprint_rows
from ..runs.journal import ROWS_NAME, Journal
from ..runs.processes import is_main_process, on_main
from .methods.base import EditMethod, LookupResult, edit_loss
from .study import choose_rows, shared_arguments, shared_summary, try_edit


COUNTS = (1, 2, 5, 10, 20, 50, 100)


def edit_sequence(
    model: EditableMixin,
    tokenizer: PreTrainedTokenizerBase,
    edits: Dataset,
    test_set: Dataset,
    *,
    num_edits: int | None = None,
    num_test: int | None = None,
    counts: Sequence[int] = COUNTS,
    num_beams: int = 5,
    batch_size: int = 64,
    max_new_tokens: int | None = None,
    output_dir: str | os.PathLike | None = None,
    seed: int = 0,
    bleu_tokenize: str = "13a",
    lowercase: bool = False,
    name: str = "model",
    method: EditMethod | None = None,
    **edit_overrides: Any,
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
        num_edits (`int`, *optional*): how many of `edits` to make, chosen at random; `None` takes all.
        num_test (`int`, *optional*): how many of `test_set` to translate, chosen at random; `None` takes all.
        counts (`Sequence[int]`, *optional*, defaults to `(1, 2, 5, 10, 20, 50, 100)`):
            after how many edits to measure. Those above the number of edits are left out; that number is added.
        num_beams (`int`, *optional*, defaults to `5`): beam size of all translations.
        batch_size (`int`, *optional*, defaults to `64`): sentences translated at once.
        max_new_tokens (`int`, *optional*):
            The most tokens of a translation; `None` takes the model's generation settings, or 256 without any.
        output_dir (`str`, *optional*): folder for `report.json`, `report.md`, `picture.png` and what is finished
            meanwhile: a second call with the same arguments goes on where the first one ended.
        seed (`int`, *optional*, defaults to `0`): of the choices at random and of the order.
        bleu_tokenize (`str`, *optional*, defaults to `"13a"`): sacrebleu's tokenizer.
        lowercase (`bool`, *optional*, defaults to `False`): whether BLEU ignores case.
        name (`str`, *optional*, defaults to `"model"`): what tables and pictures call the model.
        method ([`EditMethod`], *optional*): what makes the edits; `None` is the model's own `edit`.
        edit_overrides (*optional*): fields of [`EditConfig`] to edit with.

    Returns:
        [`SequenceReport`].

    Raises:
        EditableTypeError: if the model is not editable.
        EditableValueError:
            if a number is out of range, a column is missing, a dataset is empty, or `output_dir` holds the results of
            other arguments.
        EditableFileError: if `output_dir` is a file, or results in it are damaged.

    Example:

    ```python
    >>> from hf_editable.evaluation import edit_sequence

    >>> report = edit_sequence(model, tokenizer, edits, data["test"], num_edits=100)  # doctest: +SKIP
    >>> [(point["count"], point["bleu"], point["held"]) for point in report.summary["points"]]  # doctest: +SKIP
    ```
    """
    check_model(model)
    check_count("seed", seed, least=0)
    chosen = choose_rows("edits", edits, ("source", "target", "alternatives"), num_edits, seed)
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed)).tolist()
    ordered = [list(chosen.items())[place] for place in order]
    sentences = list(choose_rows("test_set", test_set, ("source", "target"), num_test, seed).values())
    shared = {"num_beams": num_beams, "batch_size": batch_size, "max_new_tokens": max_new_tokens, "seed": seed}
    arguments = {
        **shared_arguments(model, ordered, edit_overrides, method, name=name, **shared),
        "test_set": fingerprint_rows(sentences),
        "counts": _counts(counts, len(ordered)),
        "bleu_tokenize": bleu_tokenize,
        "lowercase": lowercase,
    }
    journal = None if output_dir is None else Journal(check_folder(output_dir) / ROWS_NAME, arguments)
    points = {row["count"]: row for row in (journal.rows if journal is not None else []) if "count" in row}
    if points.keys() >= {0, *arguments["counts"]} and (finished := SequenceReport.load_finished(output_dir)):
        return finished
    sequence = _Sequence(model, tokenizer, sentences, arguments, edit_overrides, method)
    rows = []
    with closing(sequence.run(ordered, points)) as results:  # the model is put back when it is closed
        for kind, row in results:
            if kind == "edit":
                rows.append(row)
                continue
            points[row["count"]] = row
            if journal is not None:
                journal.append([row])
    report = SequenceReport(sequence.summary([points[count] for count in sorted(points)], rows), rows)
    if output_dir is not None:
        on_main(lambda: report.save(output_dir))
    return report


def _counts(counts: Sequence[int], most: int) -> list[int]:
    for count in counts:
        check_count("counts", count)
    if not counts:
        raise EditableValueError("counts is empty; give the numbers of edits to measure after, such as [1, 10, 100].")
    return sorted({count for count in counts if count < most} | {most})


class _Sequence:
    """Edits on top of each other, and the measures of the model that they make."""

    def __init__(
        self,
        model: EditableMixin,
        tokenizer: PreTrainedTokenizerBase,
        sentences: list[dict[str, str]],
        arguments: dict[str, Any],
        overrides: dict[str, Any],
        method: EditMethod | None,
    ):
        self._model = model
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._tokenizer = tokenizer
        self._sentences = sentences
        self._arguments = arguments
        self._overrides = overrides
        self._method = method
        self._config = model.edit_config.replace(**overrides)
        self._collator = DataCollatorForEditableSeq2Seq(tokenizer, model)
        self._table: dict[str, str] = {}
        translations = self._translate([sentence["source"] for sentence in sentences])
        references = [sentence["target"] for sentence in sentences]
        self._bleu = CorpusBleu(references, translations, arguments["bleu_tokenize"], arguments["lowercase"])
        self._chrf = CorpusChrf(references, translations, arguments["lowercase"])

    def run(
        self, edits: list[tuple[int, dict[str, Any]]], points: Mapping[int, Any]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Pairs of `"edit"` or `"point"` and a row; points that are there already are not measured again."""
        self._collator.collate_edits([edit for _, edit in edits])  # refused before the long work
        if 0 not in points:
            yield "point", self._measure([], [])
        made: list[bool] = []
        name = self._arguments["name"]
        options = {"total": len(edits), "desc": f"Editing {name}", "unit": "edit", "disable": not is_main_process()}
        originals: dict[str, Tensor] = {}
        try:
            with logging.tqdm(**options) as progress:
                for count, (index, edit) in enumerate(edits, 1):
                    result, row = self._edit(index, edit)
                    made.append(row["success"])
                    if result is not None:
                        self._keep(originals, result, edit)
                    yield "edit", row
                    if count in self._arguments["counts"] and count not in points:
                        yield "point", self._measure([edit for _, edit in edits[:count]], made)
                    progress.update()
        finally:
            copy_tensors(originals, self._parameters)

    def _keep(self, originals: dict[str, Tensor], result: EditResult, edit: dict[str, Any]) -> None:
        """Leave an edit in the model, and remember what the model was before any."""
        tensors = result.patch.tensors
        for name in tensors:
            if name not in originals:
                originals[name] = self._parameters[name].detach().clone()
        copy_tensors(tensors, self._parameters)
        if isinstance(result, LookupResult):
            self._table[edit["source"]] = edit["target"]

    def _edit(self, index: int, edit: dict[str, Any]) -> tuple[EditResult | None, dict[str, Any]]:
        result, milliseconds = try_edit(self._model, self._collator, edit, self._method, self._overrides)
        row = {"index": index, "source": edit["source"], "target": edit["target"], "failed": False, "success": False}
        if result is None:
            return None, {**row, "failed": True, **dict.fromkeys(("steps", "initial_loss", "loss", "milliseconds"))}
        row |= {"success": result.success, "steps": result.steps, "initial_loss": result.initial_loss}
        return result, {**row, "loss": result.loss, "milliseconds": milliseconds}

    def _measure(self, edits: list[dict[str, Any]], made: list[bool]) -> dict[str, Any]:
        """What the model is worth now, and how many of the edits hold."""
        translations = self._translate([sentence["source"] for sentence in self._sentences])
        decoded = self._translate([edit["source"] for edit in edits])
        said = [text.strip() == edit["target"].strip() for text, edit in zip(decoded, edits, strict=True)]
        with frozen(self._model):
            held = [self._holds(edit) for edit in edits]
        return {
            "count": len(edits),
            "bleu": self._bleu.score_of(translations),
            "chrf": self._chrf.score_of(translations),
            "changed_rate": len(self._bleu.changed(translations)) / len(translations),
            "made": sum(made),
            "held": sum(held),
            "decoded": sum(said),
            "held_edits": held,
            "decoded_edits": said,
        }

    def _holds(self, edit: dict[str, Any]) -> bool:
        try:
            return edit_loss(self._model, self._collator.edit_inputs(edit, self._model.device), self._config) <= 0
        except NonFiniteEditError:
            return False

    def _translate(self, sources: list[str]) -> list[str]:
        options = {key: self._arguments[key] for key in ("num_beams", "batch_size", "max_new_tokens")}
        translations = translate_texts(self._model, self._tokenizer, sources, **options)
        return [self._table.get(source, text) for source, text in zip(sources, translations, strict=True)]

    def summary(self, points: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The measures, and how they were taken."""
        return {
            **shared_summary(self._model, self._arguments, self._method),
            "points": points,
            "num_edits": len(rows),
            "num_test": len(self._sentences),
            "failed_edits": sum(row["failed"] for row in rows),
            "bleu_signature": self._bleu.signature,
            "chrf_signature": self._chrf.signature,
        }
