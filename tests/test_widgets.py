"""Interactive figures, without a browser: moving a control draws the picture anew."""

import io
import warnings

import ipywidgets
import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from PIL import Image

from helpers import plots, widgets

mpl.use("Agg")
ALT = "Interactive figure: a bar that grows with the slider."


@pytest.fixture(name="shown")
def displayed(monkeypatch):
    calls = []
    monkeypatch.setattr(widgets, "display", lambda bundle, **options: calls.append((bundle, options)))
    return calls


def bar(height, color="blue"):
    fig, ax = plots.subplots(3, 2)
    ax.bar([0], [height], color=color)
    ax.set_ylim(0, 10)
    return fig


def picture_of(bundle):
    """The view that a bundle names, and the picture in it."""
    model_id = bundle["application/vnd.jupyter.widget-view+json"]["model_id"]
    view = ipywidgets.widgets.widget._instances[model_id]
    *_, _problem, picture, _foot = view.children
    return view, picture


def problem_of(bundle):
    """What a widget says of a redraw that failed."""
    model_id = bundle["application/vnd.jupyter.widget-view+json"]["model_id"]
    return ipywidgets.widgets.widget._instances[model_id].children[-3].value


class TestControls:
    def test_whole_numbers(self):
        slider = widgets.slider("windows", 1, 9, 2, 3)
        assert isinstance(slider, ipywidgets.IntSlider)
        assert (slider.min, slider.max, slider.step, slider.value) == (1, 9, 2, 3)
        assert slider.description == "windows"
        assert slider.continuous_update is False

    def test_fractions(self):
        slider = widgets.slider("temperature", 0.1, 5, 0.1, 1)
        assert isinstance(slider, ipywidgets.FloatSlider)
        assert (slider.min, slider.max, slider.step, slider.value) == (0.1, 5, 0.1, 1)

    def test_choice(self):
        assert widgets.choice("colour", ["blue", "red"]).value == "blue"
        assert widgets.choice("colour", ["blue", "red"], "red").value == "red"
        assert widgets.choice("colour", ["blue", "red"]).options == ("blue", "red")

    def test_text(self):
        line = widgets.text("word in the title")
        assert (line.value, line.description) == ("", "word in the title")

    def test_no_warnings(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            widgets.slider("a", 1, 2, 1, 1)
            widgets.slider("a", 1.0, 2, 1, 1)
            widgets.choice("a", ["one", "two"])


class TestPlay:
    def test_bundle(self, shown):
        slider = widgets.slider("height", 1, 9, 1, 3)
        widgets.play(bar, alt=ALT, height=slider)
        ((bundle, options),) = shown
        assert bundle["text/plain"] == ALT
        assert options == {"raw": True}
        view, picture = picture_of(bundle)
        assert view.children[:1] == (slider,) and picture in view.children
        assert Image.open(io.BytesIO(picture.value)).format == "PNG"
        assert picture.value == plots.png(bar(3))

    def test_redraws_when_a_control_changes(self, shown):
        height, color = widgets.slider("height", 1, 9, 1, 3), widgets.choice("colour", ["blue", "red"])
        widgets.play(bar, alt=ALT, height=height, color=color)
        _, picture = picture_of(shown[0][0])
        seen = []
        picture.observe(lambda change: seen.append(bytes(change["new"])), names="value")
        height.value = 7
        color.value = "red"
        assert seen == [plots.png(bar(7)), plots.png(bar(7, "red"))]
        height.value = 7  # no change, nothing to draw
        assert len(seen) == 2

    def test_figures_are_closed(self, shown):
        plt.close("all")
        slider = widgets.slider("height", 1, 9, 1, 3)
        widgets.play(bar, alt=ALT, height=slider)
        slider.value = 4
        assert plt.get_fignums() == []

    def test_a_control_that_draw_does_not_know(self, shown):
        with pytest.raises(TypeError, match="depth"):
            widgets.play(bar, alt=ALT, depth=widgets.slider("depth", 1, 9, 1, 3))
        assert shown == []

    def test_as_wide_as_the_static_figure(self, shown, monkeypatch):
        widgets.play(bar, alt=ALT, height=widgets.slider("height", 1, 9, 1, 3))
        _, picture = picture_of(shown[0][0])
        static = []
        monkeypatch.setattr(plots, "display", lambda bundle, **_: static.append(bundle["text/html"]))
        plots.show(bar(3), alt=ALT)
        assert f'width="{picture.width}"' in static[0]

    def test_an_error_in_a_redraw_is_shown_until_the_next_one_succeeds(self, shown):
        def fragile(height):
            if height == 7:
                raise ValueError("no <bar> of 7")
            return bar(height)

        slider = widgets.slider("height", 1, 9, 1, 3)
        widgets.play(fragile, alt=ALT, height=slider)
        _, picture = picture_of(shown[0][0])
        before = picture.value
        assert problem_of(shown[0][0]) == ""
        slider.value = 7
        said = problem_of(shown[0][0])
        assert "This could not be drawn: ValueError: no &lt;bar&gt; of 7" in said
        assert "raise ValueError(&quot;no &lt;bar&gt; of 7&quot;)" in said and picture.value == before
        slider.value = 8
        assert problem_of(shown[0][0]) == "" and picture.value == plots.png(bar(8))

    def test_it_says_what_to_do_when_the_kernel_is_gone(self, shown):
        widgets.play(bar, alt=ALT, height=widgets.slider("height", 1, 9, 1, 3))
        view, _ = picture_of(shown[0][0])
        assert "run this cell again" in view.children[-1].value

    def test_what_is_drawn_quickly_follows_the_slider(self, shown, monkeypatch):
        monkeypatch.setattr(widgets, "QUICK", float("inf"))
        slider, box = widgets.slider("height", 0, 10, 1, 3), widgets.text("label")
        widgets.play(lambda height, label: bar(height), ALT, height=slider, label=box)
        assert slider.continuous_update is True

    def test_what_takes_longer_waits_for_its_end_and_says_so(self, shown, monkeypatch):
        monkeypatch.setattr(widgets, "QUICK", 0.0)
        slider, said = widgets.slider("height", 0, 10, 1, 3), []

        def draw(height):
            said.append(problem_of(shown[0][0]) if shown else None)
            return bar(height)

        widgets.play(draw, ALT, height=slider)
        assert slider.continuous_update is False
        slider.value = 7
        assert "working" in said[-1] and 'role="status"' in said[-1]
        assert problem_of(shown[0][0]) == ""
        monkeypatch.setattr(widgets, "QUICK", float("inf"))  # the next drawing is quick, and the slider follows
        slider.value = 8
        assert slider.continuous_update is True


class TestBrowse:
    def test_rewrites_when_a_control_changes(self, shown):
        kind, word = widgets.choice("kind", ["book", "code"]), widgets.text("word")
        widgets.browse(lambda kind, word: f"<p>{kind}: {word}</p>", alt=ALT, kind=kind, word=word)
        ((bundle, options),) = shown
        assert (bundle["text/plain"], options) == (ALT, {"raw": True})
        view, page = picture_of(bundle)
        assert view.children[:2] == (kind, word) and page in view.children
        assert page.value == "<p>book: </p>"
        word.value = "adam"
        assert page.value == "<p>book: adam</p>"
        kind.value = "code"
        assert page.value == "<p>code: adam</p>"

    def test_a_control_that_write_does_not_know(self, shown):
        with pytest.raises(TypeError, match="depth"):
            widgets.browse(lambda kind: kind, alt=ALT, depth=widgets.text("depth"))
        assert shown == []
