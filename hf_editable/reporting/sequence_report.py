"""The report of edits that were made one after the other on one model."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..measures.columns import NOTHING, Column
from ..measures.edit_measures import CHANGED
from ..measures.registry import corpus_measures
from .drawing import draw, open_axes
from .json_report import JsonReport, check_any, markdown_table


@dataclass
class SequenceReport(JsonReport):
    """
    What edits of one model came to, each made on top of the earlier ones.

    Args:
        summary (`dict[str, Any]`):
            how it was measured, and in `points` the measures before any edit and after each of the counts.
        rows (`list[dict[str, Any]]`): one dictionary an edit, in the order in which they were made.
    """

    def title(self) -> str:
        """See [`JsonReport`]."""
        return f"A sequence of edits of {self.summary['name']}"

    def facts(self) -> list[str]:
        """See [`JsonReport`]."""
        summary = self.summary
        return [
            f"{summary['num_edits']} edits on top of each other, {summary['num_test']} test sentences.",
            "Hold: of the edits made so far, those whose target outranks every alternative in the model as it is "
            "then. Decoded: those whose target beam search gives.",
            f"BLEU: `{summary['bleu_signature']}`. chrF: `{summary['chrf_signature']}`.",
        ]

    @classmethod
    def table(cls, reports: Sequence["SequenceReport"]) -> str:
        """
        A Markdown table, one row a report and number of edits.

        Raises:
            EditableValueError: if there is no report.
        """
        check_any(reports)
        points = [(str(report.summary["name"]), point) for report in reports for point in report.summary["points"]]
        measures = [measure for measure in corpus_measures() if any(measure.name in point for _, point in points)]
        columns = [Column(measure.title, measure.name, measure.form) for measure in measures]
        columns.append(CHANGED.column)
        rows = []
        for name, point in points:
            count = point["count"]
            shares = [f"{point[key] / count:.1%}" if count else NOTHING for key in ("made", "held", "decoded")]
            rows.append([name, str(count), *(column.cell(point) for column in columns), *shares])
        return markdown_table(
            ["Model", "Edits", *(column.heading for column in columns), "Made", "Hold", "Decoded"], rows
        )

    @classmethod
    def plot(cls, reports: Sequence["SequenceReport"], path: str | os.PathLike) -> None:
        """
        Draw BLEU, and the shares of the edits that hold and that are decoded, over the number of edits.

        Raises:
            EditableValueError: if there is no report.
        """
        check_any(reports)
        counts = sorted({point["count"] for report in reports for point in report.summary["points"]})

        def fill(figure: Any) -> None:
            axes = open_axes(figure, 1, 2)
            for position, report in enumerate(reports):
                points, name = report.summary["points"], str(report.summary["name"])
                later = [point for point in points if point["count"]]
                style = {"color": f"C{position}", "marker": "o", "markersize": 4}
                axes[0].plot([p["count"] for p in points], [p["bleu"] for p in points], label=name, **style)
                for key, line in (("held", "-"), ("decoded", "--")):
                    shares = [100 * point[key] / point["count"] for point in later]
                    axes[1].plot([p["count"] for p in later], shares, line, label=f"{name}: {key}", **style)
            axes[0].set(ylabel="BLEU on the test set")
            axes[1].set(ylabel="Edits made so far (%)", ylim=(-3, 103))
            for each in axes:
                # Counts grow by factors; 0 has a place of its own.
                each.set_xscale("symlog", linthresh=1)
                each.set_xticks(counts, [str(count) for count in counts])
                each.minorticks_off()
                each.set(xlabel="Edits on top of each other", xlim=(0, None))
                each.legend(frameon=False)

        draw(path, (10, 4.5), fill)
