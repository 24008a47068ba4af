"""All results of a folder as one Markdown report and one HTML page."""

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from ..errors import EditableFileError, EditableValueError
from ..measures.columns import with_interval
from ..measures.statistics import LEAST_RESAMPLED, PairedComparison, compare_reports
from ..runs.files import check_folder, whole_folder
from .edit_report import EditReport, describe_drawdown, format_table
from .markup import code_block, escape, headings, table, to_html


MARKDOWN_NAME = "report.md"
HTML_NAME = "report.html"
NUM_WORST = 10
NUM_CHANGES = 3
_PROVENANCE = ("seed", "machine", "versions")
_CIRCUMSTANCES = ("num_edits", "num_test", "num_beams", "length_penalty", "bleu_signature", "edit_config")


@dataclass
class Result:
    """
    The results in one folder.

    Args:
        title (`str`): heading of the section.
        reports (`list[EditReport]`): single-edit evaluations, the baseline's first.
        changes (`dict[str, dict]`): of the reports whose rows were kept, the changes by the edits' indices.
        tables (`list[str]`): other tables, as Markdown.
        pictures (`dict[Path, str]`): picture files, and what they show.
        sources (`list[dict]`): JSON with the commands that made the results.
        text (`str`): what the folder's README says of them.
    """

    title: str
    reports: list[EditReport] = field(default_factory=list)
    changes: dict[str, dict[int, list[list[Any]]]] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    pictures: dict[Path, str] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""


def build_report(
    results_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    title: str | None = None,
    baseline: str = "baseline",
    seed: int = 0,
) -> None:
    """
    Write `report.md` with its pictures, and `report.html`, one file that needs nothing else.

    A section is made of each folder that has evaluations of single edits (`EditReport.save`, in the folder itself or
    as `report.json` in folders in it), Markdown files with tables, or PNG pictures. JSON files beside them tell how
    they were made, by their keys `command`, `seed`, `versions` and `machine` (or those of their `summary` or
    `settings`); `title` is the heading, and `pictures` has a text for each picture's name. What a `README.md` says
    under a heading with a folder's name goes into its section. Beside a report, `rows.jsonl` (of `report.json`) or
    `name.jsonl` (of `name.json`) tells what each edit changed. Pages that were built before are left out.

    Args:
        results_dir (`str`): the folder.
        output_dir (`str`): where to write, not `results_dir` itself.
        title (`str`, *optional*): of the page; by default that of `results_dir`'s `README.md`, or its name.
        baseline (`str`, *optional*, defaults to `"baseline"`):
            Name of the model that others on the same edits are compared with. Without it, the first by name is taken.
        seed (`int`, *optional*, defaults to `0`): of the intervals of comparisons.

    Raises:
        EditableFileError: if `results_dir` is no folder, a JSON file in it is damaged, or `output_dir` is a file.
        EditableValueError: if there are no results, or `output_dir` is `results_dir`.
    """
    root, output = Path(results_dir).resolve(), check_folder(output_dir).resolve()
    if not root.is_dir():
        raise EditableFileError(f"{os.fspath(results_dir)!r} is no folder. Give one with results.")
    if root == output:
        raise EditableValueError(f"output_dir={os.fspath(output_dir)!r} holds the results. Give another folder.")
    heading, introduction, notes = _read_notes(root)
    results = _collect(root, output, baseline, notes)
    if not results:
        raise EditableValueError(
            f"{os.fspath(results_dir)!r} has no reports of evaluations, Markdown tables or PNG pictures. "
            "Give the output folder of an evaluation, or one that has such folders."
        )
    title = title or heading or root.name
    pictures: dict[str, bytes] = {}
    sections = [_section(number, result, baseline, seed, pictures) for number, result in enumerate(results, 1)]
    body = "\n\n".join(sections)
    start = "\n\n".join(part for part in (f"# {escape(title)}", introduction, "## Contents") if part)
    listed = headings(f"{start}\n\n{body}", 2)
    names = {escape(result.title) for result in results}
    contents = "\n".join(f"- [{text}](#{name})" for text, name in listed if text in names)
    markdown = "\n\n".join([start, contents, body])
    inline = {f"pictures/{name}": _data_uri(content) for name, content in pictures.items()}
    with whole_folder(output_dir) as folder:
        (folder / MARKDOWN_NAME).write_text(markdown + "\n", encoding="utf-8")
        (folder / HTML_NAME).write_text(to_html(markdown, title, inline), encoding="utf-8")
        if pictures:
            (folder / "pictures").mkdir()
        for name, content in pictures.items():
            (folder / "pictures" / name).write_bytes(content)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _read_notes(root: Path) -> tuple[str | None, str, dict[str, str]]:
    """The title and introduction of a folder's README, and its text under each heading of the second level."""
    path = root / "README.md"
    if not path.is_file():
        return None, "", {}
    introduction, *parts = re.split(r"^## +", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    title = re.match(r"\s*# +(.*)\n", introduction)
    notes = {name.strip(): text.strip() for name, _, text in (part.partition("\n") for part in parts)}
    return title and title[1].strip(), introduction[title.end() :].strip() if title else introduction.strip(), notes


def _collect(folder: Path, output: Path, baseline: str, notes: Mapping[str, str]) -> list[Result]:
    """The results of a folder, then those of the folders in it."""
    if folder == output or (folder / HTML_NAME).is_file():
        return []  # made by an earlier call
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."]
    contents = {path: _read(path) for path in sorted(folder.glob("*.json"))}
    reports = {path: content for path, content in contents.items() if _is_report(content)}
    for path in [each / "report.json" for each in inside]:
        if path.is_file() and _is_report(content := _read(path)):
            reports[path] = content
            inside.remove(path.parent)
    loaded = {path: EditReport.from_dict(content) for path, content in reports.items()}
    result = Result(folder.name, text=notes.get(folder.name, ""))
    result.reports = sorted(loaded.values(), key=lambda report: report.summary["name"] != baseline)
    result.changes = {report.summary["name"]: _read_changes(path) for path, report in loaded.items()}
    others = [content for path, content in contents.items() if path not in reports]
    result.sources = [source for content in others if (source := _source(content)) is not None]
    _add_tables(result, folder)
    result.title = next((content["title"] for content in others if "title" in content), result.title)
    texts = {name: text for content in others for name, text in content.get("pictures", {}).items()}
    for path in sorted(folder.glob("*.png")):
        result.pictures[path] = texts.get(path.name) or _picture_text(path, result)
    found = [result] if result.reports or result.tables or result.pictures else []
    return found + [each for path in inside for each in _collect(path, output, baseline, notes)]


def _add_tables(result: Result, folder: Path) -> None:
    """The Markdown files of a folder, but for what is made anew from its reports; a heading of theirs is the title."""
    # By its first columns: an earlier version's table may have others.
    own = "|".join(format_table(result.reports).split("|")[:4]) if result.reports else None
    for path in sorted(folder.glob("*.md")):
        text = path.read_text(encoding="utf-8").strip()
        if path.name == "README.md" or (own and (text.startswith(own) or path.name == MARKDOWN_NAME)):
            continue
        heading = re.match(r"# +(.*)\n*", text)
        if heading:
            result.title, text = heading[1].strip(), text[heading.end() :]
        result.tables.append(text)


def _source(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """The part of a JSON object that says how the results were made."""
    parts = [content, content.get("summary"), content.get("settings")]
    return next((part for part in parts if isinstance(part, dict) and ("command" in part or "versions" in part)), None)


def _read(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing if that is no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EditableFileError(f"{str(path)!r} is damaged ({error}). Make it anew, or take it away.") from error
    return content if isinstance(content, dict) else {}


def _is_report(content: Mapping[str, Any]) -> bool:
    summary = content.get("summary")
    return isinstance(summary, dict) and isinstance(content.get("rows"), list) and "drawdown_interval" in summary


def _read_changes(report: Path) -> dict[int, list[list[Any]]]:
    """The changes of each edit, by its index; empty if they were not kept."""
    path = report.with_name("rows.jsonl") if report.name == "report.json" else report.with_suffix(".jsonl")
    if not path.is_file():
        return {}
    try:
        # What follows the last line end was cut off by an interruption.
        _, *lines = path.read_text(encoding="utf-8").split("\n")[:-1] or [""]
        rows = [json.loads(line) for line in lines]
        return {row["index"]: row["changes"] for row in rows if "changes" in row}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise EditableFileError(f"{str(path)!r} is damaged ({error}). Make it anew, or take it away.") from error


def _picture_text(path: Path, result: Result) -> str:
    if path.name != "drawdown.png" or not result.reports:
        return f"{path.stem.replace('_', ' ')} of {result.title}"
    described = "; ".join(map(describe_drawdown, result.reports))
    return f"How the BLEU drawdown is distributed over edits. {described}."


def _section(number: int, result: Result, baseline: str, seed: int, pictures: dict[str, bytes]) -> str:
    """One section as Markdown; its pictures are added to `pictures`."""
    parts = [f"## {escape(result.title)}", result.text, *result.tables]
    if result.reports:
        parts += [format_table(result.reports), *_comparisons(result.reports, baseline, seed)]
    for path, text in result.pictures.items():
        name = re.sub(r"[^\w.\-]", "_", f"{number:02d}-{path.name}")
        pictures[name] = path.read_bytes()
        parts.append(f"![{escape(text)}](pictures/{name})")
    for report in result.reports:
        parts += _worst_edits(report, result.changes.get(report.summary["name"], {}))
    parts += _provenance([*(report.summary for report in result.reports), *result.sources])
    return "\n\n".join(part for part in parts if part)


def _comparisons(reports: Sequence[EditReport], baseline: str, seed: int) -> list[str]:
    """The reports against the first one, edit by edit, as far as they are of the same edits."""
    first, *others = reports
    rows, apart = [], []
    for other in others:
        try:
            rows.append(_comparison_row(compare_reports(first, other, seed)))
        except EditableValueError as error:
            apart.append(escape(str(error)))
    if not rows:
        return apart
    header = (
        "Compared edit by edit",
        "Edits",
        "Lower drawdown by [95 %]",
        "Milder",
        "Harsher",
        "Ratio of means [95 %]",
    )
    note = (
        "Milder and harsher are the shares of edits that cost the second model less and more than the first. The "
        "ratio is the second model's mean drawdown over the first's; it has no interval where the first's may be 0. "
        f"Intervals: bootstrap over edits, drawn jointly for both models, seed {seed}; none of fewer than "
        f"{LEAST_RESAMPLED} edits."
    )
    return [table(header, rows), note, *apart]


def _comparison_row(compared: PairedComparison) -> tuple[str, ...]:
    ratio = "–" if compared.ratio is None else f"{compared.ratio:.2f}"
    if compared.ratio_interval is not None:
        ratio = with_interval(compared.ratio, compared.ratio_interval)
    return (
        escape(f"{compared.first} → {compared.second}"),
        str(compared.num_edits),
        with_interval(compared.difference, compared.difference_interval),
        f"{compared.milder:.0%}",
        f"{compared.harsher:.0%}",
        ratio,
    )


def _worst_edits(report: EditReport, changes: Mapping[int, list[list[Any]]]) -> list[str]:
    """The edits that cost most, and some of what they changed."""
    worst = sorted(report.rows, key=lambda row: -row["drawdown"])[:NUM_WORST]
    name = escape(report.summary["name"])
    header = ("Source", "Target of the edit", "Beam search then", "Drawdown", "Changed")
    rows = [
        (
            escape(row["source"]),
            escape(row["target"]),
            escape(row["decoded"] or "–"),
            f"{row['drawdown']:.2f}",
            str(row["changed"]),
        )
        for row in worst
    ]
    parts = [f"### The edits of {name} that cost most", table(header, rows, text_columns=3)]
    shown = [
        (escape(row["target"]), str(index), escape(before), escape(after))
        for row in worst
        for index, before, after in _most_changed(changes.get(row["index"], []))
    ]
    if shown:
        header = ("Target of the edit", "Sentence, from 0", "Translation before", "Translation after")
        parts.append(f"Of the translations that each of them changed, the {NUM_CHANGES} that changed most:")
        parts.append(table(header, shown, text_columns=4))
    return parts


def _most_changed(changes: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    def kept(change: Sequence[Any]) -> float:
        return SequenceMatcher(None, change[1].split(), change[2].split(), autojunk=False).ratio()

    return sorted(changes, key=kept)[:NUM_CHANGES]


def _provenance(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the results were made: each distinct command, and what it ran with."""
    parts = ["### How it was made"] if sources else []
    by_command: dict[str, list[Mapping[str, Any]]] = {}
    for source in sources:
        by_command.setdefault(str(source.get("command", "")), []).append(source)
    for command, made in by_command.items():
        parts.append(code_block(command, "bash") if command else "Its command was not recorded.")
        circumstances = [key for key in _CIRCUMSTANCES if any(key in source for source in made)]
        rows = []
        for key in (*_PROVENANCE, *circumstances):
            values = list(dict.fromkeys(_in_words(source.get(key)) for source in made))
            rows.append((escape(key.replace("_", " ")), "; ".join(escape(value) for value in values)))
        parts.append(table(("Setting", "Value"), rows, text_columns=2))
    return parts


def _in_words(value: Any) -> str:
    if value is None:
        return "not recorded"
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items() if each is not None)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
