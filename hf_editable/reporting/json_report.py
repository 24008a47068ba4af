"""What reports have in common: plain JSON values in a folder, with a table and a picture."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..checks import checked
from ..errors import EditableValueError
from ..measures.statistics import BOOTSTRAP_RESAMPLES, LEAST_RESAMPLED
from ..runs.files import read_saved, whole_folder, write_json
from ..runs.processes import on_main
from .markup import table


REPORT_NAME = "report.json"
PICTURE_NAME = "picture.png"


@dataclass
class JsonReport:
    """
    Base class of reports.

    Args:
        summary (`dict[str, Any]`): the measures, and how they were taken; plain JSON values.
        rows (`list[dict[str, Any]]`): what the measures are computed from.
    """

    picture: ClassVar[str] = PICTURE_NAME

    summary: dict[str, Any]
    rows: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """The report as a JSON-serialisable dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "JsonReport":
        """Read what `to_dict` wrote."""
        return cls(summary=values["summary"], rows=values["rows"])

    @checked
    def save(self, output_dir: str | os.PathLike) -> None:
        """
        Write `report.json`, `report.md` and, where matplotlib is installed, a picture.

        Raises:
            EditableFileError: if `output_dir` is a file.
        """
        with whole_folder(output_dir) as folder:
            write_json(folder / REPORT_NAME, self.to_dict())
            (folder / "report.md").write_text(f"# {self.title()}\n\n{self.markdown()}", encoding="utf-8")
            self.plot([self], folder / self.picture)

    @classmethod
    @checked
    def load(cls, output_dir: str | os.PathLike) -> "JsonReport":
        """
        Read what `save` wrote.

        Raises:
            EditableFileError: if there is no whole report in the folder.
        """
        return read_saved(output_dir, REPORT_NAME, cls.from_dict, f"{cls.__name__}.save")

    @classmethod
    def load_finished(cls, output_dir: str | os.PathLike) -> "JsonReport | None":
        """The report in a folder, the same on all processes; `None` if there is none."""
        return on_main(lambda: cls.load(output_dir) if (Path(output_dir) / REPORT_NAME).is_file() else None)

    def title(self) -> str:
        """What the report is of, in a few words."""
        raise NotImplementedError

    def facts(self) -> list[str]:
        """How the measures were taken, in sentences."""
        raise NotImplementedError

    @classmethod
    def table(cls, reports: Sequence["JsonReport"]) -> str:
        """A Markdown table of one or several reports."""
        raise NotImplementedError

    @classmethod
    def plot(cls, reports: Sequence["JsonReport"], path: str | os.PathLike) -> None:
        """Draw one or several reports into a file; without matplotlib nothing is drawn, with a warning."""
        raise NotImplementedError

    def markdown(self) -> str:
        """The table of the measures, and a list of how they were taken."""
        summary = self.summary
        made = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
        config = ", ".join(f"{name}={value}" for name, value in summary["edit_config"].items() if value is not None)
        facts = [
            *self.facts(),
            f"Editor: {editor_name(summary)}. Edits are scored with length penalty {summary['length_penalty']:g}: "
            f"{config}.",
            f"Beam {summary['num_beams']}, seed {summary['seed']}.",
            f"Machine: {summary['machine']}. Versions: {made}.",
        ]
        if "command" in summary:
            facts.append(f"Command: `{summary['command']}`.")
        return f"{self.table([self])}\n\n" + "".join(f"- {fact}\n" for fact in facts)


def editor_name(summary: Mapping[str, Any]) -> str:
    """What made the edits of a report; reports of earlier versions call it a method."""
    name = summary.get("editor") or {"edit": "gradient"}.get(summary["method"], summary["method"])
    return f"{name}, verified" if summary.get("max_rounds") else name


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first column is text and whose others are numbers."""
    return table(header, [[cell.replace("|", "\\|") for cell in row] for row in rows])


def check_any(reports: Sequence[Any], name: str = "report") -> None:
    """
    Raises:
        EditableValueError: if there is no report.
    """
    if not reports:
        raise EditableValueError(f"There is no {name}; give at least one.")


INTERVALS = (
    f"Intervals: 95 %, bootstrap over edits, {BOOTSTRAP_RESAMPLES:,} resamples; none of fewer than {LEAST_RESAMPLED}."
)
