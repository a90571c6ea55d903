"""The committed notebooks are in order, and each rule of the lint is seen to fail on a broken sample."""

import base64
import copy
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys

import nbclient
import nbformat
import pytest
import yaml
from jupyter_client.kernelspec import get_kernel_spec
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from helpers.course.chapters import NOTEBOOKS, Notebook
from helpers.course.checks import EXERCISES
from tests.nbval_numbers import WIDGET
from tests.notebooks import (
    BADGE,
    ROOT,
    TABLE,
    TAG,
    TIME,
    UNNAMED,
    _minutes,
    all_notebooks,
    bootstrap,
    digest,
    links,
    lint,
    main,
    read,
    refresh,
    repository,
    seal,
)

EACH = pytest.mark.parametrize("path", all_notebooks(), ids=lambda path: path.stem)


@EACH
def test_notebook_is_in_order(path):
    assert lint(path) == []


@EACH
def test_any_edit_of_outputs_or_code_is_noticed(path):
    nb = nbformat.read(path, as_version=4)
    sealed = digest(nb)
    assert nb.metadata.get("course") == {"outputs": sealed}, "run make refresh"
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            places = [(output.data, kind) for kind in output.data] if "data" in output else [(output, "text")]
            for place, key in places:
                before = place[key]
                last = re.search(r"\w(?=\W*$)", before)  # the last digit or letter, or one in a picture's base64
                if last is None:
                    continue
                place[key] = before[: last.start()] + ("1" if last[0] == "0" else "0") + before[last.end() :]
                assert digest(nb) != sealed
                place[key] = before
        if cell.cell_type == "code":
            cell.source += " "
            assert digest(nb) != sealed
            cell.source = cell.source[:-1]
    assert digest(nb) == sealed


def test_every_checker_belongs_to_a_notebook():
    assert {number.split(".")[0] for number in EXERCISES} <= {notebook.prefix for notebook in NOTEBOOKS}


# ---- broken samples --------------------------------------------------------------------------------------------

ALT = "A small white square and nothing else"


def png():
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "white").save(out, format="PNG")
    return base64.b64encode(out.getvalue()).decode()


def image(alt):
    return f'<img src="data:image/png;base64,{png()}" alt="{alt}" width="8" height="8">'


def code(source, *tags, outputs=()):
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {}, outputs=list(outputs))


def sample():
    badge = BADGE.format(repository=repository(), path="notebooks/ch09_sample.ipynb")
    figure = new_output("display_data", {"text/html": image(ALT), "text/plain": ALT})
    cells = [
        new_markdown_cell(
            f"# Chapter 9: A sample\n\n{badge}\n\n**What you will be able to do.** Much.\n\n"
            "**What you need first.** Chapter 8.\n\n**Time.** About two and a half hours, and one more for exercises."
        ),
        code(bootstrap(), "bootstrap"),
        code("from helpers import checks", "setup"),
        new_markdown_cell(
            "## 9.1 Looking at a figure\n\nText about `not !x`, $n!$ and a != b. See [this](ch09_sample.ipynb)."
        ),
        code("plots.show(fig)", outputs=[figure]),
        new_markdown_cell("## 9.2 Counting\n\nA list:\n\n- one\n\n### Exercise 9.1: Add\n\nAdd one and one."),
        code(
            "answer = None\nchecks.exercise_9_1(answer)",
            "exercise:9.1",
            outputs=[new_output("stream", text="2 of 3\n")],
        ),
        new_markdown_cell("## What you built\n\nA sum.\n\n## Check yourself\n\nWell?\n\n## What comes next\n\nMore."),
    ]
    cells += [code(f"print({number})", outputs=[new_output("stream", text=f"{number}\n")]) for number in range(40)]
    nb = new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    for count, cell in enumerate([cell for cell in cells if cell.cell_type == "code"], start=1):
        cell.execution_count = count
    return nb


def record(number, title, needs=()):
    """The list's record of a chapter whose code takes a second."""
    file = f"ch{int(number):02}_{title.split()[-1].lower()}.ipynb"
    return Notebook(number, file, title, builds="", minutes=150, seconds=(1, 1), arithmetic=0.5, needs=needs)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A function that writes a notebook into a course of its own and lints it."""
    records = record("8", "An earlier chapter"), record("9", "A sample", needs=("8",))
    monkeypatch.setattr("tests.notebooks.NOTEBOOKS", records)

    def exercise_9_1(answer):
        return "right"

    monkeypatch.setitem(EXERCISES, "9.1", exercise_9_1)
    path = tmp_path / "notebooks" / "ch09_sample.ipynb"
    path.parent.mkdir()

    def check(nb, sealed=True):
        if sealed:
            seal(nb)
        nbformat.write(nb, path)
        return lint(path, tmp_path)

    check.path = path
    return check


def test_sample_is_in_order(course):
    assert course(sample()) == []


TITLE, BOOT, SETUP, SECTION, FIGURE, COUNTING, EXERCISE, END, PLAIN = range(9)


def source(cell, old, new):
    def change(nb):
        assert old in nb.cells[cell].source
        nb.cells[cell].source = nb.cells[cell].source.replace(old, new)

    return change


def tag(cell, *tags):
    return lambda nb: nb.cells[cell].metadata.update(tags=list(tags))


def put(cell, **fields):
    return lambda nb: nb.cells[cell].update(fields)


def out(**fields):
    return lambda nb: nb.cells[PLAIN].outputs.append(new_output(**fields))


def figure(text=ALT, alt=ALT):
    def change(nb):
        nb.cells[FIGURE].outputs[0].data = {"text/html": image(alt), "text/plain": text}

    return change


FOLDED = "<details><summary>What to compare it with</summary>\n\nThree.\n\n</details>"
BROKEN = {
    "not executed": (put(PLAIN, execution_count=None), "execution count None instead of 5"),
    "executed twice": (put(PLAIN, execution_count=7), "execution count 7 instead of 5"),
    "an error": (out(output_type="error", ename="KeyError", evalue="x"), "stopped with KeyError"),
    "stderr": (out(output_type="stream", name="stderr", text="Warning"), "writes to stderr"),
    "widget view": (out(output_type="display_data", data={WIDGET: {}, "text/plain": "x"}), "holds a widget view"),
    "widget state": (lambda nb: nb.metadata.update(widgets={}), "holds widget state"),
    "path in output": (out(output_type="stream", text="in /home/ada/x"), "one machine: '/home/ada"),
    "path in traceback": (out(output_type="display_data", data={"text/plain": r"C:\course"}), "one machine"),
    "path in code": (source(PLAIN, "print(0)", "open('/tmp/x')"), "names a place of one machine"),
    "path in prose": (source(SECTION, "Text", "See /Users/ada. Text"), "names a place of one machine"),
    "package index": (out(output_type="stream", text="Looking in indexes: https://x"), "Looking in indexes"),
    "no alternative text": (figure(alt=""), "without alternative text"),
    "short alternative text": (figure("A white square", "A white square"), "without alternative text"),
    "other text": (figure(text="<Figure size 1x1>"), "text/plain is not its alternative text"),
    "image by HTML": (out(output_type="display_data", data={"text/html": "<img src='x'>"}), "use plots.show"),
    "image without HTML": (out(output_type="display_data", data={"image/png": "x"}), "use plots.show"),
    "image in prose": (source(SECTION, "Text", "![x](https://example.com/x.png) Text"), "an image in markdown"),
    "image tag in prose": (source(SECTION, "Text", '<img src="x.png"> Text'), "an image in markdown"),
    "no title": (source(TITLE, "# Chapter 9: A sample", "## Chapter 9: A sample"), "only H1"),
    "two titles": (source(END, "## Check", "# Check"), "only H1"),
    "other number": (source(TITLE, "Chapter 9", "Chapter 7"), "chapters.py it is 'Chapter 9: A sample'"),
    "other title": (source(TITLE, "A sample", "The sample"), "the title is 'Chapter 9: The sample'"),
    "other time": (source(TITLE, "two and a half hours", "45 minutes"), "**Time.** says 45 minutes, helpers/course"),
    "no time": (source(TITLE, "two and a half hours, and one more", "long, longer"), "says no reading time"),
    "need not named": (source(TITLE, "Chapter 8", "Chapter 80"), "**What you need first.** does not name chapter 8"),
    "other badge": (source(TITLE, "ch09_sample", "ch08_sample"), "the link to Colab"),
    "no lead-in": (source(TITLE, "**Time.**", "Time."), "**Time.**"),
    "lead-ins out of order": (source(TITLE, "**What you need first.**", "**Time.**"), "the opening must have"),
    "other bootstrap": (source(BOOT, "import sys", "import os"), "must be the bootstrap cell"),
    "no setup": (tag(SETUP), "tagged `setup`"),
    "no ending": (source(END, "## What comes next", "### What comes next"), "the last three sections"),
    "section number": (source(COUNTING, "## 9.2", "## 9.3"), "should be number 9.2"),
    "skipped level": (source(COUNTING, "### Exercise", "#### Exercise"), "skips a level"),
    "exclamation": (source(SECTION, "Text about", "Great! Text about"), "an exclamation mark"),
    "bullets": (source(COUNTING, "- one", "- one\n" * 30), "are bullets"),
    "a prediction without a fold": (source(SECTION, "Text", "*Before you run it:* how many? Text"), "no fold before"),
    "two predictions, one fold": (
        source(SECTION, "Text", f"Do. Predict one.\n\n*Your turn, before you look:* two?\n\n{FOLDED}\n\nText"),
        "no fold before the next question answers 'Predict one.'",
    ),
    "a fold without empty lines": (source(SECTION, "Text", FOLDED.replace("\n\n", "\n") + "\n\nText"), "a fold is not"),
    "a fold without an end": (source(SECTION, "Text", FOLDED.replace("</details>", "") + "\n\nText"), "a fold is not"),
    "a fold without a beginning": (source(SECTION, "Text", f"{FOLDED}\n\n</details>\n\nText"), "a fold is not"),
    "old table of notebooks": (source(END, "A sum.", "old".join(TABLE)), "the table of notebooks is not that of"),
    "dead link": (source(SECTION, "(ch09_sample.ipynb)", "(ch08_gone.ipynb#x)"), "ch08_gone.ipynb#x leads nowhere"),
    "absolute link": (source(SECTION, "(ch09_sample.ipynb)", "(/ch09_sample.ipynb)"), "leads nowhere"),
    "skipped cell": (tag(PLAIN, "nbval-skip"), "no tag `reason:...`"),
    "ignored cell": (tag(PLAIN, "nbval-ignore-output"), "no tag `reason:...`"),
    "many ignored": (
        lambda nb: [tag(PLAIN + i, "nbval-ignore-output", "reason:random")(nb) for i in range(3)],
        "3 of 44 code cells are not compared",
    ),
    "unknown tag": (tag(PLAIN, "nbval-ignore"), "unknown tag 'nbval-ignore'"),
    "half a name": (tag(PLAIN, "helpers:attention"), "unknown tag 'helpers:attention'"),
    "unknown need": (tag(PLAIN, "needs:gpt4"), "unknown tag 'needs:gpt4'"),
    "loose tolerance": (tag(PLAIN, "nbval-rtol=10"), "unknown tag 'nbval-rtol=10'"),
    "loose share": (tag(PLAIN, "nbval-share=0.6"), "unknown tag 'nbval-share=0.6'"),
    "nbval comment": (source(PLAIN, "print", "# NBVAL_IGNORE_OUTPUT\nprint"), "by a comment"),
    "no checker": (tag(EXERCISE, "exercise:9.7"), "exercise 9.7 has no checker"),
    "no exercise cell": (tag(EXERCISE), "checker of exercise 9.1 has 0 cells"),
    "statement without cell": (source(END, "## Check", "### Exercise 9.8: Go on\n\n## Check"), "9.8 is stated"),
    "no statement": (source(COUNTING, "Exercise 9.1", "Exercise 9.2"), "no heading `### Exercise 9.1"),
    "checker not called": (
        source(EXERCISE, "checks.exercise_9_1(answer)", "answer"),
        "must end with checks.exercise_9_1",
    ),
    "big file": (source(SECTION, "Text", "Text " * 700_000), "bytes (at most 3,000,000)"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_sample_is_refused(course, name):
    change, message = BROKEN[name]
    nb = sample()
    change(nb)
    problems = course(nb)
    assert any(message in problem for problem in problems), problems
    assert len(problems) <= 3, problems  # and hardly anything else is called wrong


def test_a_prediction_with_a_folded_answer_is_in_order(course):
    nb = sample()
    source(SECTION, "Text", "*Before you run it:* how many? Text")(nb)
    source(COUNTING, "A list:", f"{FOLDED}\n\nA list:")(nb)
    assert course(nb) == []


def test_allowed_tags(course):
    nb = sample()
    tag(PLAIN, "nbval-skip", "reason:needs-a-gpu")(nb)
    tag(PLAIN + 1, "nbval-rtol=0.05", "nbval-atol=0.01", "nbval-share=0.25", "nbval-machine")(nb)
    tag(PLAIN + 1, "helpers:attention.CausalAttention")(nb)
    tag(PLAIN + 3, "helpers:speed.kv_cache.KVCache")(nb)
    tag(PLAIN + 2, "raises-exception")(nb)
    nb.cells[PLAIN + 2].outputs = [new_output("error", ename="KeyError", evalue="x")]
    assert course(nb) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda nb: nb.cells[EXERCISE].outputs[0].update(text="2 of 4\n"),
        lambda nb: nb.cells[FIGURE].outputs[0].data.update({"text/html": image(ALT).replace("A", "B", 1)}),
        lambda nb: nb.cells[PLAIN].outputs.clear(),
        source(PLAIN, "0", "1"),
        tag(PLAIN, "nbval-machine"),
    ],
)
def test_edit_by_hand_is_refused(course, change):
    nb = sample()
    seal(nb)
    change(nb)
    assert course(nb, sealed=False) == ["code or outputs were edited since they were executed: run make refresh"]


def test_prose_may_be_edited_without_executing(course):
    nb = sample()
    seal(nb)
    source(SECTION, "Text", "Words")(nb)
    assert course(nb, sealed=False) == []


def test_a_notebook_that_is_not_in_the_list_is_refused(course, monkeypatch):
    monkeypatch.setattr("tests.notebooks.NOTEBOOKS", [record("8", "An earlier chapter")])
    assert course(sample()) == [
        "the notebook is not in the list of notebooks: add a record to helpers/course/chapters.py"
    ]


def test_a_notebook_leads_to_the_next(course, tmp_path, monkeypatch):
    records = [record("8", "An earlier chapter"), record("9", "A sample", needs=("8",)), record("10", "The end")]
    monkeypatch.setattr("tests.notebooks.NOTEBOOKS", records)
    (course.path.parent / "ch10_end.ipynb").touch()
    nb = sample()
    missing = ["the last cell has no link to the next notebook, ch10_end.ipynb: run make links"]
    assert course(nb) == missing
    monkeypatch.setattr("tests.notebooks.all_notebooks", lambda root: [course.path])
    assert links(course.path, tmp_path) and lint(course.path, tmp_path) == []
    line = "**Next:** [Chapter 10: The end](ch10_end.ipynb)."
    assert read(course.path).cells[END].source.endswith(f"\n\n{line}") and not links(course.path, tmp_path)
    source(END, "More.", "More in [chapter 10](ch10_end.ipynb).")(nb)
    assert course(nb) == [] and not links(course.path, tmp_path)  # a link of the author's is enough
    source(END, "More in", "**Next:** [Old](ch08_old.ipynb).\n\nMore in")(nb)
    course(nb)
    assert links(course.path, tmp_path) and line in read(course.path).cells[END].source


def test_a_notebook_named_by_a_link_counts_as_named(course):
    nb = sample()
    source(TITLE, "Chapter 8", "The [earlier one](ch08_chapter.ipynb)")(nb)
    (course.path.parent / "ch08_chapter.ipynb").touch()
    assert course(nb) == []


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("About 75 minutes to read, and half an hour more for the exercises.", 75),
        ("Half an hour.", 30),
        ("About an hour, or two hours.", 60),
        ("About two hours of reading", 120),
        ("about two and a half hours. The code alone: a minute", 150),
        ("About two hours and a half of reading", 150),
    ],
)
def test_reading_times_are_understood(text, minutes):
    assert _minutes(TIME.search(text)) == minutes


@pytest.mark.parametrize("prefix", [notebook.prefix for notebook in NOTEBOOKS])
def test_exercises_are_numbered_by_their_notebook(prefix):
    assert (
        TAG.fullmatch(f"exercise:{prefix}.1")
        and TAG.fullmatch(f"exercise:{prefix}.A")
        and not TAG.fullmatch(f"exercise:{prefix}x_.1")
    )


# ---- the tool ----------------------------------------------------------------------------------------------------


def test_refresh(course, monkeypatch):
    """One kernel: widget views, pieces of prints, editors' metadata and missing ids are seen to."""
    monkeypatch.setenv("COURSE_PROFILE", "book")
    cells = [
        code("import os, pathlib, sys, ipywidgets\nfrom IPython.display import display"),
        code(
            "print('a', flush=True); print('b', flush=True)\ndisplay(ipywidgets.IntSlider())\nprint('c')",
            "nbval-machine",
        ),
        code("print(os.environ.get('COURSE_PROFILE'), os.environ['OMP_NUM_THREADS'], pathlib.Path().resolve().name)"),
        code("1 / 0", "raises-exception"),
        code("'end'"),
    ]
    raw = copy.deepcopy(new_notebook(cells=cells, metadata={"widgets": {}, "colab": {}}))
    for cell in raw.cells:
        cell.metadata["scrolled"] = True
        del cell["id"]
    course.path.write_text(json.dumps({**raw, "nbformat_minor": 4}))
    assert [cell.id for cell in read(course.path).cells] == [cell.id for cell in read(course.path).cells]
    assert refresh(course.path) > 0
    text = course.path.read_text()
    assert text.endswith("}\n") and text.startswith('{\n "cells"')
    nb = nbformat.read(course.path, as_version=4)
    assert nb.metadata.keys() == {"course", "kernelspec", "language_info"} and nb.metadata.course.outputs == digest(nb)
    assert nb.metadata.language_info.version == platform.python_version() and nb.nbformat_minor >= 5
    assert nb.metadata.kernelspec.display_name == get_kernel_spec("python3").display_name
    assert [cell.execution_count for cell in nb.cells] == [1, 2, 3, 4, 5]
    assert [cell.metadata for cell in nb.cells[:2]] == [{}, {"tags": ["nbval-machine"]}]
    first, widget, last = nb.cells[1].outputs
    assert first.text == "a\nb\n" and last.text == "c\n" and list(widget.data) == ["text/plain"]
    assert nb.cells[2].outputs[0].text == "None 1 notebooks\n"
    assert nb.cells[3].outputs[0].ename == "ZeroDivisionError"
    assert list(course.path.parent.iterdir()) == [course.path]


def test_refresh_that_fails_leaves_the_file_alone(course, capsys):
    nbformat.write(new_notebook(cells=[code("print(1)"), code("1 / 0")]), course.path)
    before = course.path.read_bytes()
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="ZeroDivisionError"):
        refresh(course.path)
    assert course.path.read_bytes() == before
    assert list(course.path.parent.iterdir()) == [course.path]


def test_links(course, tmp_path):
    nb = sample()
    source(TITLE, repository(), "someone/else")(nb)
    source(BOOT, "import sys", "import os")(nb)
    assert len(course(nb)) == 2
    assert links(course.path, tmp_path) and lint(course.path, tmp_path) == []
    assert not links(course.path, tmp_path)
    nb = sample()
    source(TITLE, BADGE.format(repository=repository(), path="notebooks/ch09_sample.ipynb") + "\n\n", "")(nb)
    assert len(course(nb)) == 1
    assert links(course.path, tmp_path) and lint(course.path, tmp_path) == []
    source(PLAIN, "0", "1")(nb)  # what was edited by hand is not sealed by stamping
    course(nb, sealed=False)
    links(course.path, tmp_path)
    assert any("make refresh" in problem for problem in lint(course.path, tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="the workflow runs on Linux")
def test_a_fork_gets_its_own_address_on_the_first_push(tmp_path):
    """What the workflow runs, with a make-believe python and git that only write down how they were called."""
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "links.yml").read_text(encoding="utf-8"))["jobs"].values()
    known, stamp = [step["run"] for step in job["steps"] if "run" in step]
    assert all(step["if"] == "steps.address.outputs.known != 'true'" for step in job["steps"][2:])
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("python", "git"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $@" >> log\n')
        (tmp_path / name).chmod(0o755)
    said = tmp_path / "said"
    said.touch()
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GITHUB_REPOSITORY": "reader/fork"}
    for script in (known, stamp, known):
        assert said.read_text() == ""
        subprocess.run(
            ["bash", "-e", "-c", script], cwd=tmp_path, env={**variables, "GITHUB_OUTPUT": str(said)}, check=True
        )
    assert said.read_text() == "known=true\n"
    before, after = ((folder / "pyproject.toml").read_text(encoding="utf-8") for folder in (ROOT, tmp_path))
    assert after == before.replace(repository(), "reader/fork")
    log = (tmp_path / "log").read_text().splitlines()
    assert log[1] == "python -m tests.notebooks links" and log[-1] == "git push"


def test_repository_comes_from_pyproject():
    assert f'"https://github.com/{repository()}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_command_line(course, capsys, monkeypatch):
    course(sample())
    monkeypatch.setattr("tests.notebooks.lint", lambda path: [])
    assert main(["lint", str(course.path)]) == 0
    monkeypatch.setattr("tests.notebooks.lint", lambda path: ["a problem"])
    assert main(["lint", str(course.path)]) == 1
    assert "ch09_sample.ipynb: a problem" in capsys.readouterr().out


def test_a_copy_without_a_repository_says_so_in_colab(monkeypatch):
    monkeypatch.setattr("tests.notebooks.repository", lambda: UNNAMED)
    monkeypatch.setitem(sys.modules, "google.colab", object())
    with pytest.raises(SystemExit, match="does not know its repository"):
        exec(bootstrap(), {})
    monkeypatch.setattr("tests.notebooks.repository", lambda: "someone/course")
    assert 'install -q git+https://github.com/someone/course"' in bootstrap()
