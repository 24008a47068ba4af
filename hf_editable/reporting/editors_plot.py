"""A picture of editors beside each other."""

import os
from collections.abc import Sequence
from typing import Any

from .drawing import draw, draw_interval, open_axes
from .edit_report import EditReport
from .json_report import check_any


def plot_editors(reports: Sequence[EditReport], path: str | os.PathLike) -> None:
    """
    Draw, one line a report, how many edits succeed and are decoded as asked, and what they cost: the BLEU drawdown
    with its interval, and the share of translations that changed.

    Without matplotlib (`pip install hf_editable[plots]`) nothing is drawn, with a warning.

    Raises:
        EditableValueError: if there is no report.
    """
    check_any(reports)

    def fill(figure: Any) -> None:
        axes = open_axes(figure, 1, 3)
        places = range(len(reports))
        for place, report in enumerate(reports):
            summary, color = report.summary, f"C{place}"
            axes[0].barh(place - 0.2, 100 * summary["success_rate"], height=0.35, color=color)
            axes[0].barh(place + 0.2, 100 * summary["decode_success_rate"], height=0.35, color=color, alpha=0.45)
            draw_interval(axes[1], place, summary["drawdown"], summary["drawdown_interval"], color)
            axes[2].barh(place, 100 * summary["changed_rate"], height=0.5, color=color)
        axes[0].set_yticks(places, [str(report.summary["name"]) for report in reports])
        axes[0].set(xlabel="Edits (%): constraint holds (dark), decoded (pale)", xlim=(0, 100))
        axes[1].axvline(0, color="black", linewidth=0.8)
        axes[1].set(xlabel="BLEU drawdown of an edit (95 % interval)", yticks=[])
        axes[2].set(xlabel="Test translations that changed (%)", yticks=[])
        for each in axes:
            each.set_ylim(len(reports) - 0.5, -0.5)

    draw(path, (12, 1.2 + 0.45 * len(reports)), fill)
