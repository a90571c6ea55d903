"""Figures: what is shown has an alternative text, a picture, and is closed; parts to draw with; one palette."""

import base64
import io
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from helpers import plots
from tests.nbval_numbers import IMAGE
from tests.notebooks import ROOT

mpl.use("Agg")  # not through the environment, which the kernels of notebooks would inherit
ALT = "A line that rises from zero to one."


@pytest.fixture(name="shown")
def displayed(monkeypatch):
    calls = []
    monkeypatch.setattr(plots, "display", lambda bundle, **options: calls.append((bundle, options)))
    return calls


def line(width=6, height=3):
    fig, ax = plots.subplots(width, height)
    ax.plot([0, 1])
    return fig


class TestShow:
    def test_bundle(self, shown):
        plots.show(line(), alt=ALT)
        ((bundle, options),) = shown
        assert options == {"raw": True}
        assert bundle["text/plain"] == ALT
        image = IMAGE.fullmatch(bundle["text/html"])
        assert image["after"] == f'" alt="{ALT}" width="576" height="288">'
        picture = Image.open(io.BytesIO(base64.b64decode(image["png"])))
        assert picture.format == "PNG"
        assert picture.size == (864, 432)
        assert len(picture.convert("RGB").getcolors()) > 2  # there is a line on it

    @pytest.mark.parametrize("alt", ["", "a figure", "one two three four", "     "])
    def test_short_alternative(self, shown, alt):
        with pytest.raises(ValueError, match="must say in a sentence what the figure shows"):
            plots.show(line(), alt=alt)
        assert shown == []

    def test_alternative_is_required(self):
        with pytest.raises(ValueError, match="alt='' must say in a sentence"):
            plots.show(line())

    def test_a_figure_can_bring_its_alternative(self, shown):
        plots.show(plots.describe(line(), 'A line that rises from "0" to 1 & stops'))
        assert shown[0][0]["text/plain"] == 'A line that rises from "0" to 1 & stops'
        assert 'alt="A line that rises from &quot;0&quot; to 1 &amp; stops"' in shown[0][0]["text/html"]

    def test_figure_is_closed(self, shown):
        fig = line()
        assert plt.get_fignums() == [fig.number]
        plots.show(fig, alt=ALT)
        assert plt.get_fignums() == []

    def test_the_same_figure_gives_the_same_bytes(self):
        assert plots.png(line()) == plots.png(line())
        assert plots.png(line()) != plots.png(line(6, 4))

    def test_style_stays_with_the_course(self):
        before = dict(mpl.rcParams)
        plots.png(line())
        plots.canvas()
        assert dict(mpl.rcParams) == before


class TestSubplots:
    def test_grid(self):
        fig, axes = plots.subplots(8, 4, 2, 3, sharex=True)
        assert axes.shape == (2, 3)
        assert tuple(fig.get_size_inches()) == (8, 4)

    def test_canvas(self):
        _, ax = plots.canvas(5, 2)
        assert ax.get_xlim() == (0, 5)
        assert ax.get_ylim() == (0, 2)
        assert not ax.axison


def luminance(color):
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


def contrast(one, other):
    """The contrast of two colours as WCAG computes it, from 1 to 21."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def numbers_on(ax):
    """The text in each square, as {(row, column): text}."""
    return {(round(text.get_position()[1]), round(text.get_position()[0])): text for text in ax.texts}


class TestHeatmap:
    def test_numbers(self):
        _, ax = plots.subplots()
        plots.heatmap(ax, [[0.125, -0.5, 1], [2, 0, 10]], rows=["a", "b"], cols=["x", "y", "z"])
        texts = numbers_on(ax)
        assert [texts[0, col].get_text() for col in range(3)] == ["0.12", "−0.50", "1.00"]
        assert [texts[1, col].get_text() for col in range(3)] == ["2.00", "0.00", "10.00"]
        assert [label.get_text() for label in ax.get_xticklabels()] == ["x", "y", "z"]
        assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]

    def test_other_format_and_none(self):
        _, ax = plots.subplots()
        plots.heatmap(ax, [[1, 2]], fmt="{:.0f}")
        assert [text.get_text() for text in ax.texts] == ["1", "2"]
        _, ax = plots.subplots()
        plots.heatmap(ax, [[1, 2]], fmt=None)
        assert len(ax.texts) == 0
        assert len(ax.images) == 1

    def test_minus_infinity(self):
        _, ax = plots.subplots()
        plots.heatmap(ax, [[1.0, -np.inf], [3.0, 2.0]])
        assert numbers_on(ax)[0, 1].get_text() == "−∞"
        assert ax.images[0].norm.vmin == 1
        assert ax.images[0].norm.vmax == 3
        plots.png(ax.figure)

    def test_takes_tensors(self):
        _, ax = plots.subplots()
        plots.heatmap(ax, torch.tensor([[0.25, 0.75]]))
        assert [text.get_text() for text in ax.texts] == ["0.25", "0.75"]

    @pytest.mark.parametrize("cmap", ["Blues", "viridis", "RdBu", "Oranges"])
    def test_numbers_can_be_read(self, cmap):
        """The text's contrast with its square is at least 3.5 to 1."""
        _, ax = plots.subplots()
        values = np.linspace(-1, 1, 40)[None]
        plots.heatmap(ax, values, cmap=cmap)
        image = ax.images[0]
        for (_, col), text in numbers_on(ax).items():
            square = image.cmap(image.norm(values[0, col]))[:3]
            assert contrast(text.get_color(), square) >= 3.5, f"value {values[0, col]:.2f}"


class TestDrawing:
    def test_box_and_arrow(self):
        fig, ax = plots.canvas(4, 2)
        plots.box(ax, 1, 1, "a box", width=1.5, height=0.5, fontsize=12)
        plots.arrow(ax, (2, 1), (3, 1.5), curve=0.2)
        (patch,) = ax.patches
        assert (patch.get_x(), patch.get_width(), patch.get_height()) == (0.25, 1.5, 0.5)
        text = next(text for text in ax.texts if text.get_text() == "a box")
        assert text.get_fontsize() == 12
        assert text.get_ha() == text.get_va() == "center"
        plots.png(fig)

    def test_write(self):
        _, ax = plots.canvas(4, 2)
        plots.write(ax, 1, 1.5, "in the middle")
        plots.write(ax, 1, 1, "below", va="top", fontsize=7)
        assert [(text.get_ha(), text.get_va()) for text in ax.texts] == [("center", "center"), ("center", "top")]
        assert ax.texts[0].get_position() == (1, 1.5)
        assert ax.texts[1].get_fontsize() == 7

    def test_a_second_scale(self):
        """A value on the curve has the same place on both scales."""
        fig = plots.plot_losses([0, 1, 2], [0, 500, 1000], [3, 2, 1], [3, 2.5, 2])
        below, above = fig.axes
        assert above.get_xlabel() == "tokens seen"
        assert above.lines[0].get_alpha() == 0  # it only sets the limits
        fig.canvas.draw()
        places = [ax.transData.transform((x, 2))[0] for ax, x in ((below, 1), (above, 500))]
        assert places[0] == pytest.approx(places[1], abs=0.01)


class TestText:
    @pytest.mark.parametrize(
        ("value", "digits", "text"),
        [
            (-1.234, 2, "−1.23"),
            (-0.001, 2, "0.00"),
            (-0.0, 1, "0.0"),
            (5, 0, "5"),
            (0.06, 1, "0.1"),
            (-10.04, 1, "−10.0"),
        ],
    )
    def test_decimals(self, value, digits, text):
        assert plots.decimals(value, digits) == text

    @pytest.mark.parametrize(
        ("piece", "text"),
        [
            (" ladder", "·ladder"),
            ("a\nb", "a↵b"),
            (" é".encode(), "·é"),
            ("é".encode()[:1], "<C3>"),
            (b"x " + "é".encode()[1:], "x·<A9>"),
        ],
    )
    def test_visible(self, piece, text):
        assert plots.visible(piece) == text


class TestPalette:
    LINES = ("BLUE", "ORANGE", "GREEN", "PINK", "SKY", "VERMILION", "YELLOW", "GREY")

    def test_all_are_different(self):
        names = [name for name, value in vars(plots).items() if isinstance(value, str) and value.startswith("#")]
        assert set(self.LINES) < set(names)
        assert len({to_rgb(getattr(plots, name)) for name in names}) == len(names)

    def test_text_can_be_read(self):
        """WCAG asks for a contrast of 7 for text on a ground, and of 4.5 at least."""
        pale = [value for name, value in vars(plots).items() if name.startswith("PALE_")]
        assert set(plots.TINTS) < set(pale)
        for ground in (*pale, plots.PAPER, plots.SHADE, plots.BACKDROP):
            assert contrast(plots.INK, ground) >= 7
        for color in (plots.DARK_ORANGE, plots.DARK_VERMILION):
            assert contrast(color, plots.PAPER) >= 4.5

    def test_figures_have_no_colours_of_their_own(self):
        folder = ROOT / "helpers/course/figures"
        found = [
            f"{path.name}: {code}"
            for path in sorted(folder.glob("*.py"))
            for code in re.findall(r"[\"']#[0-9A-Fa-f]{6}\b", path.read_text(encoding="utf-8"))
        ]
        assert found == []
