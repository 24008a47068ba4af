"""The report of how far edits reach."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..measures.columns import with_interval
from ..measures.source_variants import KINDS, SAME_MEANING
from .drawing import draw, draw_interval, open_axes
from .json_report import INTERVALS, JsonReport, check_any, markdown_table


@dataclass
class GeneralityReport(JsonReport):
    """
    What single edits of one model do to variants of their sources.

    Args:
        summary (`dict[str, Any]`):
            how it was measured, and in `kinds` the measures by kind of variant: `count`; `target_before` and
            `target`, the shares that are translated to the edit's target; `unchanged`; `closer`, the share whose
            chrF against the target rose; `chrf_before` and `chrf` against it; `gain`, their mean difference, and its
            `gain_interval`.
        rows (`list[dict[str, Any]]`): one dictionary an edit, with its `variants`.
    """

    def title(self) -> str:
        """See [`JsonReport`]."""
        return f"How far edits of {self.summary['name']} reach"

    def facts(self) -> list[str]:
        """See [`JsonReport`]."""
        summary = self.summary
        return [
            f"{summary['num_edits']} single edits, of which {summary['success_rate']:.1%} succeed and "
            f"{summary['decode_success_rate']:.1%} are decoded as asked; variants of all of them.",
            "Of variants that mean the same, many should become the target, or get closer to it; of the others "
            "(another number, the nearest other sentence), few should, and most should stay unchanged.",
            f"chrF of single sentences against the target: `{summary['chrf_signature']}`. {INTERVALS}",
        ]

    @classmethod
    def table(cls, reports: Sequence["GeneralityReport"]) -> str:
        """
        A Markdown table, one row a report and kind of variant.

        Raises:
            EditableValueError: if there is no report.
        """
        check_any(reports)
        header = ("Model", "Variant", "Meaning", "Variants", "Target", "Closer", "Unchanged", "chrF", "Gain [95 %]")
        rows = []
        for report in reports:
            for kind, values in report.summary["kinds"].items():
                meaning = "the same" if kind in SAME_MEANING else "another"
                rows.append([str(report.summary["name"]), kind.replace("_", " "), meaning, str(values["count"])])
                rows[-1] += [f"{values[key]:.1%}" for key in ("target", "closer", "unchanged")]
                gain = with_interval(values["gain"], values["gain_interval"], ".1f")
                rows[-1] += [f"{values['chrf_before']:.1f} → {values['chrf']:.1f}", gain]
        return markdown_table(header, rows)

    @classmethod
    def plot(cls, reports: Sequence["GeneralityReport"], path: str | os.PathLike) -> None:
        """
        Draw by kind the shares of variants that become the target, and that change at all, and the gain in chrF.

        Raises:
            EditableValueError: if there is no report.
        """
        check_any(reports)
        kinds = [kind for kind in KINDS if any(kind in report.summary["kinds"] for report in reports)]
        height = 0.8 / len(reports)

        def fill(figure: Any) -> None:
            axes = open_axes(figure, 1, 3)
            for position, report in enumerate(reports):
                values = report.summary["kinds"]
                there = [kind for kind in kinds if kind in values]
                places = [kinds.index(kind) + (position - (len(reports) - 1) / 2) * height for kind in there]
                color = f"C{position}"
                style = {"height": 0.9 * height, "color": color, "label": str(report.summary["name"])}
                axes[0].barh(places, [100 * values[kind]["target"] for kind in there], **style)
                axes[1].barh(places, [100 * (1 - values[kind]["unchanged"]) for kind in there], **style)
                for place, kind in zip(places, there, strict=True):
                    draw_interval(axes[2], place, values[kind]["gain"], values[kind]["gain_interval"], color)
            names = [f"{kind.replace('_', ' ')} ({'same' if kind in SAME_MEANING else 'other'})" for kind in kinds]
            axes[0].set_yticks(range(len(kinds)), names)
            axes[2].axvline(0, color="black", linewidth=0.8)
            axes[2].set(xlabel="Gain in chrF against the target (95 % interval)")
            axes[0].set(xlabel="Variants that become the target (%)", xlim=(0, 100))
            axes[1].set(xlabel="Variants translated otherwise than before (%)", xlim=(0, 100))
            for each in axes:
                each.set_ylim(len(kinds) - 0.5, -0.5)
            for each in axes[1:]:
                each.set_yticks([])
            axes[0].legend(frameon=False, loc="lower right")

        draw(path, (14, 1.5 + 0.25 * len(kinds) * (1 + len(reports))), fill)
