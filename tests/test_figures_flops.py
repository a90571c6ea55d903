"""The pictures of the notebook on FLOPs: what they draw is what the formulas say, and nothing is cut off."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from helpers import gpt_config
from helpers.course.figures import flops as figures
from helpers.speed.flops import CHINCHILLA, REPLICATION, forward_flops

mpl.use("Agg")


def test_shares():
    """The bands add up to 100, the uppermost is that of the T × T products, and the right side has it as a line."""
    configs = {"124M": gpt_config("124M"), "1558M": gpt_config("1558M")}
    fig = figures.shares_by_length(configs, longest=2**13)
    left, right = fig.axes
    tops = [band.get_paths()[0].vertices[:, 1].max() for band in left.collections]
    assert len(tops) == 4 and tops[-1] == pytest.approx(100)
    for line, cfg in zip(right.lines, configs.values(), strict=False):
        for length, share in zip(line.get_xdata(), line.get_ydata(), strict=True):
            parts = forward_flops(cfg, int(length))
            both = parts["queries @ keys"] + parts["weights @ values"]
            assert share == pytest.approx(100 * both / sum(parts.values()))
    assert right.lines[0].get_ydata()[-1] > right.lines[1].get_ydata()[-1]
    parts = forward_flops(configs["124M"], 1024)
    share = 100 * (parts["queries @ keys"] + parts["weights @ values"]) / sum(parts.values())
    assert f"124M {share:.0f}% and " in fig.get_label()


def test_backward_products():
    """Inner sizes match, outer ones are the result's; nothing lies outside the page."""
    fig = figures.backward_products()
    (ax,) = fig.axes
    shapes = [text.get_text().strip("()").split(", ") for text in ax.texts if text.get_text().startswith("(")]
    assert len(shapes) == 9
    for left, right, result in (shapes[0:3], shapes[3:6], shapes[6:9]):
        assert left[1] == right[0] and result == [left[0], right[1]]
        assert {*left, *right} == {"m", "n", "p"}
    fig.canvas.draw()
    page = ax.get_window_extent()
    for artist in (*ax.texts, *(patch for patch in ax.patches if isinstance(patch, Rectangle))):
        extent = artist.get_window_extent()
        assert page.x0 <= extent.x0 and extent.x1 <= page.x1 and page.y0 <= extent.y0 and extent.y1 <= page.y1, artist


def test_chinchilla():
    budgets = [1e18, 1e22]
    fig = figures.chinchilla(CHINCHILLA, budgets, {"one": (1e9, 2e10), "two": (1e11, 1e12)}, REPLICATION)
    left, right = fig.axes
    curves, lowest = left.lines[::2], left.lines[1::2]
    for budget, curve, point in zip(budgets, curves, lowest, strict=True):
        assert point.get_xdata()[0] == pytest.approx(CHINCHILLA.best_split(budget)[0])
        assert point.get_ydata()[0] <= min(curve.get_ydata()) + 1e-9
    first, second = right.lines[:2]
    assert np.array([first.get_xdata()[0], first.get_ydata()[0]]) == pytest.approx(CHINCHILLA.best_split(1e17))
    assert np.array([second.get_xdata()[0], second.get_ydata()[0]]) == pytest.approx(REPLICATION.best_split(1e17))
    assert [text.get_text() for text in right.texts] == ["one", "two"]
    for text in right.texts:
        assert right.get_xlim()[0] < text.xy[0] < right.get_xlim()[1]
        assert right.get_ylim()[0] < text.xy[1] < right.get_ylim()[1]
    assert "one 1e+09 and 2e+10" in fig.get_label()


def test_roofline():
    fig = figures.roofline(1e11, 2e10, {"copy": (0.1, 1.5e9), "product": (100.0, 9e10)}, "a machine")
    (ax,) = fig.axes
    roof = ax.lines[0]
    assert max(roof.get_ydata()) == pytest.approx(100)
    x, y = roof.get_xdata()[10], roof.get_ydata()[10]
    assert y == pytest.approx(20 * x)  # GB/s
    assert ax.lines[1].get_xdata()[0] == pytest.approx(5)
    assert "5 operations per byte" in ax.texts[0].get_text()
    assert "copy 1.5 GFLOP/s at 0.1; product 90.0 GFLOP/s at 1e+02" in fig.get_label()
