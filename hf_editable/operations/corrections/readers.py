"""Lists of corrections: a source and the translation it should have, from the files that people keep them in."""

import csv
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers.utils import ExplicitEnum, logging

from ...data.parallel import split_lines
from ...errors import EditableFileError, EditableValueError
from ...runs.reading import parse_json, read_bytes
from .correction_list import Correction
from .tmx import MOST_BYTES, MOST_ROWS, read_tmx


logger = logging.get_logger(__name__)


_OPTIONAL = ("id", "note")
# Text that no model translates as one sentence.
MOST_CHARACTERS = 100_000


class CorrectionFormat(ExplicitEnum):
    """
    Formats of files of corrections.

    `csv` is RFC 4180, `tsv` has tabs between its columns and no quotes, `jsonl` one JSON object a line, and `tmx` is
    a translation memory.
    """

    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"
    TMX = "tmx"


def read_corrections(
    path: str | os.PathLike,
    *,
    format: CorrectionFormat | str | None = None,
    source_column: str = "source",
    target_column: str = "target",
    source_lang: str | None = None,
    target_lang: str | None = None,
) -> list[Correction]:
    """
    Read a file of corrections, in UTF-8 with or without a byte order mark.

    CSV and TSV begin with column names. `id` and `note`, also as keys in JSON, are kept, others not looked at. White
    space around the texts is taken off, rows with no text at all are left out. Files may have up to 128 MiB and
    100,000 rows, texts 100,000 characters.

    Args:
        path (`str`): the file.
        format (`str`, *optional*): `"csv"`, `"tsv"`, `"jsonl"` or `"tmx"`; `None` goes by the end of the name.
        source_column (`str`, *optional*, defaults to `"source"`): column or JSON key of the sources.
        target_column (`str`, *optional*, defaults to `"target"`): column or JSON key of the targets.
        source_lang (`str`, *optional*): in a translation memory, the language to translate from, such as `"de"`,
            which `de-AT` meets too; `None` takes each unit's `srclang`.
        target_lang (`str`, *optional*): there, the language to translate to; `None` takes the only other one.

    Returns:
        `list[Correction]`: in the order of the file. [`apply_corrections`] tells of duplicates, conflicts and gaps.

    Raises:
        EditableFileError: if the file is missing, malformed or not in UTF-8; it names the line.
        EditableValueError: if the format, a column, a value, or the languages do not fit, or no row is left.

    Example:

    ```python
    >>> read_corrections("complaints.csv")  # doctest: +SKIP
    [Correction(source='Guten Tag!', target='Good afternoon!', id=None, note=None, place='line 2')]
    ```
    """
    name = os.fspath(path)
    chosen = _format(name, format)
    if chosen is CorrectionFormat.TMX:
        rows = [
            {"source": source, "target": target, "id": unit.identifier, "note": unit.note, "place": str(unit)}
            for unit, source, target in read_tmx(path, source_lang, target_lang)
        ]
    elif source_lang is not None or target_lang is not None:
        raise EditableValueError(
            f"source_lang={source_lang!r} and target_lang={target_lang!r} choose languages of a translation "
            f"memory; {name!r} is {chosen.value}. Leave them out, or give source_column and target_column."
        )
    elif source_column == target_column:
        raise EditableValueError(f"source_column and target_column are both {source_column!r}. Give two columns.")
    else:
        columns = {"id": "id", "note": "note", source_column: "source", target_column: "target"}
        rows = _READERS[chosen](name, _read_text(name), columns)
    kept = _corrections(name, rows)
    if not kept:
        raise EditableValueError(f"{name!r} has no corrections. Give a file with at least one source and target.")
    return kept


def _format(name: str, given: CorrectionFormat | str | None) -> CorrectionFormat:
    known = [each.value for each in CorrectionFormat]
    value = Path(name).suffix.lower().removeprefix(".") if given is None else str(getattr(given, "value", given))
    if value not in known:
        where = f"{name!r} ends in {value!r}" if given is None else f"format={value!r}"
        raise EditableValueError(f"{where}, which is no format of corrections. Give one of {known}, as format.")
    return CorrectionFormat(value)


def _read_text(name: str) -> str:
    if not Path(name).is_file():
        raise EditableFileError(f"No such file: {name!r}. Give a file of corrections (.csv, .tsv, .jsonl or .tmx).")
    content = read_bytes(name, MOST_BYTES)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise EditableFileError(
            f"{name!r}, line {line}: the byte 0x{content[error.start]:02x} is not UTF-8. Save the file as UTF-8."
        ) from error
    if (at := text.find("\0")) >= 0:
        line = text[:at].count("\n") + 1
        raise EditableFileError(f"{name!r}, line {line}: it has a null character. Save the file as UTF-8 text.")
    return text


def _read_csv(name: str, text: str, columns: dict[str, str]) -> Iterator[dict[str, Any]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    header = None
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise EditableFileError(
                f"{name!r}, line {start}: {error}. Put cells with commas, quotes or line ends in quotes, and double "
                "the quotes in them."
            ) from error
        if cells is None:
            break
        if header is None:
            header = _header(name, cells, columns)
        elif cells:
            yield _cells(name, start, header, cells, columns, "Put cells with commas in them in quotes.")
        start = reader.line_num + 1


def _read_tsv(name: str, text: str, columns: dict[str, str]) -> Iterator[dict[str, Any]]:
    lines = [line.removesuffix("\r") for line in split_lines(text.encode())]
    header = _header(name, lines[0].split("\t") if lines else [], columns)
    quoted = 0
    for number, line in enumerate(lines[1:], 2):
        if line.strip():
            row = _cells(name, number, header, line.split("\t"), columns, "Take the tabs out of its texts.")
            quoted += any(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in (row["source"], row["target"]))
            yield row
    if quoted:
        logger.warning(
            f"{name!r}: {quoted} rows have texts in quotes, which belong to the texts, as TSV has no quoting. If a "
            "spreadsheet put them there, save it as .csv."
        )


def _read_jsonl(name: str, text: str, columns: dict[str, str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(split_lines(text.encode()), 1):
        if not line.strip():
            continue
        try:
            values = parse_json(line)
        except ValueError as error:
            raise EditableFileError(f"{name!r}, line {number}: {error}. Give one JSON object a line.") from error
        where = f"{name!r}, line {number}"
        if not isinstance(values, dict):
            raise EditableValueError(f"{where}: {line[:60]!r} is no object. Give one JSON object a line.")
        _check_columns(where, list(values), columns)
        row = {}
        for column, field_name in columns.items():
            value = values.get(column)
            if field_name in _OPTIONAL and isinstance(value, int):
                value = str(value)
            elif not isinstance(value, str) and not (field_name in _OPTIONAL and value is None):
                raise EditableValueError(f"{where}: {column!r} is {value!r:.60}. Give a text.")
            row[field_name] = value
        yield {**row, "place": f"line {number}"}


_READERS: dict[CorrectionFormat, Callable[[str, str, dict[str, str]], Iterator[dict[str, Any]]]] = {
    CorrectionFormat.CSV: _read_csv,
    CorrectionFormat.TSV: _read_tsv,
    CorrectionFormat.JSONL: _read_jsonl,
}


def _header(name: str, cells: Sequence[str], columns: dict[str, str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    _check_columns(f"{name!r}, line 1", header, columns)
    for column in columns:
        if header.count(column) > 1:
            raise EditableValueError(
                f"{name!r}, line 1: there are {header.count(column)} columns {column!r}. Keep one."
            )
    return header


def _check_columns(where: str, found: Sequence[str], columns: dict[str, str]) -> None:
    missing = [column for column, name in columns.items() if name not in _OPTIONAL and column not in found]
    if missing:
        raise EditableValueError(
            f"{where}: no column {' and no '.join(map(repr, missing))} among {list(found)!r:.200}. Name the columns "
            "of the sources and targets by source_column and target_column."
        )


def _cells(
    name: str, line: int, header: Sequence[str], cells: Sequence[str], columns: dict[str, str], remedy: str
) -> dict[str, Any]:
    if len(cells) != len(header):
        raise EditableFileError(
            f"{name!r}, line {line}: {len(cells)} cells under {len(header)} columns: {list(cells)!r:.120}. {remedy}"
        )
    values = dict(zip(header, cells, strict=True))
    return {**{field_name: values.get(column) for column, field_name in columns.items()}, "place": f"line {line}"}


def _corrections(name: str, rows: Iterable[dict[str, Any]]) -> list[Correction]:
    """What rows hold; those with no text at all are left out."""
    corrections = [_correction(name, row) for row in itertools.islice(rows, MOST_ROWS + 1)]
    if len(corrections) > MOST_ROWS:
        raise EditableValueError(f"{name!r} has more than {MOST_ROWS:,} rows. Split it.")
    return [each for each in corrections if each.source or each.target]


def _correction(name: str, row: dict[str, Any]) -> Correction:
    texts = {field_name: (row.get(field_name) or "").strip() for field_name in ("source", "target", *_OPTIONAL)}
    for field_name, text in texts.items():
        if len(text) > MOST_CHARACTERS:
            raise EditableValueError(
                f"{name!r}, {row['place']}: its {field_name} has {len(text):,} characters, and up to "
                f"{MOST_CHARACTERS:,} are read. Give sentences."
            )
    optional = {field_name: texts[field_name] or None for field_name in _OPTIONAL}
    return Correction(texts["source"], texts["target"], **optional, place=row["place"])
