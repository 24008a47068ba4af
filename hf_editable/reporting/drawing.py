"""How pictures are drawn: without a display or global state, and not at all where matplotlib is not installed."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from transformers.utils import logging


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

logger = logging.get_logger(__name__)


def draw(path: str | os.PathLike, size: tuple[float, float], fill: "Callable[[Figure], None]") -> None:
    """
    Write a picture; without matplotlib (`pip install hf_editable[plots]`) there is none, with a warning.

    Args:
        path (`str`): the file.
        size (`tuple[float, float]`): width and height, in inches.
        fill (`Callable`): takes the empty figure, and draws into it.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("matplotlib is not installed, so there is no picture: pip install hf_editable[plots]")
        return
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    fill(figure)
    figure.savefig(path, dpi=150)


def open_axes(figure: "FigureBase", rows: int, columns: int, **options: Any) -> "list[Axes]":
    """
    Axes that are open above and to the right, row by row.

    Args:
        figure ([`~matplotlib.figure.Figure`]): where to put them.
        rows (`int`): how many below each other.
        columns (`int`): how many beside each other.
        options (*optional*): further arguments of `figure.subplots`.
    """
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    return axes


def draw_interval(
    axes: "Axes", place: float, mean: float, interval: Sequence[float] | None, color: str, label: str | None = None
) -> None:
    """
    Draw a mean as a point, on the bar of its interval if it has one.

    Args:
        axes ([`~matplotlib.axes.Axes`]): where to draw.
        place (`float`): how high.
        mean (`float`): the point.
        interval (`Sequence[float]`, *optional*): from where to where the bar goes.
        color (`str`): of both.
        label (`str`, *optional*): what a legend calls the point.
    """
    if interval is not None:
        axes.plot(interval, [place] * 2, color=color, linewidth=8, alpha=0.4, solid_capstyle="butt")
    axes.plot(mean, place, "o", markersize=4.5, color=color, label=label)
