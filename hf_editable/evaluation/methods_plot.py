"""A picture of ways to edit beside each other."""

import os
from collections.abc import Sequence
from typing import Any

from .json_report import check_any, draw
from .report import EditReport


def plot_methods(reports: Sequence[EditReport], path: str | os.PathLike) -> None:
    """
    Draw, one line a report, how many edits succeed and are decoded as asked, and what they cost: the BLEU drawdown
    with its interval, and the share of translations that changed.

    Without matplotlib (`pip install hf_editable[plots]`) nothing is drawn, with a warning.

    Raises:
        EditableValueError: if there is no report.
    """
    check_any(reports)

    def fill(axes: list[Any]) -> None:
        places = range(len(reports))
        for place, report in enumerate(reports):
            summary, color = report.summary, f"C{place % 10}"
            axes[0].barh(place - 0.2, 100 * summary["success_rate"], height=0.35, color=color)
            axes[0].barh(place + 0.2, 100 * summary["decode_success_rate"], height=0.35, color=color, alpha=0.45)
            axes[1].plot(summary["drawdown_interval"], [place] * 2, color=color, linewidth=6, alpha=0.4)
            axes[1].plot(summary["drawdown"], place, "o", color=color)
            axes[2].barh(place, 100 * summary["changed_rate"], height=0.5, color=color)
        axes[0].set_yticks(places, [str(report.summary["name"]) for report in reports])
        axes[0].set(xlabel="Edits (%): constraint holds (dark), decoded (pale)", xlim=(0, 100))
        axes[1].axvline(0, color="black", linewidth=0.8)
        axes[1].set(xlabel="BLEU drawdown of an edit (95 % interval)", yticks=[])
        axes[2].set(xlabel="Test translations that changed (%)", yticks=[])
        for each in axes:
            each.set_ylim(len(reports) - 0.5, -0.5)

    draw(path, 12, 1.2 + 0.45 * len(reports), 3, fill)
