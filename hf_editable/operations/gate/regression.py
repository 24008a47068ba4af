"""The sentences that an edit is measured on."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from ...checks import check_count
from ...errors import EditableTypeError, EditableValueError
from ...mining.mined_edits import choose


_FORMS = "a dataset or list of rows with source and, in all of them or in none, target; or a list of sources"


def sample_regression(corpus: Dataset | Sequence[Any], count: int, seed: int = 0) -> list[dict[str, str]]:
    """
    A regression set: rows of a corpus chosen at random, in the corpus's order.

    Args:
        corpus ([`~datasets.Dataset`] or `Sequence`): rows with `source` and, optionally, `target`, or plain sources.
        count (`int`): how many rows; all, if the corpus has fewer.
        seed (`int`, *optional*, defaults to `0`): of the choice.

    Returns:
        `list[dict[str, str]]`: `source` of each row and, where the corpus has it, `target`.

    Raises:
        EditableValueError: if `count` is below 1, or the corpus is not one of the forms above.
    """
    check_count("count", count)
    if isinstance(corpus, Dataset):
        # A corpus may be large; only what is taken is read.
        columns = [name for name in ("source", "target") if name in corpus.column_names]
        picked = corpus.select(choose(len(corpus), count, seed)).select_columns(columns).to_list()
    else:
        _check_form("corpus", corpus)
        picked = [corpus[index] for index in choose(len(corpus), count, seed)]
    pairs = check_rows("corpus", picked)
    return [{"source": source} if target is None else {"source": source, "target": target} for source, target in pairs]


def check_rows(name: str, rows: Dataset | Sequence[Any]) -> list[tuple[str, str | None]]:
    """
    Sources and references of a regression set.

    Args:
        name (`str`): what it is, for messages.
        rows ([`~datasets.Dataset`] or `Sequence`): rows with `source` and, in all or none, `target`; or sources.

    Raises:
        EditableTypeError: if it is of another form.
        EditableValueError: if it is empty, a source is, or only some rows have a reference.
    """
    _check_form(name, rows)
    pairs: list[tuple[str, str | None]] = []
    for number, row in enumerate(rows):
        source, target = (row, None) if isinstance(row, str) else _texts(name, number, row)
        if not source.strip():
            raise EditableValueError(f"{name}, row {number}: the source is empty. Leave the row out.")
        pairs.append((source, target))
    if not pairs:
        raise EditableValueError(f"{name} has no rows; give {_FORMS}.")
    without = [number for number, (_, target) in enumerate(pairs) if target is None]
    if 0 < len(without) < len(pairs):
        raise EditableValueError(
            f"{name}: {len(without)} of {len(pairs)} rows, such as row {without[0]}, have no target. Give all of them "
            "one, or none."
        )
    return pairs


def _check_form(name: str, rows: Any) -> None:
    if isinstance(rows, str | Mapping) or not isinstance(rows, Dataset | Sequence):
        raise EditableTypeError(f"{name} is a {type(rows).__name__}; give {_FORMS}.")


def _texts(name: str, number: int, row: Any) -> tuple[str, str | None]:
    texts = (row.get("source"), row.get("target")) if isinstance(row, Mapping) else (None, None)
    if not isinstance(texts[0], str) or not isinstance(texts[1], str | None):
        raise EditableTypeError(f"{name}, row {number} is {row!r:.80}; give {_FORMS}.")
    return texts
