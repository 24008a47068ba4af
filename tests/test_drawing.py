"""Pictures, read back as pixels."""

import matplotlib.image
import numpy as np
import pytest

from hf_editable.reporting.drawing import draw, draw_interval, open_axes


def test_an_interval_ends_where_it_ends(tmp_path):
    drawn = []

    def fill(figure):
        drawn.extend(open_axes(figure, 1, 1))
        drawn[0].set(xlim=(0, 10))
        draw_interval(drawn[0], 0, 5.0, [2.0, 8.0], "red")

    draw(tmp_path / "picture.png", (4, 2), fill)
    pixels = matplotlib.image.imread(tmp_path / "picture.png")
    columns = np.flatnonzero((pixels[..., 0] - pixels[..., 1] > 0.2).any(0))
    scale = pixels.shape[1] / drawn[0].figure.bbox.width
    ends = drawn[0].transData.transform([(2, 0), (8, 0)])[:, 0] * scale
    assert [columns[0], columns[-1] + 1] == pytest.approx(ends, abs=2)


def test_without_an_interval_there_is_the_point_alone(tmp_path):
    drawn = []

    def fill(figure):
        drawn.extend(open_axes(figure, 1, 1))
        draw_interval(drawn[0], 0, 5.0, None, "red")

    draw(tmp_path / "picture.png", (4, 2), fill)
    (line,) = drawn[0].lines
    assert line.get_xdata().tolist() == [5.0]


def test_axes_are_open_above_and_to_the_right(tmp_path):
    shapes = []

    def fill(figure):
        axes = open_axes(figure, 2, 3)
        shapes.append(len(axes))
        assert [name for name, spine in axes[-1].spines.items() if spine.get_visible()] == ["left", "bottom"]
        assert axes[0].get_position().y0 > axes[3].get_position().y0

    draw(tmp_path / "picture.png", (4, 2), fill)
    assert shapes == [6]
