"""The course's figures: one style and palette, parts to draw with, and how a figure is shown with alternative text.

Importing this module sets matplotlib's defaults to the course's style. The figures of each notebook are in
`helpers.course.figures`.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

# The palette of Okabe and Ito, which colour-blind readers can tell apart, in the order in which lines use it.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILION, YELLOW, GREY = "#56B4E9", "#D55E00", "#F0E442", "#767676"
# Text and lines, paper, the grey of boxes, and the fainter one behind several boxes.
INK, PAPER, SHADE, BACKDROP = "#222222", "#FFFFFF", "#EEF2F5", "#F8FAFB"
# Pale tints, for fills on which dark text is easy to read.
PALE_BLUE, PALE_ORANGE, PALE_GREEN, PALE_PINK = "#C7E4F5", "#FCE2B0", "#C1E9DA", "#F2D7E6"
PALE_YELLOW, PALE_VERMILION, PALE_GREY = "#FFF6A8", "#F6C9AE", "#D6DBE0"
TINTS = (PALE_BLUE, PALE_ORANGE, PALE_GREEN, PALE_PINK, PALE_YELLOW, PALE_VERMILION)  # for pieces side by side
# Dark shades, for coloured text on white.
DARK_ORANGE, DARK_VERMILION = "#925A00", "#A84900"

CHAR_WIDTH = 0.083  # inches that a character of 9-point type takes, on average

_STYLE: dict[str, object] = {
    "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "axes.facecolor": PAPER,
    "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, PINK, SKY, VERMILION]),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.labelsize": 10,
    "axes.grid": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures look the same everywhere
    "font.size": 10,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "text.color": INK,
}
plt.rcParams.update(_STYLE)
_DPI = 144
_DISPLAY_DPI = 96


def subplots(width: float = 7, height: float = 3, rows: int = 1, cols: int = 1, **options) -> tuple[Figure, Axes]:
    """`plt.subplots` in the course's style; `width` and `height` are in inches, other options go to matplotlib."""
    return plt.subplots(rows, cols, figsize=(width, height), **options)


def canvas(width: float = 7, height: float = 3) -> tuple[Figure, Axes]:
    """A figure for diagrams, without axes: `width` by `height` inches, one unit per inch, (0, 0) at the lower left."""
    fig, ax = subplots(width, height)
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.axis("off")
    return fig, ax


def png(fig: Figure) -> bytes:
    """The figure as PNG bytes with 256 colours, which keeps notebooks small; the figure is closed."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=_DPI)
    plt.close(fig)
    small = io.BytesIO()
    picture = Image.open(buffer).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(small, format="PNG", optimize=True)
    return small.getvalue()


def width_of(data: bytes) -> int:
    """How many pixels wide `png`'s result is shown; it is drawn finer than that."""
    return round(Image.open(io.BytesIO(data)).width * _DISPLAY_DPI / _DPI)


def describe(fig: Figure, alt: str) -> Figure:
    """Give a figure its alternative text, which says in words what it shows; `show` hands it on. Returns the figure."""
    fig.set_label(alt)
    return fig


def show(fig: Figure, alt: str = "") -> None:
    """Display a figure with its alternative text: `alt`, or what `describe` gave it.

    The picture is an HTML image, the one form whose alternative JupyterLab, Colab, GitHub, nbviewer and nbconvert hand
    to screen readers. Raises ValueError if the alternative has fewer than five words.
    """
    alt = alt or fig.get_label()
    if len(alt.split()) < 5:
        raise ValueError(f"alt={alt!r} must say in a sentence what the figure shows")
    width, height = (round(side * _DISPLAY_DPI) for side in fig.get_size_inches())
    data = base64.b64encode(png(fig)).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" width="{width}" height="{height}">'
    display({"text/html": image, "text/plain": alt}, raw=True)


def nothing_measured() -> Figure:
    """What a figure of a training's course shows if the training was stopped before anything was measured."""
    fig, ax = canvas(6, 1)
    write(ax, 3, 0.5, "The training was stopped before anything was measured: run its cell again.", fontsize=10)
    return describe(fig, "No curves: the training was stopped before anything was measured. Run its cell again.")


def heatmap(
    ax: Axes,
    values,
    rows: Sequence[str] | None = None,
    cols: Sequence[str] | None = None,
    fmt: str | None = "{:.2f}",
    cmap: str = "Blues",
    vmin: float | None = None,
    vmax: float | None = None,
) -> None:
    """Draw a matrix (rows, cols) as coloured squares, with each number in its square unless `fmt` is None."""
    values = np.asarray(values, dtype=float)
    image = ax.imshow(values, cmap=cmap, vmin=vmin, vmax=vmax, aspect="equal")
    ax.set_xticks(range(values.shape[1]), labels=cols if cols is not None else [])
    ax.set_yticks(range(values.shape[0]), labels=rows if rows is not None else [])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if fmt is None:
        return
    for (row, col), value in np.ndenumerate(values):
        red, green, blue, _ = image.cmap(image.norm(value)) if np.isfinite(value) else (1, 1, 1, 1)
        dark = 0.213 * red**2.2 + 0.715 * green**2.2 + 0.072 * blue**2.2 < 0.21  # where white reads better than ink
        text = fmt.format(value).replace("inf", "∞").replace("-", "−")
        ax.text(col, row, text, ha="center", va="center", fontsize=8.5, color=PAPER if dark else INK)


def decimals(value: float, digits: int = 2) -> str:
    """A number with `digits` decimals and a real minus sign; what rounds to zero has no sign.

    >>> decimals(-1.234), decimals(-0.001), decimals(5, 0)
    ('−1.23', '0.00', '5')
    """
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0 turns −0.0 into 0.0


def visible(piece: str | bytes) -> str:
    """A token as it can be drawn: a dot for a space, an arrow for a new line, <F0> for a byte of a cut character.

    >>> visible(" ladder"), visible(bytes([0xF0, 0x9F]))
    ('·ladder', '<F0><9F>')
    """
    if isinstance(piece, bytes):
        try:
            piece = piece.decode("utf-8")
        except UnicodeDecodeError:
            piece = "".join(chr(byte) if byte < 128 else f"<{byte:02X}>" for byte in piece)
    return piece.replace(" ", "·").replace("\n", "↵")


def write(ax: Axes, x: float, y: float, text: str, **options) -> None:
    """Write text centred on (x, y); `options` are those of `ax.text`."""
    ax.text(x, y, text, **{"ha": "center", "va": "center", **options})


def box(
    ax: Axes,
    x: float,
    y: float,
    text: str,
    width: float = 1.0,
    height: float = 0.4,
    color: str = SHADE,
    edge: str = INK,
    **text_options,
) -> None:
    """Draw a rounded box centred on (x, y) with text in it; `text_options` are those of `ax.text`."""
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.06"
    ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=color, edgecolor=edge, lw=1))
    write(ax, x, y, text, **{"fontsize": 9, **text_options})


def arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str = INK,
    curve: float = 0.0,
    lw: float = 1.2,
    ls: str = "-",
) -> None:
    """Draw an arrow from `start` to `end`; `curve` bends it (0 is straight)."""
    shape = {"arrowstyle": "-|>", "color": color, "lw": lw, "ls": ls, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 11}
    ax.annotate("", xy=end, xytext=start, arrowprops={**shape, "connectionstyle": f"arc3,rad={curve}"})


def plot_losses(
    epochs_seen: Sequence[float],
    tokens_seen: Sequence[int],
    train_losses: Sequence[float],
    val_losses: Sequence[float],
) -> Figure:
    """Training and validation loss over epochs, with tokens seen along the top (section 5.2). Show it with `show`."""
    if not train_losses:
        return nothing_measured()
    fig = _two_curves(epochs_seen, tokens_seen, train_losses, val_losses, "loss (nats per token)", "tokens seen")
    return describe(
        fig,
        f"Line plot over epochs: the training loss goes from {train_losses[0]:.1f} to {train_losses[-1]:.1f}. The "
        f"validation loss begins at {val_losses[0]:.1f}, is lowest at {min(val_losses):.1f}, and ends at "
        f"{val_losses[-1]:.1f}.",
    )


def plot_values(
    epochs_seen: Sequence[float],
    examples_seen: Sequence[float],
    train_values: Sequence[float],
    val_values: Sequence[float],
    label: str = "loss",
) -> Figure:
    """Two curves of `label` over epochs, with examples seen along the top (section 6.7). Show it with `show`."""
    return _two_curves(epochs_seen, examples_seen, train_values, val_values, label, "examples seen")


def _two_curves(epochs, seen, train_values, val_values, label: str, label_of_seen: str) -> Figure:
    fig, ax = subplots(6, 3.4)
    ax.plot(epochs, train_values, label="training")
    ax.plot(epochs, val_values, linestyle="--", label="validation")
    ax.set(xlabel="epochs", ylabel=label)
    ax.legend()
    top_scale(ax, seen, train_values, label_of_seen)
    return fig


def top_scale(ax: Axes, places: Sequence[float], heights: Sequence[float], label: str) -> Axes:
    """A second scale along the top edge, on which the curve through `heights` has its points at `places`."""
    top = ax.twiny()
    top.plot(places, heights, alpha=0)  # unseen: it sets the limits as the visible curve does below
    top.set_xlabel(label)
    top.spines.top.set_visible(True)
    return top
