"""Interactive figures and tables: controls above a picture, or text, that is made anew whenever one is changed."""

from __future__ import annotations

import html
import time
import traceback
from collections.abc import Callable, Sequence

import ipywidgets
from IPython.display import display
from matplotlib.figure import Figure

from . import plots

QUICK = 0.1  # seconds: what is made in less follows a slider while it moves
_BUSY = '<span role="status" style="font-style: italic">working …</span>'
_SLIDERS = (ipywidgets.IntSlider, ipywidgets.FloatSlider)

# What `foot` shows. Its words are seen only where ipywidgets marks a widget as disconnected. The picture, which is
# none, gives figures and the handles of sliders the names that ipywidgets leaves them without; there is no other place
# from where a widget can say how its neighbours are to be read out.
_FOOT = """<style>
.course-dead { display: none; }
.jupyter-widgets-disconnected .course-dead { display: block; font-style: italic; }
</style><span class="course-dead">Its kernel is gone: run this cell again.</span>
<img alt="ABOUT" hidden src="data:," onerror="
  const name = () => {
    const box = this.closest('.widget-vbox');
    box?.querySelectorAll('.widget-image').forEach(figure => figure.setAttribute('alt', this.alt));
    box?.querySelectorAll('.widget-slider').forEach(slider =>
      slider.querySelector('[role=slider]')?.setAttribute('aria-label', slider.querySelector('label').textContent));
  };
  name(); setTimeout(name, 500);
">"""


def slider(name: str, low: float, high: float, step: float, value: float) -> ipywidgets.Widget:
    """A labelled slider from `low` to `high`; whole numbers if all four are."""
    whole = all(isinstance(number, int) for number in (low, high, step, value))
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    return kind(value=value, min=low, max=high, step=step, continuous_update=False, **_label(name))


def choice(name: str, options: Sequence[str], value: str | None = None) -> ipywidgets.Widget:
    """A labelled drop-down list."""
    return ipywidgets.Dropdown(options=options, value=value or options[0], **_label(name))


def text(name: str) -> ipywidgets.Widget:
    """A labelled line to type into, empty at first."""
    return ipywidgets.Text(value="", **_label(name))


def _label(name: str) -> dict:
    wide = ipywidgets.Layout(width="420px")
    return {"description": name, "tooltip": name, "layout": wide, "style": {"description_width": "140px"}}


def play(draw: Callable[..., Figure], alt: str, **controls: ipywidgets.Widget) -> None:
    """Show `draw(**values)` as a picture under its controls, drawn anew when a control changes.

    `controls` are widgets, one per argument of `draw`. `alt` says what there is to play with; it stands in for the
    widget wherever widgets do not run. Put a static figure (`plots.show`) under it for readers of the page.
    """
    picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%", object_fit="contain"))

    def redraw(**values) -> None:
        data = plots.png(draw(**values))
        picture.width = str(plots.width_of(data))  # as wide as the static figure
        picture.value = data

    _show_under(picture, redraw, alt, controls)


def browse(write: Callable[..., str], alt: str, **controls: ipywidgets.Widget) -> None:
    """Show `write(**values)`, a piece of HTML, under its controls, written anew when a control changes.

    What `play` is for pictures, this is for tables. The HTML is shown as it is: escape what comes from elsewhere. Put
    a static version under it for readers of the page.
    """
    page = ipywidgets.HTML(layout=ipywidgets.Layout(max_height="480px", overflow="auto"))

    def rewrite(**values) -> None:
        page.value = write(**values)

    _show_under(page, rewrite, alt, controls)


def foot(alt: str = "") -> ipywidgets.Widget:
    """The last line of a box of widgets: it says what to do where no kernel answers any more, else nothing.

    That is so after a restart, and in a notebook that was closed and opened again. A figure in the box is described by
    `alt`.
    """
    return ipywidgets.HTML(_FOOT.replace("ABOUT", html.escape(alt)))


def show(view: ipywidgets.Widget, alt: str) -> None:
    """Show a widget; `alt` stands in for it wherever widgets do not run."""
    display({**view._repr_mimebundle_(), "text/plain": alt}, raw=True)


def _show_under(part: ipywidgets.Widget, remake: Callable, alt: str, controls: dict[str, ipywidgets.Widget]) -> None:
    """Show a widget under controls; `remake(**values)` gives it its content, now and whenever a value changes.

    What is made quickly follows a slider while it moves; what takes longer waits until the slider stops, and says that
    it is being made. What stops `remake` now is raised; later it is shown above the content, which stays as it was.
    """
    note = ipywidgets.HTML()
    sliders = [control for control in controls.values() if isinstance(control, _SLIDERS)]

    def make() -> bool:
        start = time.perf_counter()
        remake(**{name: control.value for name, control in controls.items()})
        quick = time.perf_counter() - start < QUICK
        for control in sliders:
            control.continuous_update = quick
        return quick

    quick = make()

    def changed(_change=None) -> None:
        nonlocal quick
        if not quick:
            note.value = _BUSY
        try:
            quick = make()
            note.value = ""
        except Exception as error:
            note.value = _told(error)

    for control in controls.values():
        control.observe(changed, names="value")
    show(ipywidgets.VBox([*controls.values(), note, part, foot(alt)]), alt)


def _told(error: Exception) -> str:
    """An error in a redraw, with the line of the notebook or of `helpers` where it came from."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    line = f" (line {place.lineno}: {place.line})" if place.line else ""
    message = html.escape(f"This could not be drawn: {type(error).__name__}: {error}{line}")
    return f'<div role="alert" style="border-left: 6px solid #D55E00; padding: 0.3em 0.8em">{message}</div>'
