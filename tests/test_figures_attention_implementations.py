"""The pictures of the notebook on nine ways to compute attention: their numbers, and that nothing is cut off."""

from __future__ import annotations

import matplotlib as mpl
import pytest
from matplotlib.patches import Rectangle

from helpers import plots
from helpers.course.figures import attention_implementations as figures

mpl.use("Agg")


def texts(ax):
    return [text.get_text() for text in ax.texts]


def drawn_inside(fig):
    """Every text and rectangle of a canvas lies on it."""
    fig.canvas.draw()
    (ax,) = fig.axes
    page = ax.get_window_extent()
    for artist in (*ax.texts, *(patch for patch in ax.patches if isinstance(patch, Rectangle))):
        extent = artist.get_window_extent()
        assert page.x0 - 1 <= extent.x0 and extent.x1 <= page.x1 + 1, artist
        assert page.y0 - 1 <= extent.y0 and extent.y1 <= page.y1 + 1, artist


@pytest.mark.parametrize(
    "fig", [figures.layouts, lambda: figures.traffic(1024, 12, 64), lambda: figures.tiles(4, (2, 1))]
)
def test_nothing_is_cut_off_and_all_is_described(fig):
    fig = fig()
    assert len(fig.get_label().split()) > 30
    drawn_inside(fig)


def test_layouts():
    """Each layout has the rows of both heads, from the top in its own order, and as many frames as matrices."""
    fig = figures.layouts()
    (ax,) = fig.axes
    columns = {}
    for text in ax.texts:
        columns.setdefault(round(text.get_position()[0], 2), []).append(text)
    by_kind = ["query 1", "query 2", "key 1", "key 2", "value 1", "value 2"]
    by_head = ["query 1", "key 1", "value 1", "query 2", "key 2", "value 2"]
    from_the_top = [sorted(column, key=lambda text: -text.get_position()[1]) for _, column in sorted(columns.items())]
    orders = [[text.get_text() for text in column][1:] for column in from_the_top]  # without the title
    assert orders == [by_kind, by_kind, by_kind, by_head]
    frames = [patch for patch in ax.patches if not patch.get_fill()]
    assert len(frames) == 6 + 3 + 1 + 1

    def places(patches):
        return sorted((round(p.get_x(), 3), round(p.get_y(), 3), round(p.get_height(), 3)) for p in patches)

    boxes = places(patch for patch in ax.patches if patch.get_fill())
    assert boxes[:6] == places(frames[:6])  # of the first layout, each box has a frame


def test_block_kinds():
    fig = figures.block_kinds([[1, 0], [2, 1]], block=128)
    (ax,) = fig.axes
    assert texts(ax) == ["mask", "", "all", "mask"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "128", "256"]
    assert "1 below the diagonal are computed whole, 2 on it with the mask, 1 above it are left out" in fig.get_label()


def test_traffic_adds_up():
    """A table of 12 heads and 1,024 tokens is 50 MB; it moves eight times, and queries, keys, values, results once."""
    fig = figures.traffic(1024, 12, 64)
    (ax,) = fig.axes
    moved = [int(text) for text in texts(ax) if text.isdigit()]
    table, small = 12 * 1024**2 * 4 / 1e6, 12 * 1024 * 64 * 4 / 1e6
    assert moved == [round(n) for n in (2 * small, *[table] * 7, table + small, small, 3 * small, small)]
    assert f"the plain way: {8 * table + 4 * small:,.0f} MB" in texts(ax)
    assert f"Flash: from {4 * small:,.0f} MB" in texts(ax)
    assert (8 * table + 4 * small) / (4 * small) == pytest.approx(33, abs=1)  # "about a thirtieth"


def test_tiles_are_numbered_as_they_are_computed():
    fig = figures.tiles(4, (2, 1))
    (ax,) = fig.axes
    places = {int(t.get_text()): t.get_position() for t in ax.texts if t.get_text().isdigit()}
    order = [(row, col) for row in range(4) for col in range(row + 1)]
    assert len(places) == len(order) == 10
    ranked = sorted(places, key=lambda number: (-round(places[number][1], 3), places[number][0]))
    assert ranked == list(range(1, 11))
    marked = [p for p in ax.patches if p.get_facecolor() == mpl.colors.to_rgba(plots.PALE_VERMILION)]
    assert len(marked) == 1
    x, y = places[order.index((2, 1)) + 1]
    assert (marked[0].get_x() < x < marked[0].get_x() + marked[0].get_width()) and marked[0].get_y() < y


def test_curves():
    results = {f"{n} way": {128: (0.001 * n, 2**20), 256: (0.002 * n, 2**22)} for n in (1, 2, 6)}
    fig = figures.curves(results, "both passes")
    left, right = fig.axes
    assert [list(line.get_ydata()) for line in right.lines] == [[1.0, 4.0]] * 3
    assert left.lines[2].get_ydata()[1] == pytest.approx(12)
    assert "6 way 12 ms and 4 MiB" in fig.get_label()
    assert {line.get_color() for line in left.lines} == {plots.PINK, plots.BLUE, plots.VERMILION}
