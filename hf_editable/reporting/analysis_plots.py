"""Analyses of edits as tables and as a picture, one or several models side by side."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import EditableValueError
from ..measures.columns import with_interval
from ..measures.statistics import LEAST_RESAMPLED
from .analysis_report import EditAnalysis
from .drawing import draw, open_axes
from .edit_report import EditReport
from .json_report import check_any
from .markup import escape, table


KINDS = {"overlap": "shared character trigrams", "encoder": "cosine of mean encoder states"}
_COLUMNS = (
    "KL [95 %]",
    "KL on the edited sentence",
    "Components for 90 %",
    "Rank correlation with shared trigrams [95 %]",
    "Rank correlation with encoder cosine [95 %]",
)


def add_drawdowns(analysis: EditAnalysis, report: EditReport) -> None:
    """
    Note each edit's BLEU drawdown in an analysis.

    Args:
        analysis ([`EditAnalysis`]): of a model.
        report ([`EditReport`]): of the same model, with all of the analysed edits.

    Raises:
        EditableValueError: if the report lacks one of the edits, or its edits were made with other settings.
    """
    settings, others = analysis.summary["edit_config"], report.summary["edit_config"]
    if settings != others:
        different = [f"{name} {others.get(name)!r}" for name in settings if settings[name] != others.get(name)]
        raise EditableValueError(
            f"The edits of the report of {report.summary['name']!r} were made with {', '.join(different)}. "
            "Analyse edits that are made with the same."
        )
    drawdowns = {(row["index"], row["source"], row["target"]): row["drawdown"] for row in report.rows}
    missing = [edit for edit in analysis.edits if _edit_key(edit) not in drawdowns]
    if missing:
        raise EditableValueError(
            f"The report of {report.summary['name']!r} lacks {len(missing)} of the {len(analysis.edits)} analysed "
            f"edits, such as {missing[0]['source']!r}. Analyse edits that it has: the same edits, number and seed."
        )
    for edit in analysis.edits:
        edit["drawdown"] = drawdowns[_edit_key(edit)]


def _edit_key(edit: Mapping[str, Any]) -> tuple[int, str, str]:
    return edit["index"], edit["source"], edit["target"]


def components_for(explained: Sequence[float], share: float) -> int | None:
    """How many of the first components explain a share of the variance; `None` if all that were kept explain less."""
    return next((count for count, sum_ in enumerate(np.cumsum(explained), 1) if sum_ >= share - 1e-9), None)


def format_analyses(analyses: Sequence[EditAnalysis], num_worst: int = 10) -> str:
    """
    Markdown: what the edits of each model come to, how KL depends on similarity, and which sentences suffer most.

    Args:
        analyses (`list[EditAnalysis]`): one a model.
        num_worst (`int`, *optional*, defaults to `10`): sentences to list of each model.

    Raises:
        EditableValueError: if there is no analysis.
    """
    check_any(analyses, "analysis")
    summaries = [analysis.summary for analysis in analyses]
    parts = [table(("Model", *_COLUMNS), [_measures(summary) for summary in summaries])]
    parts.append("Mean KL (nats a token) of test sentences by their similarity to the edited one, in tenths:")
    header = ("Model", "Similarity", "least", *map(str, range(2, 10)), "most")
    rows = [
        (escape(summary["name"]), words, *(f"{kl:.4f}" for kl in summary["similarity"][kind]["kl_by_decile"]))
        for summary in summaries
        for kind, words in KINDS.items()
    ]
    parts.append(table(header, rows, text_columns=2))
    for summary in summaries:
        parts.append(f"Test sentences that suffer most from edits of {escape(summary['name'])}:")
        worst = summary["worst_sentences"][:num_worst]
        rows = [(escape(row["source"]), escape(row["target"]), f"{row['kl']:.4f}") for row in worst]
        parts.append(table(("Source", "Reference", "Mean KL"), rows, text_columns=2))
    counts = {f"{summary['num_edits']} edits on {summary['num_test']} test sentences" for summary in summaries}
    parts.append(
        f"- {'; '.join(sorted(counts))}. KL is `KL(model || edited model)` on the tokens of the references.\n"
        "- The edited sentence itself does not count, but for its own column.\n"
        "- Rank correlations are means over edits of Spearman's; intervals are 95 % by the bootstrap over edits, "
        f"of {LEAST_RESAMPLED} or more."
    )
    return "\n\n".join(parts) + "\n"


def _measures(summary: Mapping[str, Any]) -> tuple[str, ...]:
    components = components_for(summary["explained_variance"], 0.9)
    correlations = [
        with_interval(each["rank_correlation"], each["rank_correlation_interval"])
        for each in (summary["similarity"][kind] for kind in KINDS)
    ]
    return (
        escape(summary["name"]),
        with_interval(summary["kl"], summary["kl_interval"], ".4f"),
        "–" if summary["kl_itself"] is None else f"{summary['kl_itself']:.3f}",
        f"more than {len(summary['explained_variance'])}" if components is None else str(components),
        *correlations,
    )


def describe_picture(analyses: Sequence[EditAnalysis]) -> str:
    """What the picture of some analyses shows, for those who do not see it."""
    check_any(analyses, "analysis")
    parts = []
    for analysis in analyses:
        count = components_for(analysis.summary["explained_variance"], 0.9)
        count = f"more than {len(analysis.summary['explained_variance'])}" if count is None else count
        parts.append(f"{analysis.summary['name']}: {count} components explain 90 % of the variance")
    return f"t-SNE of edits, explained variance, and KL by similarity to the edited sentence. {'; '.join(parts)}."


def plot_analyses(analyses: Sequence[EditAnalysis], path: str | os.PathLike) -> None:
    """
    Draw each model's edits in two dimensions (t-SNE), the variance that components explain, and KL by similarity.

    Edits are coloured by their drawdown where all have one, else by their mean KL. Without matplotlib
    (`pip install hf_editable[plots]`) nothing is drawn, with a warning.

    Raises:
        EditableValueError: if there is no analysis.
    """
    check_any(analyses, "analysis")
    embedded = [analysis for analysis in analyses if analysis.edits[0]["tsne"] is not None]

    def fill(figure: Any) -> None:
        below = figure
        if embedded:
            above, below = figure.subfigures(2, 1)
            _draw_edits(above, embedded)
        variance, deciles = open_axes(below, 1, 2)
        _draw_variance(variance, analyses)
        _draw_deciles(deciles, analyses)

    draw(path, (max(8.0, 4.2 * len(embedded)), 8 if embedded else 4), fill)


def _draw_edits(figure: Any, analyses: Sequence[EditAnalysis]) -> None:
    by_drawdown = all("drawdown" in edit for analysis in analyses for edit in analysis.edits)
    colors = [
        [edit["drawdown"] if by_drawdown else math.log10(max(edit["kl"], 1e-8)) for edit in analysis.edits]
        for analysis in analyses
    ]
    # The few edits at either end get the colours at the ends.
    low, high = np.percentile(np.concatenate(colors), [2, 98])
    panels = np.atleast_1d(figure.subplots(1, len(analyses)))
    for axes, analysis, values in zip(panels, analyses, colors, strict=True):
        x, y = np.array([edit["tsne"] for edit in analysis.edits]).T
        drawn = axes.scatter(x, y, c=values, s=18, cmap="viridis", vmin=low, vmax=max(high, low + 1e-9))
        axes.set(xticks=[], yticks=[], title=f"Edits of {analysis.summary['name']} (t-SNE)")
    label = "BLEU drawdown" if by_drawdown else "Mean KL, log10 of nats a token"
    figure.colorbar(drawn, ax=list(panels), label=label, extend="both")


def _draw_variance(axes: Any, analyses: Sequence[EditAnalysis]) -> None:
    for position, analysis in enumerate(analyses):
        sums = 100 * np.cumsum(analysis.summary["explained_variance"])
        axes.plot(range(1, len(sums) + 1), sums, ".-", color=f"C{position}", label=analysis.summary["name"])
    axes.set(xlabel="Components of the truncated SVD", ylabel="Explained variance (%)", ylim=(0, 102))
    axes.legend(frameon=False, loc="lower right")


def _draw_deciles(axes: Any, analyses: Sequence[EditAnalysis]) -> None:
    for position, analysis in enumerate(analyses):
        for (kind, words), style in zip(KINDS.items(), ("o-", "s--"), strict=True):
            values = analysis.summary["similarity"][kind]["kl_by_decile"]
            name = analysis.summary["name"]
            axes.plot(
                range(1, len(values) + 1), values, style, color=f"C{position}", markersize=4, label=f"{name}, {words}"
            )
    axes.set(xlabel="Similarity to the edited sentence, tenths", ylabel="Mean KL (nats a token)", ylim=(0, None))
    axes.set_xticks(range(1, 11))
    axes.legend(frameon=False, fontsize="small")
