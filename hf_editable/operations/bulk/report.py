"""What a list of corrections came to: one row each, and what all of them changed."""

import os
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from transformers.utils import ExplicitEnum

from ...reporting.markup import escape, table, to_html
from ...runs.files import read_saved, whole_folder, write_json
from ..gate.report import ImpactReport


JSON_NAME = "corrections.json"
MARKDOWN_NAME = "corrections.md"
HTML_NAME = "corrections.html"


class Outcome(ExplicitEnum):
    """
    What became of a correction.

    `accepted`: the model was edited, and says the target. `already_right`: it said so without an edit. `not_decoded`:
    no edit was found after which beam search says it. `refused`: the gate refused the edit. `failed`: the editor
    cannot work with the row. `duplicate`: an earlier row asks the same. `conflict`: another row asks for another
    translation of the same source. `incomplete`: the source or the target is missing. Only `accepted` changes the
    model.
    """

    ACCEPTED = "accepted"
    ALREADY_RIGHT = "already_right"
    NOT_DECODED = "not_decoded"
    REFUSED = "refused"
    FAILED = "failed"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    INCOMPLETE = "incomplete"


ASKED = (Outcome.ACCEPTED, Outcome.ALREADY_RIGHT, Outcome.NOT_DECODED, Outcome.REFUSED, Outcome.FAILED)
RIGHT = (Outcome.ACCEPTED, Outcome.ALREADY_RIGHT)


@dataclass
class BulkReport:
    """
    What a list of corrections came to.

    Args:
        summary (`dict[str, Any]`): counts, and how the edits were made; plain JSON values.
        rows (`list[dict[str, Any]]`):
            one a correction, in their order: `index`, `place`, `id`, `source`, `target`, `outcome`, `reasons`, `edit`
            (its id in the store), `before` and `after` (translations), `steps`, `rounds`, `milliseconds`, `impact`
            (what its gate measured), and of those that were right once `holds`, whether they are at the end, and
            `final`, their translation then.
        impact ([`ImpactReport`], *optional*): of all edits of the list together, if there was a gate.
    """

    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    impact: ImpactReport | None = None

    def count(self, *outcomes: Outcome) -> int:
        """How many corrections came to one of the outcomes."""
        return sum(row["outcome"] in [outcome.value for outcome in outcomes] for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {**asdict(self), "impact": None if self.impact is None else self.impact.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BulkReport":
        """Read what `to_dict` wrote."""
        impact = values["impact"]
        return cls(values["summary"], values["rows"], None if impact is None else ImpactReport.from_dict(impact))

    def save(self, folder: str | os.PathLike) -> None:
        """
        Write `corrections.json`, `corrections.md` and `corrections.html`, one page that needs nothing else.

        Raises:
            EditableFileError: if `folder` is a file.
        """
        markdown = self.markdown()
        with whole_folder(folder) as temporary:
            write_json(temporary / JSON_NAME, self.to_dict())
            (temporary / MARKDOWN_NAME).write_text(markdown, encoding="utf-8")
            (temporary / HTML_NAME).write_text(to_html(markdown, "Corrections", {}), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "BulkReport":
        """
        Read what `save` wrote.

        Raises:
            EditableFileError: if there is no whole report in the folder.
        """
        return read_saved(folder, JSON_NAME, cls.from_dict, "BulkReport.save")

    def markdown(self) -> str:
        """The counts, a table of all corrections, why some were not made, and what all of them changed."""
        parts = ["# Corrections", *self._counts(), "## Each correction", self._table()]
        reasons = [(row, row["reasons"]) for row in self.rows if row["reasons"]]
        if reasons:
            cells = [(_place(row), escape(row["source"]), escape(" ".join(texts))) for row, texts in reasons]
            parts += ["## Why not", table(("Place", "Source", "Reason"), cells, text_columns=3)]
        if self.impact is not None:
            # Its headings go one level down, under this one.
            body = "\n".join(
                f"#{line}" if line.startswith("#") else line for line in self.impact.markdown().split("\n")
            )
            note = "The limits of the gate are meant for each edit; here it weighs all of them as one."
            parts += ["## What all edits together changed", note, body]
        return "\n\n".join([*parts, "## How it was made", self._facts()]) + "\n"

    def _counts(self) -> list[str]:
        counts = Counter(row["outcome"] for row in self.rows)
        named = [(outcome.value.replace("_", " "), str(counts[outcome.value])) for outcome in Outcome]
        asked, right = self.count(*ASKED), self.count(*RIGHT)
        held = sum(row.get("holds") is True for row in self.rows)
        share = f" ({right / asked:.1%})" if asked else ""
        sentences = [f"Of {asked} corrections to make, the model came to say {right}{share}."]
        if right:
            sentences.append(f"At the end, with all edits, it says {held} of these ({held / right:.1%}).")
        if self.impact is not None and self.impact.bleu is not None:
            for name, score in (("BLEU", self.impact.bleu), ("chrF", self.impact.chrf)):
                sentences.append(
                    f"{name} on the regression set: {score.before:.2f} before, {score.after:.2f} after ({score.cost})."
                )
        return [" ".join(sentences), table(("Outcome", "Corrections"), [row for row in named if row[1] != "0"])]

    def _table(self) -> str:
        header = ("Place", "Source", "Target", "Before", "At the end", "Outcome", "Steps", "Rounds")
        rows = [
            (
                _place(row),
                escape(row["source"] or "–"),
                escape(row["target"] or "–"),
                escape(row.get("before") or "–"),
                "as asked" if row.get("holds") else escape(row.get("final") or row.get("after") or "–"),
                row["outcome"].replace("_", " "),
                _number(row.get("steps")),
                _number(row.get("rounds")),
            )
            for row in self.rows
        ]
        return table(header, rows, text_columns=6)

    def _facts(self) -> str:
        summary = self.summary
        config = ", ".join(f"{name}={value}" for name, value in summary["edit_config"].items() if value is not None)
        order = (
            "One edit for all corrections." if summary["joint"] else "Edits one after the other, on top of each other."
        )
        edits = f"{summary['edits_before']} edits before and {summary['edits_after']} after"
        facts = [
            order,
            f"Beam {summary['num_beams']}, at most {summary['max_rounds']} rounds an edit. {config}.",
            f"Sources with two targets: {summary['on_conflict']}.",
            f"Store: `{summary['store']}`, with {edits}.",
            f"Machine: {summary['machine']}.",
            f"Versions: {', '.join(f'{name} {version}' for name, version in summary['versions'].items())}.",
        ]
        if "command" in summary:
            facts.append(f"Command: `{summary['command']}`.")
        return "\n".join(f"- {fact}" for fact in facts)


def _place(row: dict[str, Any]) -> str:
    return escape(row["id"] or row["place"] or f"row {row['index'] + 1}")


def _number(value: int | None) -> str:
    return "–" if value is None else str(value)
