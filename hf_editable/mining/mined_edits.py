"""Edits to train and to measure with, mined from the model itself: no human writes a wrong translation.

For each source, the alternatives are the model's most likely translations, and the target is one that it samples
(paper, section 4.3). Neither uses a reference, so monolingual text is enough. Where there are references, they can be
the targets instead: corrections of what the model gets wrong.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value, load_from_disk
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..checks import check_count, checked, given_settings
from ..data.collator import longest_input
from ..decoding.encoded_sources import batches_by_length
from ..decoding.generation import resolve_max_new_tokens
from ..decoding.score_rules import SayableTargets
from ..errors import EditableFileError, EditableValueError
from ..models.languages import without_start
from ..models.weights import fingerprint_model
from ..runs.files import check_folder, read_saved, whole_folder
from ..runs.fingerprints import fingerprint_rows
from ..runs.journal import FinishedRows, check_arguments
from ..runs.processes import is_main_process, on_main, share_out
from .miner import Miner
from .mining_settings import EditTargets, MiningSettings


logger = logging.get_logger(__name__)

INFO_NAME = "mining_info.json"
JOURNAL_NAME = "mined.jsonl"
_FEATURES = Features({"source": Value("string"), "target": Value("string"), "alternatives": List(Value("string"))})


@dataclass
class MiningCounts:
    """
    What became of the sources. Kept in `mining_info.json`.

    Args:
        sources (`int`): sources looked at.
        empty_sources (`int`): left out: nothing in them.
        long_sources (`int`): left out: more tokens than the model takes.
        empty_targets (`int`): left out: the target is empty.
        long_targets (`int`): left out: the target, read as text again, has more tokens than the model takes.
        unknown_targets (`int`): left out: the target, read as text again, has unknown tokens.
        forbidden_targets (`int`): left out: the model's generation settings keep it from ever saying the target.
        correct_translations (`int`): left out: the most likely translation already is the reference.
        without_alternatives (`int`): left out: no alternative was left.
        edits (`int`): the sources that were not left out.
        empty_alternatives (`int`): alternatives dropped from edits: empty.
        duplicate_alternatives (`int`): alternatives dropped from edits: the same text as a more likely one.
        equal_alternatives (`int`): alternatives dropped from edits: the target itself.
    """

    sources: int = 0
    empty_sources: int = 0
    long_sources: int = 0
    empty_targets: int = 0
    long_targets: int = 0
    unknown_targets: int = 0
    forbidden_targets: int = 0
    correct_translations: int = 0
    without_alternatives: int = 0
    edits: int = 0
    empty_alternatives: int = 0
    duplicate_alternatives: int = 0
    equal_alternatives: int = 0


@checked
def mine_edits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    settings: MiningSettings | None = None,
    **options: Any,
) -> Dataset:
    """
    Mine edits from sources: the model's most likely translations, and one to prefer to them: sampled from it, or the
    reference.

    Alternatives are the result of beam search with as many beams, ranked by the model's own length penalty. Those
    that are empty, repeat another or equal the target are left out, and so are sources that no usable edit comes
    from; [`MiningCounts`] are logged. With references, so are the sources whose most likely translation already is
    the reference: what is left are corrections.

    On the processes of `accelerate launch`, all of which must call this, the batches are dealt out. They are the same
    batches on any number of processes, so the result is too, and a run can go on with another number of them.

    Args:
        model ([`~transformers.PreTrainedModel`]): an encoder-decoder, editable or not. It is not changed.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        dataset ([`~datasets.Dataset`]): sources.
        settings ([`MiningSettings`], *optional*): how they are mined.
        options (`Any`): fields of [`MiningSettings`] by name.

    Returns:
        [`~datasets.Dataset`] with the columns `source` (`str`), `target` (`str`) and `alternatives` (`list[str]`, the
        most likely first), in the order of the sources.

    Raises:
        EditableTypeError: if `dataset` is not a dataset of one split, or an option is not known.
        EditableValueError: if a number is out of range, a column is missing, no edit is found, or `output_dir` holds
            the result of other arguments.
        EditableFileError: if `output_dir` is a file, or a folder of other things.
    """
    settings = given_settings(MiningSettings, settings, options)
    indices = choose(len(dataset), settings.num_edits, settings.seed)
    sources = _texts(dataset, "source_column", settings.source_column, indices)
    sampled = settings.targets == EditTargets.SAMPLED.value
    references = None if sampled else _texts(dataset, "target_column", settings.target_column, indices)
    arguments = _arguments(model, sources, references, settings)
    output_dir = settings.output_dir
    if output_dir is not None and on_main(lambda: _is_finished(output_dir, arguments)):
        return load_from_disk(os.fspath(output_dir))
    with FinishedRows(output_dir, JOURNAL_NAME, arguments) as finished:
        rows = _mined_rows(model, tokenizer, sources, references, finished)
        edits, counts = _select(model, tokenizer, sources, rows, corrections=not sampled)
        logger.info(f"Mined {counts.edits} edits: {dataclasses.asdict(counts)}")
        if not edits:
            raise EditableValueError(f"None of the {len(sources)} sources gave an edit: {dataclasses.asdict(counts)}.")
        result = Dataset.from_list(edits, features=_FEATURES)
        if output_dir is not None:
            on_main(lambda: _save(result, output_dir, {"arguments": arguments, "counts": dataclasses.asdict(counts)}))
    return result


def choose(count: int, wanted: int | None, seed: int) -> list[int]:
    """
    Indices of `wanted` of `count` rows, at random but in their order; `None` takes all.

    Raises:
        EditableValueError: if `wanted` is below 1.
    """
    if wanted is None or check_count("The number of rows to take", wanted) >= count:
        return list(range(count))
    return sorted(np.random.default_rng(seed).choice(count, wanted, replace=False).tolist())


def _texts(dataset: Dataset, argument: str, column: str, indices: list[int]) -> dict[int, str]:
    """A column's texts at the indices, by index; `argument` is what names the column."""
    if column not in dataset.column_names:
        raise EditableValueError(f"The dataset has no column {column!r} but {dataset.column_names}. Set {argument}.")
    return dict(zip(indices, dataset.select(indices)[column], strict=True))


def _arguments(
    model: PreTrainedModel, sources: dict[int, str], references: dict[int, str] | None, settings: MiningSettings
) -> dict[str, Any]:
    """What mined edits depend on, as a journal keeps it."""
    arguments = {
        "model": fingerprint_model(model),
        "sources": fingerprint_rows(sources.items()),
        "num_alternatives": settings.num_alternatives,
        "batch_size": settings.batch_size,
        "max_new_tokens": resolve_max_new_tokens(model, settings.max_new_tokens),
    }
    if references is None:
        return arguments | {"temperature": settings.temperature, "seed": settings.seed}
    return arguments | {"targets": settings.targets, "references": fingerprint_rows(references.items())}


def _mined_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: dict[int, str],
    references: dict[int, str] | None,
    finished: FinishedRows,
) -> dict[int, dict[str, Any]]:
    """Raw rows of all sources by index: those that are finished, and the others as they are mined."""
    rows = finished.by_index
    hidden = not is_main_process()
    with logging.tqdm(total=len(sources), desc="Mining edits", unit="source", disable=hidden) as progress:
        progress.update(len(rows))
        for mined in _mine(model, tokenizer, sources, references, rows.keys(), finished.arguments):
            new = [row for row in mined if row["index"] not in rows]
            finished.add(new)
            progress.update(len(new))
    return rows


def _mine(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: dict[int, str],
    references: dict[int, str] | None,
    finished: Any,
    arguments: dict[str, Any],
) -> Iterator[list[dict[str, Any]]]:
    """
    Raw rows of the sources that are not in `finished`, batch by batch.

    A batch of which some rows are finished is decoded whole all the same: the shapes of a batch move the last digits
    of its scores, and a resumed run is to equal an uninterrupted one.
    """
    usable = [index for index, text in sources.items() if text.strip()]
    texts = [sources[index] for index in usable]
    encoded = dict(zip(usable, tokenizer(texts, verbose=False).input_ids, strict=True)) if usable else {}
    longest = longest_input(tokenizer, model, "encoder")
    unusable = dict.fromkeys(sources.keys() - encoded.keys(), "empty")
    unusable |= {index: "long" for index, ids in encoded.items() if longest is not None and len(ids) > longest}
    yield [{"index": index, "left_out": unusable[index]} for index in sorted(unusable.keys() - finished)]
    lengths = {index: len(ids) for index, ids in encoded.items() if index not in unusable}
    batches = batches_by_length(lengths, arguments["batch_size"])
    left = [batch for batch in batches if not finished >= set(batch)]
    if left:
        few = [batches[0][0], batches[-1][-1]]  # the longest and the shortest of all, also where a run goes on
        yield from share_out(Miner(model, tokenizer, encoded, references, arguments, few).rows, left)


def _select(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: dict[int, str],
    rows: dict[int, dict[str, Any]],
    corrections: bool,
) -> tuple[list[dict[str, Any]], MiningCounts]:
    """The usable edits among raw rows, and the counts of all that was left out."""
    counts = MiningCounts(sources=len(sources))
    longest, sayable = longest_input(tokenizer, model, "decoder"), SayableTargets(model)
    edits = []
    for index, source in sources.items():
        row = rows[index]
        if "left_out" in row:
            counts.empty_sources += row["left_out"] == "empty"
            counts.long_sources += row["left_out"] == "long"
            continue
        target = row["target"].strip()
        texts = [text.strip() for text in row["alternatives"]]
        different = list(dict.fromkeys(text for text in texts if text))
        ids = tokenizer(text_target=target, verbose=False).input_ids
        equal = {target}
        if corrections:
            # A reference may hold what the model cannot write, such as upper case or two spaces.
            equal.add(tokenizer.decode(ids, skip_special_tokens=True).strip())
        alternatives = [text for text in different if text not in equal]
        if not target:
            counts.empty_targets += 1
        elif longest is not None and len(ids) > longest:
            counts.long_targets += 1
        elif tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            counts.unknown_targets += 1
        elif corrections and texts[0] in equal:
            counts.correct_translations += 1
        elif not alternatives:
            counts.without_alternatives += 1
        elif sayable.why_not(without_start(model.config, ids), tokenizer(source).input_ids) is not None:
            counts.forbidden_targets += 1
        else:
            counts.edits += 1
            counts.empty_alternatives += texts.count("")
            counts.duplicate_alternatives += len(texts) - texts.count("") - len(different)
            counts.equal_alternatives += len(different) - len(alternatives)
            edits.append({"source": source, "target": target, "alternatives": alternatives})
    return edits, counts


def _is_finished(output_dir: str | os.PathLike, arguments: dict[str, Any]) -> bool:
    """Whether the folder holds the result of an earlier run with the same arguments."""
    folder = check_folder(output_dir)
    info, journal = folder / INFO_NAME, folder / JOURNAL_NAME
    if info.is_file():
        earlier = read_saved(output_dir, INFO_NAME, lambda values: values["arguments"], "mine_edits")
        check_arguments(output_dir, earlier, arguments)
        return True
    if folder.is_dir() and any(folder.iterdir()) and not journal.is_file():
        raise EditableFileError(f"{os.fspath(output_dir)!r} holds other files. Give a new or an empty output_dir.")
    return False


def _save(edits: Dataset, output_dir: str | os.PathLike, info: dict[str, Any]) -> None:
    with whole_folder(output_dir) as folder:
        edits.save_to_disk(folder)
    # The last file to appear says that the others are whole.
    with whole_folder(output_dir) as folder:
        (folder / INFO_NAME).write_text(json.dumps(info, indent=2, sort_keys=True) + "\n")
    (Path(output_dir) / JOURNAL_NAME).unlink()
