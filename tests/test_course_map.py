"""The map of the course: it says in words what it is, and links to the notebooks that exist and to nothing else."""

import re
from xml.etree import ElementTree

import nbformat
import pytest

from helpers.course.chapters import NOTEBOOKS as LIST
from helpers.course.figures import ch01
from helpers.course.figures.ch01 import course_map
from tests.notebooks import ROOT, all_notebooks

SVG, HTML = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xhtml}"
NOTEBOOKS = ROOT / "notebooks"


def links(svg):
    """Address and words of each link on the map."""
    return {link.get("href"): link.text for link in ElementTree.fromstring(svg).iter(f"{HTML}a")}


def place(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).touch()


def test_an_empty_folder_has_boxes_and_no_links(tmp_path):
    svg = course_map(tmp_path)
    assert links(svg) == {}
    assert svg.count("This notebook is not in your folder") == len(LIST)
    assert svg.count('stroke-dasharray="4 3"') == len(LIST)


def test_it_links_to_what_is_in_the_folder(tmp_path):
    place(tmp_path, "ch02_text_data.ipynb", "appendix_e_lora.ipynb", "bonus/bpe_from_scratch.ipynb", "ch02_copy.ipynb")
    assert links(course_map(tmp_path)) == {
        "ch02_text_data.ipynb": "2. Working with text data",
        "appendix_e_lora.ipynb": "E. LoRA: fine-tuning with few weights",
        "bonus/bpe_from_scratch.ipynb": "Byte-pair encoding from scratch",
    }


TITLE = "A title of <b>quite</b> a few words & signs that fill three lines of its box"


def extended(number):
    """The list with bonus notebooks of which there are `number`."""
    bonus = next(notebook for notebook in LIST if notebook.kind == "bonus")
    new = [bonus._replace(number=f"bonus-{place}", file=f"bonus/{place}.ipynb", title=TITLE) for place in range(number)]
    return [*(notebook for notebook in LIST if notebook.kind != "bonus"), *new]


@pytest.mark.parametrize("number", [1, 5, 9, 10])
def test_every_box_is_inside_and_none_overlaps(tmp_path, monkeypatch, number):
    monkeypatch.setattr(ch01, "NOTEBOOKS", extended(number))
    place(tmp_path, "bonus/0.ipynb")
    svg = course_map(tmp_path)
    assert links(svg) == {"bonus/0.ipynb": TITLE}
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    boxes = [box.attrib for box in root.iter(f"{SVG}rect") if "x" in box.attrib]
    sides = [[float(box[key]) for key in ("x", "y", "width", "height")] for box in boxes]
    corners = [(x, y, x + w, y + h) for x, y, w, h in sides]
    assert len(corners) == 12 + number
    assert all(x >= 0 and y >= 0 and right <= width and low <= height for x, y, right, low in corners)
    for index, a in enumerate(corners):
        for b in corners[:index]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_it_says_in_words_what_it_is_and_loads_nothing(tmp_path):
    svg = course_map(tmp_path)
    root = ElementTree.fromstring(svg)
    assert len(root.get("aria-label").split()) > 10
    assert root.find(f"{SVG}desc").text == root.get("aria-label")
    assert set(re.findall(r"https?://[^\"]+", svg)) == {SVG.strip("{}"), HTML.strip("{}")}  # names, not addresses


def test_the_course_is_on_its_map():
    names = {path.relative_to(NOTEBOOKS).as_posix() for path in all_notebooks()}
    assert set(links(course_map(NOTEBOOKS))) == names


def test_the_table_under_the_map_links_to_every_chapter_and_appendix_too():
    chapter = nbformat.read(NOTEBOOKS / "ch01_understanding_llms.ipynb", as_version=4)
    prose = "\n".join(cell.source for cell in chapter.cells if cell.cell_type == "markdown")
    linked = set(re.findall(r"^\| .*\]\(([\w/]+\.ipynb)\)", prose, flags=re.MULTILINE))
    missing = {path.name for path in all_notebooks() if path.parent == NOTEBOOKS} - linked
    assert missing == {"ch01_understanding_llms.ipynb"}, "add a link to the table of section 1.7"
