"""Interactive figures: sliders above a picture that is drawn anew whenever one is moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets
from IPython.display import display
from matplotlib.figure import Figure

from . import plots

Control = tuple[float, float, float] | Sequence[str]


def slider(name: str, low: float, high: float, step: float, value: float) -> ipywidgets.Widget:
    """A labelled slider from `low` to `high`; whole numbers if all four are."""
    whole = all(isinstance(number, int) for number in (low, high, step, value))
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    return kind(value=value, min=low, max=high, step=step, continuous_update=False, **_label(name))


def choice(name: str, options: Sequence[str], value: str | None = None) -> ipywidgets.Widget:
    """A labelled drop-down list."""
    return ipywidgets.Dropdown(options=options, value=value or options[0], **_label(name))


def _label(name: str) -> dict:
    wide = ipywidgets.Layout(width="420px")
    return {"description": name, "layout": wide, "style": {"description_width": "140px"}}


def play(draw: Callable[..., Figure], alt: str, **controls: ipywidgets.Widget) -> None:
    """Show `draw(**values)` as a picture under its controls, drawn anew when a control changes.

    `controls` are widgets, one per argument of `draw`. `alt` says what there is to play with; it stands in for the
    widget wherever widgets do not run. Put a static figure (`plots.show`) under it for readers of the page.
    """
    picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%", object_fit="contain"))

    def redraw(_change=None) -> None:
        picture.value = plots.png(draw(**{name: control.value for name, control in controls.items()}))

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    view = ipywidgets.VBox([*controls.values(), picture])
    bundle = {**view._repr_mimebundle_(), "text/plain": alt}
    display(bundle, raw=True)
