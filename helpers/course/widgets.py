"""Interactive figures and tables: controls above a picture, or text, that is made anew whenever one is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets
from IPython.display import display
from matplotlib.figure import Figure

from . import plots

Control = tuple[float, float, float] | Sequence[str]


def slider(name: str, low: float, high: float, step: float, value: float, live: bool = False) -> ipywidgets.Widget:
    """A labelled slider from `low` to `high`; whole numbers if all four are.

    A `live` one is followed while it moves, not only where it stops: for what is drawn in about a tenth of a second.
    """
    whole = all(isinstance(number, int) for number in (low, high, step, value))
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    return kind(value=value, min=low, max=high, step=step, continuous_update=live, **_label(name))


def choice(name: str, options: Sequence[str], value: str | None = None) -> ipywidgets.Widget:
    """A labelled drop-down list."""
    return ipywidgets.Dropdown(options=options, value=value or options[0], **_label(name))


def text(name: str) -> ipywidgets.Widget:
    """A labelled line to type into, empty at first."""
    return ipywidgets.Text(value="", **_label(name))


def _label(name: str) -> dict:
    wide = ipywidgets.Layout(width="420px")
    return {"description": name, "layout": wide, "style": {"description_width": "140px"}}


def play(draw: Callable[..., Figure], alt: str, **controls: ipywidgets.Widget) -> None:
    """Show `draw(**values)` as a picture under its controls, drawn anew when a control changes.

    `controls` are widgets, one per argument of `draw`. `alt` says what there is to play with; it stands in for the
    widget wherever widgets do not run. Put a static figure (`plots.show`) under it for readers of the page.
    """
    picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%", object_fit="contain"))
    _show_under(picture, lambda **values: plots.png(draw(**values)), alt, controls)


def browse(write: Callable[..., str], alt: str, **controls: ipywidgets.Widget) -> None:
    """Show `write(**values)`, a piece of HTML, under its controls, written anew when a control changes.

    What `play` is for pictures, this is for tables. The HTML is shown as it is: escape what comes from elsewhere. Put
    a static version under it for readers of the page.
    """
    page = ipywidgets.HTML(layout=ipywidgets.Layout(max_height="480px", overflow="auto"))
    _show_under(page, write, alt, controls)


def show(view: ipywidgets.Widget, alt: str) -> None:
    """Show a widget; `alt` stands in for it wherever widgets do not run."""
    display({**view._repr_mimebundle_(), "text/plain": alt}, raw=True)


def _show_under(part: ipywidgets.Widget, make: Callable, alt: str, controls: dict[str, ipywidgets.Widget]) -> None:
    """Show a widget under controls from whose values its own value is made, now and whenever one changes."""

    def remake(_change=None) -> None:
        part.value = make(**{name: control.value for name, control in controls.items()})

    for control in controls.values():
        control.observe(remake, names="value")
    remake()
    show(ipywidgets.VBox([*controls.values(), part]), alt)
