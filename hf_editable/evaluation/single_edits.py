"""Single edits of one model, each measured on a whole test set."""

import os
import statistics
from collections.abc import Iterator
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..checks import check_count
from ..data.collator import DataCollatorForEditableSeq2Seq
from ..decoding.generation import frozen
from ..decoding.translate import translate_texts
from ..editors.result import EditResult
from ..errors import EditableValueError
from ..measures.corpus_scores import CorpusBleu, CorpusChrf
from ..measures.statistics import bootstrap_interval
from ..mining.target_prefixes import COLUMN as PREFIXES
from ..modeling.mixin import EditableMixin, check_model
from ..patches.application import weights
from ..reporting.edit_report import EditReport
from ..runs.fingerprints import fingerprint_rows
from ..runs.journal import ROWS_NAME, FinishedRows
from ..runs.processes import on_main
from ..tail.decoder_tail import Tail
from .full_divergence import full_divergence
from .methods.base import EditMethod, LookupResult
from .study import choose_rows, measured, shared_arguments, shared_summary, try_edit
from .test_set import EncodedTestSet


_Edits = dict[int, dict[str, Any]]


def evaluate_edits(
    model: EditableMixin,
    tokenizer: PreTrainedTokenizerBase,
    edits: Dataset,
    test_set: Dataset,
    *,
    num_edits: int | None = None,
    num_test: int | None = None,
    num_beams: int = 5,
    batch_size: int = 64,
    max_new_tokens: int | None = None,
    output_dir: str | os.PathLike | None = None,
    seed: int = 0,
    bleu_tokenize: str = "13a",
    lowercase: bool = False,
    name: str = "model",
    method: EditMethod | None = None,
    record_gigabytes: float = 4.0,
    verify: int = 0,
    **edit_overrides: Any,
) -> EditReport:
    """
    Make single edits, each from the same model, and measure what each one changes (paper, section 4.3 and Table 6).

    The translations of the test set after an edit are those of the edited model's own `generate`. They are found from
    a record of the search before it, in which only the edited layers and those after them run again; see
    [`BeamSearch`] for what is recorded, and for what the equality rests on. *BLEU drawdown* is the mean over
    edits of BLEU before minus BLEU after. *Success* is that the target outranks every alternative, *decode success*
    that beam search then gives the target. An edit whose loss becomes NaN or infinite counts as one without success
    that changes nothing.

    On the processes of `accelerate launch`, all of which must call this, the edits are dealt out. The result is that
    of one process, but for the times, and a run can go on with another number of them.

    Args:
        model ([`EditableMixin`]): the model to edit. It is not changed.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        edits ([`~datasets.Dataset`]): columns `source`, `target` and `alternatives`, as [`mine_edits`] gives them.
        test_set ([`~datasets.Dataset`]): columns `source` and `target`.
        num_edits (`int`, *optional*): how many of `edits` to measure, chosen at random; `None` takes all.
        num_test (`int`, *optional*): how many of `test_set` to translate, chosen at random; `None` takes all.
        num_beams (`int`, *optional*, defaults to `5`): beam size of all translations.
        batch_size (`int`, *optional*, defaults to `64`): sentences translated at once, each with `num_beams` beams.
        max_new_tokens (`int`, *optional*):
            The most tokens of a translation; `None` takes the model's generation settings, or 256 without any.
        output_dir (`str`, *optional*):
            Folder for `report.json`, `report.md` and `drawdown.png`, and for what is finished meanwhile: a second
            call with the same arguments goes on where the first one ended, or returns its result. Its `rows.jsonl`
            also says of each edit which translations changed: their numbers, and what they were and became.
        seed (`int`, *optional*, defaults to `0`): of the choices at random and of the bootstrap.
        bleu_tokenize (`str`, *optional*, defaults to `"13a"`):
            sacrebleu's tokenizer; `"none"` where the translations are tokenized text.
        lowercase (`bool`, *optional*, defaults to `False`): whether BLEU ignores case.
        name (`str`, *optional*, defaults to `"model"`): what tables and pictures call the model.
        method ([`EditMethod`], *optional*): what makes the edits; `None` is the model's own `edit`.
        record_gigabytes (`float`, *optional*, defaults to `4.0`):
            The most memory for the record of the search on `test_set`, in 10⁹ bytes. What does not fit is decoded
            anew after every edit; 0 keeps no record.
        verify (`int`, *optional*, defaults to `0`):
            So many translations are decoded anew after every edit, chosen at random, to hold the record against.
        edit_overrides (*optional*): fields of [`EditConfig`] to edit with, such as `learning_rate=3e-4`.

    Returns:
        [`EditReport`]. KL divergences are in nats, averaged over the tokens of the test references.

    Raises:
        EditableTypeError: if the model is not editable.
        EditableValueError:
            if a number is out of range, a column is missing, a dataset is empty, a test sentence is longer than the
            model takes, or `output_dir` holds the results of other arguments.
        EditableFileError: if `output_dir` is a file, or results in it are damaged.

    Example:

    ```python
    >>> from hf_editable import evaluate_edits

    >>> report = evaluate_edits(model, tokenizer, edits, data["test"], num_edits=100)  # doctest: +SKIP
    >>> report.summary["drawdown"], report.summary["drawdown_interval"]  # doctest: +SKIP
    (0.76, [0.61, 0.93])
    ```
    """
    check_model(model)
    check_count("seed", seed, least=0)
    columns = ["source", "target", "alternatives", *([PREFIXES] if PREFIXES in edits.column_names else [])]
    chosen = choose_rows("edits", edits, columns, num_edits, seed)
    sentences = list(choose_rows("test_set", test_set, ("source", "target"), num_test, seed).values())
    shared = {"num_beams": num_beams, "batch_size": batch_size, "max_new_tokens": max_new_tokens, "seed": seed}
    arguments = {
        **shared_arguments(model, list(chosen.items()), edit_overrides, method, name=name, **shared),
        "test_set": fingerprint_rows(sentences),
        "bleu_tokenize": bleu_tokenize,
        "lowercase": lowercase,
    }
    finished = FinishedRows(output_dir, ROWS_NAME, arguments)
    rows = finished.by_index
    if len(rows) == len(chosen) and (report := EditReport.load_finished(output_dir)):
        return report
    if not record_gigabytes >= 0:
        raise EditableValueError(f"record_gigabytes={record_gigabytes!r}: it must be 0 or more.")
    memory = (int(record_gigabytes * 1e9), check_count("verify", verify, least=0))
    evaluation = _Evaluation(model, tokenizer, sentences, arguments, edit_overrides, method, *memory)
    for row in evaluation.measure({index: edit for index, edit in chosen.items() if index not in rows}, len(chosen)):
        finished.add([row])
    report = evaluation.report([rows[index] for index in chosen])
    if output_dir is not None:
        on_main(lambda: report.save(output_dir))
    return report


class _Evaluation:
    """Edits of one model, measured one by one on one test set."""

    def __init__(
        self,
        model: EditableMixin,
        tokenizer: PreTrainedTokenizerBase,
        sentences: list[dict[str, str]],
        arguments: dict[str, Any],
        overrides: dict[str, Any],
        method: EditMethod | None,
        max_record_bytes: int,
        verify: int,
    ):
        self._model = model
        self._verify = verify
        self._method = method
        self._arguments = arguments
        self._overrides = overrides
        self._collator = DataCollatorForEditableSeq2Seq(tokenizer, model)
        self._config = model.edit_config.replace(**overrides)
        self._tail = Tail(model, self._config)
        self._decoding = {name: arguments[name] for name in ("num_beams", "max_new_tokens")}
        with frozen(model):
            # By generate: a record is held against it, and batches are formed by the lengths.
            self._encoding = (model, self._tail, self._collator, sentences, arguments["batch_size"])
            translations = EncodedTestSet(*self._encoding).translate(model, **self._decoding)
            self._test_set = EncodedTestSet(*self._encoding, translations)
            translations = self._test_set.record(**self._decoding, max_bytes=max_record_bytes)
        references = [sentence["target"] for sentence in sentences]
        self._bleu = CorpusBleu(references, translations, arguments["bleu_tokenize"], arguments["lowercase"])
        self._chrf = CorpusChrf(references, translations, arguments["lowercase"])

    def measure(self, edits: _Edits, total: int) -> Iterator[dict[str, Any]]:
        """One row for each edit; `total` counts those of an earlier run too."""
        for edit in edits.values():
            self._collator.collate_edits([edit])  # what cannot be edited is refused before the long work
        for edit in list(edits.values())[:1]:
            self._try(edit)  # the first call pays for what is set up once
        yield from measured(self._measure_edit, list(edits.items()), total, f"Editing {self._arguments['name']}")

    def _measure_edit(self, indexed: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        index, edit = indexed
        result, milliseconds = self._try(edit)
        row = {"index": index, "source": edit["source"], "target": edit["target"], "milliseconds": milliseconds}
        row |= {"success": False, "bleu": self._bleu.score, "drawdown": 0.0}
        row |= {"chrf": self._chrf.score, "chrf_drawdown": 0.0, "changes": []}
        if result is None:
            unknown = dict.fromkeys(("steps", "initial_loss", "loss", "decoded"))
            return {**row, **unknown, "failed": True, "decode_success": False, "changed": 0, "kl": 0.0}
        decoded, translations, divergence = self._after(edit, result)
        row |= {"bleu": self._bleu.score_of(translations), "chrf": self._chrf.score_of(translations)}
        changed = self._bleu.changed(translations)
        return {
            **row,
            "drawdown": self._bleu.score - row["bleu"],
            "chrf_drawdown": self._chrf.score - row["chrf"],
            "success": result.success,
            "steps": result.steps,
            "initial_loss": result.initial_loss,
            "loss": result.loss,
            "failed": False,
            "decoded": decoded,
            "decode_success": decoded.strip() == edit["target"].strip(),
            "changed": len(changed),
            "changes": [[index, self._bleu.translations[index], translations[index]] for index in changed],
            "kl": divergence,
        }

    def _after(self, edit: dict[str, Any], result: EditResult) -> tuple[str, list[str], float]:
        """The edited model's translations of the edit's source and of the test set, and the KL divergence to it."""
        model, *_, sentences, batch_size = self._encoding
        tensors, test_set = result.patch.tensors, self._test_set
        in_tail = tensors.keys() <= self._tail.parameters.keys()
        with model.edited(result.patch) if in_tail else weights(model, tensors), frozen(model):
            decoded = translate_texts(
                model, self._collator.tokenizer, [edit["source"]], batch_size=1, **self._decoding
            )[0]
            if not in_tail:  # what is kept of the encoder and the trunk does not hold
                test_set = EncodedTestSet(*self._encoding, self._bleu.translations)
            translations = test_set.retranslate() if in_tail else test_set.translate(model, **self._decoding)
            if in_tail and self._verify:
                test_set.verify(translations, self._verify, self._arguments["seed"])
        if isinstance(result, LookupResult):
            decoded = edit["target"]
            translations = [
                decoded if sentence["source"] == edit["source"] else translation
                for sentence, translation in zip(sentences, translations, strict=True)
            ]
        with frozen(model):
            if in_tail:
                return decoded, translations, test_set.divergence(self._tail, tensors)
            return decoded, translations, full_divergence(model, tensors, self._collator, sentences, batch_size)

    def _try(self, edit: dict[str, Any]) -> tuple[EditResult | None, float]:
        return try_edit(self._model, self._collator, edit, self._method, self._overrides)

    def report(self, rows: list[dict[str, Any]]) -> EditReport:
        """The report of finished rows; their changes stay in the journal."""
        seed, changes = self._arguments["seed"], [row["changes"] for row in rows]
        measured = [{key: value for key, value in row.items() if key != "changes"} for row in rows]
        for row, changed in zip(measured, changes, strict=True):
            row["drawdown_interval"] = list(self._bleu.difference_interval(changed, seed=seed))
        both = list(self._bleu.mean_difference_interval(changes, seed=seed))
        return EditReport({**self._summary(measured), "drawdown_interval_with_sentences": both}, measured)

    def _summary(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The measures over all edits, and how they were taken."""

        def mean(key: str) -> float:
            return statistics.fmean(row[key] for row in rows)

        drawdowns = [row["drawdown"] for row in rows]
        steps = [row["steps"] for row in rows if not row["failed"]]
        milliseconds = [row["milliseconds"] for row in rows]
        arguments = self._arguments
        return {
            **shared_summary(self._model, arguments, self._method),
            "record": self._test_set.describe_record(),
            "bleu": self._bleu.score,
            "bleu_signature": self._bleu.signature,
            "drawdown": mean("drawdown"),
            "drawdown_interval": list(bootstrap_interval(drawdowns, arguments["seed"])),
            "chrf": self._chrf.score,
            "chrf_signature": self._chrf.signature,
            "chrf_drawdown": mean("chrf_drawdown"),
            "chrf_drawdown_interval": list(
                bootstrap_interval([row["chrf_drawdown"] for row in rows], arguments["seed"])
            ),
            "mean_absolute_difference": statistics.fmean(map(abs, drawdowns)),
            "success_rate": mean("success"),
            "decode_success_rate": mean("decode_success"),
            "mean_steps": statistics.fmean(steps) if steps else None,
            "milliseconds_median": statistics.median(milliseconds),
            "milliseconds_mean": mean("milliseconds"),
            "changed_rate": mean("changed") / len(self._bleu.translations),
            "kl": mean("kl"),
            "num_edits": len(rows),
            "failed_edits": sum(row["failed"] for row in rows),
            "num_test": len(self._bleu.translations),
        }
