r"""Check that edited models' translations from a record equal those of `generate`, and time both in turn.

    python scripts/developer/check_replay.py --model_name_or_path runs/main/baseline --data_dir runs/main/data \
        --edits_dir runs/main/edits_test --num_edits 20 --output_dir runs/main/replay
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hf_editable.cli.shared.loading import load_data, load_edits, load_model, load_tokenizer
from hf_editable.cli.shared.measuring import DecodingArguments, EditsArguments, command_line
from hf_editable.cli.shared.running import parse_arguments, run_main, tell
from hf_editable.errors import EditableError


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hf_editable.data.collator import DataCollatorForEditableSeq2Seq
    from hf_editable.evaluation.test_set import EncodedTestSet
    from hf_editable.modeling.mixin import EditableMixin


@dataclass(kw_only=True)
class CheckArguments(DecodingArguments, EditsArguments):
    """Which edits to make, and what to translate after each."""

    model_name_or_path: str = field(metadata={"help": "Model to edit: a folder, or a name on the Hub."})
    output_dir: str = field(metadata={"help": "Folder for the result."})
    num_edits: int = field(default=20, metadata={"help": "Edits to make, chosen at random."})
    num_test: int | None = field(default=None, metadata={"help": "Sentences to translate. Default: all."})
    max_new_tokens: int = field(default=100, metadata={"help": "The most tokens of a translation."})
    learning_rate: float | None = field(default=None, metadata={"help": "Step size of edits. Default: the model's."})
    record_gigabytes: float = field(default=4.0, metadata={"help": "The most memory for the record."})


def _timed(work: Callable[[], list[str]]) -> tuple[list[str], float]:
    start = time.perf_counter()
    result = work()  # texts, so a GPU is done
    return result, time.perf_counter() - start


def _generate(
    model: "EditableMixin", tokenizer: "PreTrainedTokenizerBase", sources: list[str], batch_size: int, **options: int
) -> list[str]:
    """Translations by `model.generate` alone: from the sources on, those of similar length together."""
    from hf_editable.decoding.encoded_sources import batches_by_length

    inputs, texts = tokenizer(sources).input_ids, {}
    for indices in batches_by_length(dict(enumerate(map(len, inputs))), batch_size):
        batch = tokenizer.pad({"input_ids": [inputs[index] for index in indices]}, return_tensors="pt")
        output = model.generate(**batch.to(model.device), **options, max_length=None, do_sample=False)
        texts |= zip(indices, tokenizer.batch_decode(output, skip_special_tokens=True), strict=True)
    return [texts[index] for index in range(len(sources))]


def _rows(arguments: CheckArguments, model: "EditableMixin", inputs: list[Any], works: dict[str, Callable]) -> Any:
    from hf_editable.decoding.generation import frozen

    options = {} if arguments.learning_rate is None else {"learning_rate": arguments.learning_rate}
    for number, tensors in enumerate(inputs):
        result = model.edit(**tensors, **options)
        # In turn, so that none always comes first.
        first = number % len(works)
        order = [*works][first:] + [*works][:first]
        with model.edited(result.patch), frozen(model):
            found = {name: _timed(works[name]) for name in order}
        texts = {name: texts for name, (texts, _) in found.items()}
        yield {
            "steps": result.steps,
            "different": _different(texts["generate"], texts["record"]),
            "plain_different": _different(texts["plain"], texts["record"]),
            **{f"{name}_seconds": seconds for name, (_, seconds) in found.items()},
        }


def _different(texts: list[str], others: list[str]) -> int:
    return sum(a != b for a, b in zip(texts, others, strict=True))


def _recorded(
    arguments: CheckArguments,
    model: "EditableMixin",
    collator: "DataCollatorForEditableSeq2Seq",
    pairs: list[dict[str, str]],
    limits: dict[str, int],
) -> "tuple[EncodedTestSet, float]":
    """The test set with a record of the search, and the seconds that recording took."""
    from hf_editable.decoding.generation import frozen
    from hf_editable.evaluation.test_set import EncodedTestSet
    from hf_editable.tail.decoder_tail import Tail

    with frozen(model):
        encoding = (model, Tail(model, model.edit_config), collator, pairs, arguments.batch_size)
        test_set = EncodedTestSet(*encoding, EncodedTestSet(*encoding).translate(model, **limits))
        max_bytes = int(arguments.record_gigabytes * 1e9)
        _, seconds = _timed(lambda: test_set.record(**limits, max_bytes=max_bytes))
    if test_set.describe_record() is None:
        raise EditableError(f"The search of a {type(model).__name__} was not recorded. Set --record_gigabytes.")
    return test_set, seconds


def _check(argv: list[str] | None) -> None:
    from transformers.utils import logging

    from hf_editable.data.collator import DataCollatorForEditableSeq2Seq
    from hf_editable.evaluation.study import choose_rows
    from hf_editable.runs.files import whole_folder, write_json
    from hf_editable.runs.provenance import machine, versions

    (arguments,) = parse_arguments([CheckArguments], argv, __doc__)
    model, tokenizer = load_model(arguments.model_name_or_path), load_tokenizer(arguments.model_name_or_path)
    collator = DataCollatorForEditableSeq2Seq(tokenizer, model)
    columns, edits = ("source", "target", "alternatives"), load_edits(arguments.edits_dir)
    data = load_data(arguments.data_dir, arguments.split)[arguments.split]
    edits = choose_rows("edits", edits, columns, arguments.num_edits, arguments.seed).values()
    pairs = list(choose_rows("the test set", data, columns[:2], arguments.num_test, arguments.seed).values())
    inputs = [collator.edit_inputs(edit, model.device) for edit in edits]
    limits = {"num_beams": arguments.num_beams, "max_new_tokens": arguments.max_new_tokens}
    test_set, seconds = _recorded(arguments, model, collator, pairs, limits)
    sources = [pair["source"] for pair in pairs]
    works = {
        "plain": lambda: _generate(model, tokenizer, sources, arguments.batch_size, **limits),
        "generate": lambda: test_set.translate(model, **limits),
        "record": test_set.retranslate,
    }
    rows = list(logging.tqdm(_rows(arguments, model, inputs, works), total=len(inputs), desc="Checking edits"))
    times = {name: [row[f"{name}_seconds"] for row in rows] for name in ("plain", "generate", "record")}
    summary = {
        "edits": len(rows),
        "sentences": len(pairs),
        "different": sum(row["different"] for row in rows),
        "plain_different": sum(row["plain_different"] for row in rows),
        **{f"{name}_seconds": statistics.median(seconds) for name, seconds in times.items()},
        "plain_ratio": sum(times["plain"]) / sum(times["record"]),
        "ratio": sum(times["generate"]) / sum(times["record"]),
        "recording_seconds": seconds,
        "record": test_set.describe_record(),
        **vars(arguments),
        "command": command_line(argv),
        "machine": machine(model.device),
        "versions": versions(),
    }
    table = _table(summary)
    with whole_folder(arguments.output_dir) as folder:
        write_json(folder / "report.json", {"summary": summary, "rows": rows})
        (folder / "table.md").write_text(table + "\n", encoding="utf-8")
    tell(table, summary=summary)
    if summary["different"]:
        raise EditableError(f"{summary['different']} translations from the record are not those of generate.")


def _table(summary: dict[str, Any]) -> str:
    edits, sentences = summary["edits"], summary["sentences"]
    count = edits * sentences
    lines = [
        f"| {edits} edits × {sentences} sentences | seconds an edit | ratio | other translations |",
        "|---|---|---|---|",
        f"| `generate` | {summary['plain_seconds']:.2f} | {summary['plain_ratio']:.1f} "
        f"| {summary['plain_different']} of {count} |",
        f"| `generate` on what edits leave as it is | {summary['generate_seconds']:.2f} | {summary['ratio']:.1f} "
        f"| {summary['different']} of {count} |",
        f"| from the record ({summary['record']['bytes'] / 1e6:.0f} MB) | {summary['record_seconds']:.2f} | | |",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `scripts/developer/check_replay.py`; returns the exit code."""
    return run_main(_check, argv)


if __name__ == "__main__":
    raise SystemExit(main())
