"""The list of notebooks: it holds what is in the folder, loads without any package, and README's table follows it."""

import re
import subprocess
import sys

import pytest

from helpers.course import chapters
from helpers.course.chapters import NOTEBOOKS
from helpers.pretrained import REPOSITORIES
from helpers.texts import BOOK_FILES
from tests import notebooks as tool
from tests.notebooks import ROOT, all_notebooks, code_cells, read

EACH = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.number)
NEW = chapters.Notebook(
    number="bonus-new",
    file="bonus/new.ipynb",
    title="Something new",
    builds="something | new",
    minutes=135,
    seconds=(30, 60),
    arithmetic=0.5,
    needs=("4", "E"),
)


def test_it_lists_the_notebooks_in_the_folder_once_each():
    files = [notebook.file for notebook in NOTEBOOKS]
    assert sorted(files) == sorted(path.relative_to(ROOT / "notebooks").as_posix() for path in all_notebooks())
    for field in ("number", "title", "prefix", "builds"):
        assert len({getattr(notebook, field) for notebook in NOTEBOOKS}) == len(NOTEBOOKS), field


def test_chapters_come_before_appendices_and_these_before_the_bonus():
    main = [notebook.number for notebook in NOTEBOOKS if notebook.kind != "bonus"]
    assert main == [*"1234567", *"ABCDE"]
    assert [notebook.number for notebook in NOTEBOOKS[: len(main)]] == main
    for notebook in NOTEBOOKS[len(main) :]:
        assert notebook.number.startswith("bonus-") and notebook.file.startswith("bonus/")


@EACH
def test_what_a_notebook_needs_comes_before_it(notebook):
    before = [other.number for other in NOTEBOOKS[: NOTEBOOKS.index(notebook)]]
    assert list(notebook.needs) == [number for number in before if number in notebook.needs]


@EACH
def test_times_are_possible(notebook):
    quick, book = notebook.seconds
    assert 0 < quick <= 90 and quick <= book  # 90 s is the most that a notebook may take in the quick profile
    assert 0 <= notebook.arithmetic <= 1
    assert notebook.minutes is None or 20 <= notebook.minutes <= 240


# What in a notebook's code downloads something in the book profile.
DATA = {"pretraining_text": "the-verdict", "messages": "sms-spam-collection", "instructions": "instruction-data"}


@EACH
def test_downloads_are_those_of_the_code(notebook):
    code = "\n".join(cell.source for cell in code_cells(read(ROOT / "notebooks" / notebook.file)))
    used = {name for field, name in DATA.items() if re.search(rf"load_\w+\(profile\.{field}\)", code)}
    calls = re.findall(r'\b(?:load_pretrained\(profile|fetch_gpt2\(|load_gpt2\()(?:[^)"]*"(\w+)")?', code)
    used |= {f"gpt2-{size or '124M'}" for size in calls}
    assert set(notebook.downloads) == used
    assert used <= {*BOOK_FILES, *(f"gpt2-{size}" for size in REPOSITORIES)}


@pytest.mark.parametrize(
    ("number", "kind", "name", "heading", "prefix"),
    [
        ("5", "chapter", "chapter 5", "Chapter 5: Pretraining on unlabeled data", "5"),
        ("A", "appendix", "appendix A", "Appendix A: Introduction to PyTorch", "A"),
        ("bonus-kv-cache", "bonus", 'bonus "The KV cache"', "Bonus: The KV cache", "kv"),
    ],
)
def test_names(number, kind, name, heading, prefix):
    (found,) = [notebook for notebook in NOTEBOOKS if notebook.number == number]
    assert (found.kind, found.name, found.heading, found.prefix) == (kind, name, heading, prefix)


def test_it_loads_by_its_path_with_the_standard_library_alone():
    code = f"import runpy, sys; print(len(runpy.run_path({chapters.__file__!r})['NOTEBOOKS'])); "
    code += "print(sorted(name for name in ('torch', 'numpy', 'helpers') if name in sys.modules))"
    done = subprocess.run([sys.executable, "-S", "-I", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split("\n")[:2], done.stderr) == ([str(len(NOTEBOOKS)), "[]"], "")


# README's table


@pytest.mark.parametrize("page", [tool.README, tool.START], ids=lambda page: page.name)
def test_the_table_is_the_lists(page):
    assert tool.lint_table(page) == []


def test_the_start_page_leads_to_every_notebook():
    targets = re.findall(r"\]\(([^)]+)\)", tool.START.read_text(encoding="utf-8"))
    assert {notebook.file for notebook in NOTEBOOKS} <= set(targets)
    assert [target for target in targets if not (tool.START.parent / target).is_file()] == []


def test_links_makes_the_table_anew_and_leaves_the_rest_alone(tmp_path, monkeypatch):
    readme, text = tmp_path / "README.md", (ROOT / "README.md").read_text(encoding="utf-8")
    readme.write_text(text.replace("| 45 min |", "| 46 min |", 1), encoding="utf-8")
    assert tool.lint_table(readme) == ["the table is not that of helpers/course/chapters.py: run make links"]
    assert tool.stamp_table(readme) and readme.read_text(encoding="utf-8") == text
    assert not tool.stamp_table(readme)
    monkeypatch.setattr(tool, "NOTEBOOKS", (*NOTEBOOKS, NEW))
    assert tool.stamp_table(readme)
    lines = {*readme.read_text(encoding="utf-8").splitlines()} - {*text.splitlines()}
    assert lines == {"| [Bonus: Something new](notebooks/bonus/new.ipynb) | something \\| new | 4, E | 2 h 15 |"}


@pytest.mark.parametrize("comment", tool.TABLE)
def test_readme_must_have_both_comments(comment):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"README\.md must have the lines <!-- notebooks: .* and <!-- /notebooks -->"):
        tool.with_table(text.replace(comment, ""))


def test_a_cell_with_both_comments_gets_the_table_too():
    start, end = tool.TABLE
    cell = tool.cell_with_table(f"Words.\n\n{start}An old table.\n{end}\n\nMore words.", "ch01.ipynb")
    assert cell == f"Words.\n\n{start}{tool.table('')}{end}\n\nMore words."
    assert f"]({NOTEBOOKS[0].file})" in cell and "notebooks/" not in cell
    assert tool.cell_with_table("Words.", "ch01.ipynb") == "Words."
    with pytest.raises(ValueError, match=r"ch01\.ipynb must have the lines"):
        tool.cell_with_table(start, "ch01.ipynb")


def test_without_paths_the_tool_sees_to_readme_and_start_page_too(tmp_path, monkeypatch, capsys):
    readme, start = tmp_path / "README.md", tmp_path / "START.md"
    for page, name in ((readme, "README"), (start, "START")):
        page.write_text("".join(tool.TABLE))
        monkeypatch.setattr(tool, name, page)
    monkeypatch.setattr(tool, "all_notebooks", list)
    assert tool.main(["lint"]) == 1
    assert tool.main(["links"]) == 0 and tool.main(["lint"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "README.md: the table is not that of helpers/course/chapters.py: run make links",
        "START.md: the table is not that of helpers/course/chapters.py: run make links",
        "README.md: stamped",
        "START.md: stamped",
        "README.md: in order",
        "START.md: in order",
    ]
    assert tool.table() in readme.read_text() and tool.table("") in start.read_text()
