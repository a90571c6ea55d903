"""The map of the course: every notebook is on it, and the table under it links to each."""

import re

import nbformat
import pytest
from matplotlib.patches import FancyBboxPatch

from helpers import plots
from helpers.course.chapters import NOTEBOOKS as LIST
from helpers.course.figures import ch01
from helpers.course.figures.ch01 import course_map
from tests.notebooks import ROOT, all_notebooks

TITLE = "A title of $quite$ a few words & signs that fill three lines of its box"
CHAPTER = ROOT / "notebooks" / "ch01_understanding_llms.ipynb"


def extended(number):
    """The list with bonus notebooks of which there are `number`."""
    bonus = next(notebook for notebook in LIST if notebook.kind == "bonus")
    new = [bonus._replace(number=f"bonus-{place}", file=f"bonus/{place}.ipynb", title=TITLE) for place in range(number)]
    return [*(notebook for notebook in LIST if notebook.kind != "bonus"), *new]


def words_on(fig):
    return [" ".join(text.get_text().replace("\\$", "$").split()) for text in fig.axes[0].texts]


def test_the_course_is_on_its_map():
    words = words_on(course_map())
    for notebook in LIST:
        title = notebook.short or notebook.title
        title = title if notebook.kind == "bonus" else f"{notebook.number}. {title}"
        assert [text for text in words if text.removesuffix(" (you are here)") == title], title
    assert sum(text.endswith("(you are here)") for text in words) == 1


@pytest.mark.parametrize("number", [1, 4, 5, 10, 13])
def test_every_box_is_inside_with_its_text_and_none_overlaps(monkeypatch, number):
    monkeypatch.setattr(ch01, "NOTEBOOKS", extended(number))
    fig = course_map()
    (ax,) = fig.axes
    fig.canvas.draw()
    patches = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch) and patch.get_height() > 0.3]
    boxes = [patch.get_window_extent() for patch in patches]
    assert len(boxes) == 12 + number
    assert all(ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 for box in boxes)
    assert all(ax.bbox.y0 <= box.y0 and box.y1 <= ax.bbox.y1 for box in boxes)
    for index, a in enumerate(boxes):
        assert not any(a.overlaps(b) for b in boxes[:index])
    titles = [text for text in ax.texts if re.match(r"A title|[\dA-E]\.", text.get_text())]
    assert len(titles) == len(boxes)
    for text in titles:
        here = text.get_window_extent()
        inside = [box for box in boxes if box.x0 <= here.x0 and here.x1 <= box.x1 and box.y0 <= here.y0]
        assert any(here.y1 <= box.y1 for box in inside), text.get_text()
    assert plots.png(fig)


def test_it_says_in_words_what_it_is():
    alt = course_map().get_label()
    assert "Chapters 1 to 7 follow each other" in alt
    assert f"{sum(notebook.kind == 'bonus' for notebook in LIST)} bonus notebooks" in alt


def test_the_table_under_the_map_links_to_every_notebook():
    chapter = nbformat.read(CHAPTER, as_version=4)
    prose = "\n".join(cell.source for cell in chapter.cells if cell.cell_type == "markdown")
    linked = re.findall(r"^\| \[[^\]]+\]\(([\w/]+\.ipynb)\)", prose, flags=re.MULTILINE)
    assert linked == [notebook.file for notebook in LIST]
    assert sorted(linked) == sorted(path.relative_to(ROOT / "notebooks").as_posix() for path in all_notebooks())
