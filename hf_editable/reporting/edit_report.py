"""The result of an evaluation: numbers, a table in the form of the paper's Table 6, a picture."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..measures.base import Measure
from ..measures.registry import all_measures
from .drawing import draw, draw_interval, open_axes
from .json_report import INTERVALS, JsonReport, check_any, markdown_table


# More of them on top of each other cannot be told apart.
_MOST_HISTOGRAMS = 3


@dataclass
class EditReport(JsonReport):
    """
    What single edits of one model came to.

    Args:
        summary (`dict[str, Any]`): the measures over all edits, and how they were taken; plain JSON values.
        rows (`list[dict[str, Any]]`): one dictionary an edit.

    Example:

    ```python
    >>> from hf_editable import EditReport

    >>> report = EditReport.load("results/baseline")  # doctest: +SKIP
    >>> report.summary["drawdown"]  # doctest: +SKIP
    0.76
    ```
    """

    picture = "drawdown.png"

    def title(self) -> str:
        return f"Edits of {self.summary['name']}"

    def facts(self) -> list[str]:
        summary = self.summary
        return [
            f"Edits: {summary['num_edits']}, of which {summary['failed_edits']} ended in a value that is not finite.",
            f"Test set: {summary['num_test']} sentences.",
            *(fact for measure in measures_in([self]) for fact in measure.facts(summary)),
            INTERVALS,
        ]

    def card(self) -> dict[str, Any]:
        """What a model's card says of the edits; see [`~hub.model_card.add_results`]."""
        summary, metrics = self.summary, {}
        for measure in measures_in([self]):
            metrics |= measure.card(summary)
        return {
            "dataset_name": f"test set of {summary['num_test']} sentences",
            "metrics": metrics,
            "text": self.markdown(),
        }

    @classmethod
    def table(cls, reports: Sequence["EditReport"]) -> str:
        return format_table(reports)

    @classmethod
    def plot(cls, reports: Sequence["EditReport"], path: str | os.PathLike) -> None:
        plot_drawdown(reports, path)


def measures_in(reports: Sequence[EditReport]) -> list[Measure]:
    """The registered measures that one of the reports has, or more."""
    return [measure for measure in all_measures() if any(measure.summary_key in report.summary for report in reports)]


def format_table(reports: Sequence[EditReport]) -> str:
    """
    A Markdown table in the form of the paper's Table 6, one row a report and one column a measure.

    Steps and ms per edit are the mean and the median; KL is in nats a token of the test references.

    Raises:
        EditableValueError: if there is no report.
    """
    check_any(reports)
    columns = [measure.column for measure in measures_in(reports) if measure.column is not None]
    rows = [[str(report.summary["name"]), *(column.cell(report.summary) for column in columns)] for report in reports]
    return markdown_table(["Model", *(column.heading for column in columns)], rows)


def plot_drawdown(reports: Sequence[EditReport], path: str | os.PathLike) -> None:
    """
    Draw how the BLEU drawdown is distributed over edits, with its mean and interval, for one or several reports: as
    histograms of up to three, as a mark for each edit of more.

    Without matplotlib (`pip install hf_editable[plots]`) nothing is drawn, with a warning.

    Raises:
        EditableValueError: if there is no report.
    """
    check_any(reports)
    values = [np.array([row["drawdown"] for row in report.rows]) for report in reports]
    intervals = [report.summary["drawdown_interval"] for report in reports]
    low, most, high = drawdown_range(np.concatenate([*values, *filter(None, intervals)]))
    # Square-root rule, on the largest report; all share the edges, so that heights compare.
    count = min(40, max(8, math.ceil(math.sqrt(max(map(len, values)))) * 2))
    edges = np.linspace(low, high, count + 1)

    ratios = [0.35 * len(reports) + 0.15, *([4] if len(reports) <= _MOST_HISTOGRAMS else [])]

    def fill(figure: Any) -> None:
        strip, *below = open_axes(figure, len(ratios), 1, sharex=True, height_ratios=ratios)
        for position, (report, drawdowns) in enumerate(zip(reports, values, strict=True)):
            color, mean, shown = f"C{position}", report.summary["drawdown"], drawdowns.clip(max=high)
            if below:
                bars = {"weights": np.full(len(shown), 100 / len(shown)), "color": color}
                below[0].hist(shown, edges, histtype="stepfilled", alpha=0.3, **bars)
                below[0].hist(shown, edges, histtype="step", linewidth=1.5, **bars)
                below[0].axvline(mean, color=color, linestyle="--", linewidth=1.2)
            else:
                strip.plot(shown, np.full(len(shown), -position), "|", color=color, alpha=0.5, markersize=11)
            label = f"{describe_drawdown(report)}, {len(report.rows)} edits"
            draw_interval(strip, -position, mean, intervals[position], color, label=label)
        strip.axvline(0, color="black", linewidth=0.8)
        strip.set(ylim=(0.6 - len(reports), 0.6), yticks=[])
        strip.spines["left"].set_visible(False)
        if below:
            below[0].axvline(0, color="black", linewidth=0.8)
            below[0].set(ylabel="Edits (%)")
            strip.spines["bottom"].set_visible(False)
            strip.tick_params(bottom=False)
        figure.legend(*strip.get_legend_handles_labels(), loc="outside upper left", frameon=False)
        last = "the last bar" if below else "the last marks"
        beyond = f"; {last}: {edges[-2]:.1f} to {most:.1f}" if most > high else ""
        lowest = below[0] if below else strip
        lowest.set(xlabel=f"BLEU drawdown of an edit (right of 0: the test set got worse{beyond})")

    draw(path, (8, 0.7 + sum(ratios) + 0.2 * len(reports)), fill)


def drawdown_range(values: np.ndarray) -> tuple[float, float, float]:
    """
    What a picture of drawdowns has to show.

    Args:
        values (`np.ndarray` of shape `(values,)`): drawdowns, in BLEU.

    Returns:
        `tuple`: the least and the greatest value, 0 among them, and where the axis ends: at the greatest, or at 1.1
        times the 98th percentile if what is beyond that would take more than half of it.
    """
    low, most = min(0.0, values.min()), max(0.0, values.max())
    high = max(0.0, np.percentile(values, 98)) * 1.1
    high = most if most - low < 2 * (high - low) else high
    return low, most, max(high, low + 0.01)


def describe_drawdown(report: EditReport) -> str:
    """The mean drawdown of a report, and its interval, if it has one, in words."""
    mean, interval = (report.summary[key] for key in ("drawdown", "drawdown_interval"))
    words = "" if interval is None else f", 95 % interval {interval[0]:.2f} to {interval[1]:.2f}"
    return f"{report.summary['name']}: mean {mean:.2f}{words}"
