"""Single edits of one model, each measured on a whole test set that is translated anew."""

import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sacrebleu
import torch
import transformers
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from .. import __version__
from ..collator import DataCollatorForEditableSeq2Seq
from ..decoding import check_count, encode_sources, frozen, resolve_max_new_tokens
from ..errors import EditableTypeError, EditableValueError, NonFiniteEditError
from ..files import check_folder
from ..journal import Journal, fingerprint_model, fingerprint_rows
from ..mining import choose
from ..modeling import EditableMixin, EditResult
from ..processes import is_main_process, on_main, share_out
from ..tail import Tail
from .bleu import CorpusBleu, CorpusChrf
from .report import REPORT_NAME, EditReport, bootstrap_interval
from .test_set import EncodedTestSet


logger = logging.get_logger(__name__)

ROWS_NAME = "rows.jsonl"
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
    **edit_overrides: Any,
) -> EditReport:
    """
    Make single edits, each from the same model, and measure what each one changes (paper, section 4.3 and Table 6).

    After every edit the whole test set is decoded again with the model's own `generate`; only the encoder, which no
    edit moves, is not run again. *BLEU drawdown* is the mean over edits of BLEU before minus BLEU after. *Success* is
    that the target outranks every alternative, *decode success* that beam search then gives the target. An edit whose
    loss becomes NaN or infinite counts as one without success that changes nothing.

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
    if not isinstance(model, EditableMixin):
        raise EditableTypeError(
            f"A {type(model).__name__} has no edit(). Load it with AutoEditableModelForSeq2SeqLM.from_pretrained."
        )
    check_count("seed", seed, least=0)
    chosen = _rows("edits", edits, ("source", "target", "alternatives"), num_edits, seed)
    sentences = list(_rows("test_set", test_set, ("source", "target"), num_test, seed).values())
    arguments = {
        "name": name,
        "model": fingerprint_model(model),
        "edits": fingerprint_rows(chosen.items()),
        "test_set": fingerprint_rows(sentences),
        "edit_config": model.edit_config.replace(**edit_overrides).to_dict(),
        "num_beams": check_count("num_beams", num_beams),
        "batch_size": check_count("batch_size", batch_size),
        "max_new_tokens": resolve_max_new_tokens(model, max_new_tokens),
        "bleu_tokenize": bleu_tokenize,
        "lowercase": lowercase,
        "seed": seed,
    }
    journal = None if output_dir is None else Journal(check_folder(output_dir) / ROWS_NAME, arguments)
    rows = {row["index"]: row for row in journal.rows} if journal is not None else {}
    if len(rows) == len(chosen) and on_main(lambda: (Path(output_dir) / REPORT_NAME).is_file()):
        return on_main(lambda: EditReport.load(output_dir))
    evaluation = _Evaluation(model, tokenizer, sentences, arguments, edit_overrides)
    for row in evaluation.measure({index: edit for index, edit in chosen.items() if index not in rows}, len(chosen)):
        rows[row["index"]] = row
        if journal is not None:
            journal.append([row])
    ordered = [{key: value for key, value in rows[index].items() if key != "changes"} for index in chosen]
    report = EditReport(summary=evaluation.summary(ordered), rows=ordered)
    if output_dir is not None:
        on_main(lambda: report.save(output_dir))
    return report


def _rows(name: str, dataset: Dataset, columns: Sequence[str], wanted: int | None, seed: int) -> _Edits:
    """The columns of the chosen rows, by their index in the dataset."""
    missing = [column for column in columns if column not in dataset.column_names]
    if missing or not len(dataset):
        raise EditableValueError(
            f"{name} has {len(dataset)} rows of columns {dataset.column_names}; it needs rows with {list(columns)}."
        )
    indices = choose(len(dataset), wanted, seed)
    return dict(zip(indices, dataset.select(indices).select_columns(list(columns)).to_list(), strict=True))


class _Evaluation:
    """Edits of one model, measured one by one on one test set."""

    def __init__(
        self,
        model: EditableMixin,
        tokenizer: PreTrainedTokenizerBase,
        sentences: list[dict[str, str]],
        arguments: dict[str, Any],
        overrides: dict[str, Any],
    ):
        self._model = model
        self._arguments = arguments
        self._overrides = overrides
        self._collator = DataCollatorForEditableSeq2Seq(tokenizer, model)
        self._config = model.edit_config.replace(**overrides)
        self._tail = Tail(model, self._config)
        self._decoding = {name: arguments[name] for name in ("num_beams", "max_new_tokens")}
        with frozen(model):
            # Once to learn how long the translations are, which are translated again after every edit.
            test_set = (model, self._tail, self._collator, sentences, arguments["batch_size"])
            translations = EncodedTestSet(*test_set).translate(model, **self._decoding)
            self._test_set = EncodedTestSet(*test_set, translations)
            translations = self._test_set.translate(model, **self._decoding)
        references = [sentence["target"] for sentence in sentences]
        self._bleu = CorpusBleu(references, translations, arguments["bleu_tokenize"], arguments["lowercase"])
        self._chrf = CorpusChrf(references, translations, arguments["lowercase"])

    def measure(self, edits: _Edits, total: int) -> Iterator[dict[str, Any]]:
        """One row for each edit; `total` counts those of an earlier run too."""
        for edit in edits.values():
            self._collator.collate_edits([edit])  # what cannot be edited is refused before the long work
        for edit in list(edits.values())[:1]:
            self._timed_edit(edit)  # the first call pays for what is set up once
        name = self._arguments["name"]
        options = {"total": total, "initial": total - len(edits), "desc": f"Editing {name}", "unit": "edit"}
        with logging.tqdm(**options, disable=not is_main_process()) as progress:
            for row in share_out(self._measure_edit, list(edits.items())):
                yield row
                progress.update()

    def _measure_edit(self, indexed: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        index, edit = indexed
        result, milliseconds = self._timed_edit(edit)
        row = {"index": index, "source": edit["source"], "target": edit["target"], "milliseconds": milliseconds}
        row |= {"success": False, "bleu": self._bleu.score, "drawdown": 0.0}
        row |= {"chrf": self._chrf.score, "chrf_drawdown": 0.0, "changes": []}
        if result is None:
            unknown = dict.fromkeys(("steps", "initial_loss", "loss", "decoded"))
            return {**row, **unknown, "failed": True, "decode_success": False, "changed": 0, "kl": 0.0}
        with self._model.edited(result.patch), frozen(self._model):
            decoded = self._translate(edit["source"])
            translations = self._test_set.translate(self._model, **self._decoding)
        with frozen(self._model):
            divergence = self._test_set.divergence(self._tail, result.patch.tensors)
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

    def _timed_edit(self, edit: dict[str, Any]) -> tuple[EditResult | None, float]:
        """The edit, `None` if it met a value that is not finite, and the milliseconds it took."""
        tensors = self._collator.edit_inputs(edit, self._model.device)
        self._synchronize()
        start = time.perf_counter()
        try:
            result = self._model.edit(**tensors, **self._overrides)
        except NonFiniteEditError as error:
            logger.warning(f"The edit of {edit['source']!r} failed: {error}")
            result = None
        self._synchronize()
        return result, 1000 * (time.perf_counter() - start)

    def _synchronize(self) -> None:
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)

    def _translate(self, source: str) -> str:
        tokenizer = self._collator.tokenizer
        encoded = encode_sources(self._model, tokenizer, {0: tokenizer(source).input_ids}, [0])
        output = encoded.generate(self._model, do_sample=False, **self._decoding)
        return tokenizer.batch_decode(output, skip_special_tokens=True)[0]

    def summary(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The measures over all edits, and how they were taken."""

        def mean(key: str) -> float:
            return statistics.fmean(row[key] for row in rows)

        drawdowns = [row["drawdown"] for row in rows]
        steps = [row["steps"] for row in rows if not row["failed"]]
        milliseconds = [row["milliseconds"] for row in rows]
        arguments = self._arguments
        return {
            "name": arguments["name"],
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
            "num_beams": arguments["num_beams"],
            "max_new_tokens": arguments["max_new_tokens"],
            "length_penalty": self._model.edit_length_penalty(self._config),
            "edit_config": arguments["edit_config"],
            "seed": arguments["seed"],
            "machine": _machine(self._model.device),
            "versions": {
                "hf_editable": __version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "sacrebleu": sacrebleu.__version__,
                "python": platform.python_version(),
            },
        }


def _machine(device: torch.device) -> str:
    """What the times were taken on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    return f"{processor}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads"
