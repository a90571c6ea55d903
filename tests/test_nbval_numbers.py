"""The nbval plugin: what must pass passes, what must fail fails, in the comparison itself and in real kernels."""

import base64
import io
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from helpers import plots
from tests import nbval_numbers
from tests.nbval_numbers import (
    IMAGE,
    kernel_environment,
    merge_streams,
    outputs_problem,
    picture_problem,
    text_problem,
)
from tests.notebooks import ROOT, refresh

# (what the notebook holds, what came out)
SAME = [
    ("loss 10.7940", "loss 10.7939"),
    ("loss 10.7940", "loss 10.8040"),  # 0.0100 apart, 0.0109 allowed
    ("x = 0.0000", "x = -0.0000"),
    ("x = 0.0000", "x = 0.0001"),
    ("x = −0.0000", "x = 0.0000"),
    ("7.4541e-05 and 1e-08", "7.4542e-05 and 2e-08"),
    ("6,247.68 MB", "6,247.69 MB"),
    ("nan inf -inf", "nan inf -inf"),
    ("gives 1. and 0.9999", "gives 1.0000 and 1."),
    ("tensor([0.0000, 1.0000])", "tensor([-0.0000,  1.0000])"),
    (
        "tensor([[ 9.9999, -1.0000],\n        [ 0.1000,  0.2000]])",
        "tensor([[10.0000, -1.0000],\n        [ 0.1000,  0.2000]])",
    ),
    ("      a    b\n0  0.1 -0.0", "     a    b\n0  0.1  0.0".replace(" 0.0", "0.0")),
    ("<td>1.4754</td>", "<td>1.4755</td>"),
    ("$x = 1.4754$", "$x = 1.4755$"),
]
DIFFERENT = [
    ("163,009,536 parameters", "163,009,537 parameters", "163,009,537"),
    ("163,009,536 parameters", "163009536 parameters", "163"),
    ("ids [33901, 86]", "ids [33901, 87]", "'87' instead of '86'"),
    ("there are 5145.", "there are 5146.", "allowed 0"),
    ("tensor([5145., 2.])", "tensor([5146., 2.])", "allowed 0"),
    ("count 5", "count 5.0", "5.0"),
    ("count 5", "count -5", "'-'"),
    ("loss 10.7940", "loss 10.7722", "off by 0.0218"),
    ("x = 0.0001", "x = 0.0003", "off by 0.0002"),
    ("x = 0.5000", "x = -0.5000", "off by 1"),
    ("x = +0.5", "x = 0.5", "sign"),
    ("x = −0.5", "x = -0.5", "sign"),
    ("7.4541e-03", "7.4541e-02", "number"),
    ("nan", "0.0", "0.0"),
    ("inf", "nan", "nan"),
    ("inf", "-inf", "-inf"),
    ("version 2.13.0", "version 2.13.1", "'1' instead of '0'"),
    ("see ch02", "see ch03", "'ch03' instead of 'ch02'"),
    ("W_query2", "W_query3", "W_query3"),
    ("torch.float32", "torch.float64", "float64"),
    ("at 0x7f1a", "at 0x7f1b", "0x7f1b"),
    ("124M", "125M", "125M"),
    ("the cat", "the dog", "'dog' instead of 'cat'"),
    ("the cat", "the Cat", "Cat"),
    ("the cat", "the cat sat", "'sat' was added"),
    ("the cat sat", "the cat", "'sat' is missing"),
    ("a\nb", "a\nb\nc", "'c' was added"),
    ("a\nb", "a\n\nb", "white space"),
    ("a b", "a  b", "white space"),
    ("a\n", "a", "white space"),
    ("tensor([0.1, 0.2])", "tensor([ 0.1,  0.2])", "white space"),  # no number is printed wider
    ("tensor([0.1, 0.2])", "tensor([0.1, 0.2, 0.3])", "','"),
    ("tensor([0.1, 0.2])", "tensor([0.1])", "']' instead of ','"),
    ("<td>1.4754</td>", "<td>1.4854</td>", "off by 0.01"),
    ("x 10.0\ny", "x 9.999 y", "white space"),  # only a bracketed list may wrap elsewhere
]


@pytest.mark.parametrize(("expected", "got"), SAME)
def test_texts_that_agree(expected, got):
    assert text_problem(got, expected) is None


@pytest.mark.parametrize(("expected", "got", "message"), DIFFERENT)
def test_texts_that_differ(expected, got, message):
    assert message in text_problem(got, expected)


def test_message_names_line_number_and_tolerance():
    problem = text_problem("first\nloss 10.7722 here", "first\nloss 10.7940 here")
    assert problem.splitlines() == [
        "line 2: number 10.7722, expected 10.7940 (off by 0.0218, allowed 0.0109)",
        "    expected: loss 10.7940 here",
        "    got:      loss 10.7722 here",
    ]


def test_every_digit_of_a_printed_tensor_counts():
    """Noise passes however PyTorch pads and wraps; a change of any digit that weighs more fails."""
    generator = torch.Generator().manual_seed(1)
    for shape in [(3,), (40,), (4, 5), (2, 3, 30)]:
        values = torch.randn(shape, generator=generator)
        values = torch.where(values.abs() < 0.01, 0.5, values)  # no exponents, which PyTorch prints if one is small
        values.view(-1)[0] = 0.0
        noisy = values * (1 + 2e-4 * torch.rand(shape, generator=generator))
        noisy.view(-1)[0] = -0.0
        assert text_problem(repr(noisy), repr(values)) is None
        text = repr(values)
        for match in re.finditer(r"\d(?=\.)|(?<=\.)\d", text):
            changed = text[: match.start()] + str((int(match[0]) + 1) % 10) + text[match.end() :]
            assert text_problem(changed, text)


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def shown(**data):
    return new_output("display_data", {kind.replace("_", "/", 1): value for kind, value in data.items()})


def test_outputs():
    assert outputs_problem([], []) is None
    assert outputs_problem([stream("a\n"), stream("b\n")], [stream("a\nb\n")]) is None
    assert outputs_problem([stream("10%\r100%\n")], [stream("100%\n")]) is None
    assert "was added: 'b'" in outputs_problem([stream("a"), shown(text_plain="b")], [stream("a")])[0]
    assert "is missing: 'a'" in outputs_problem([], [stream("a")])[0]
    assert "output 1 is stderr; expected stdout" in outputs_problem([stream("a", "stderr")], [stream("a")])[0]
    assert "text/latex" in outputs_problem([shown(text_latex="$1$")], [shown(text_latex="$2$")])[0]
    assert "text/html" in outputs_problem([shown(text_html="<b>1</b>")], [shown(text_html="<b>2</b>")])[0]
    error = new_output("error", ename="ValueError", evalue="too short")
    assert "ValueError" in outputs_problem([], [error])[0]
    assert outputs_problem([error], [new_output("error", ename="ValueError", evalue="too long")])


def test_order_of_prints_and_figures():
    first = [stream("a\n"), shown(text_plain="fig"), stream("b\n")]
    assert outputs_problem(first, first) is None
    assert outputs_problem([stream("a\nb\n"), shown(text_plain="fig")], first)
    assert [output.get("text") for output in merge_streams(first)] == ["a\n", None, "b\n"]


def test_tags():
    got, expected = [stream("loss 2.04, 3 runs")], [stream("loss 2.00, 3 runs")]
    assert outputs_problem(got, expected)
    assert outputs_problem(got, expected, ["nbval-rtol=0.05"]) is None
    assert outputs_problem(got, expected, ["nbval-atol=0.1"]) is None
    assert outputs_problem([stream("loss 2.04, 4 runs")], expected, ["nbval-rtol=0.05"])
    machine = "torch 2.13.0+cpu: 3 layers in 12.5 s, 120 ms a step, 621.83 MB, 3.2 times, 18.4 GB/s, 95 GFLOP/s"
    other = "torch 2.14.1: 3 layers in 9.1 s, 1,250 ms a step, 700.00 MB, 12 times, 9 GB/s, 1,840.5 GFLOP/s"
    assert outputs_problem([stream(machine)], [stream(other)])
    assert outputs_problem([stream(machine)], [stream(other)], ["nbval-machine"]) is None
    assert outputs_problem([stream(machine.replace("3 l", "4 l"))], [stream(other)], ["nbval-machine"])
    column = [stream("plain      9.8 ms\ncached  1,250 ms |"), stream("plain    12.3 ms \ncached     9 ms   |")]
    assert outputs_problem(column[:1], column[1:])
    assert outputs_problem(column[:1], column[1:], ["nbval-machine"]) is None


def test_a_share_of_the_words():
    """What a trained model wrote: some of the words may differ, and numbers count as words."""
    expected = [stream("loss 2.00, says 'The capital of France is Paris.'\neight words more that have to stay\n")]
    other = [stream(expected[0]["text"].replace("2.00", "2.04").replace("Paris", "Spain"))]
    assert outputs_problem(other, expected, ["nbval-rtol=0.05"])
    assert outputs_problem(other, expected, ["nbval-share=0.1"]) is None
    assert "2 of 20 words differ (allowed 5%)" in outputs_problem(other, expected, ["nbval-share=0.05"])[0]
    for changed in (lambda text: "", lambda text: text + text, lambda text: text.replace("eight", "one two three")):
        assert outputs_problem([stream(changed(expected[0]["text"]))], expected, ["nbval-share=0.1"])


# ---- figures ----------------------------------------------------------------------------------------------------


def bars(values=(0.95, 1.50, 1.48, 0.84), title="Scores", rule=None, color=plots.BLUE, labels=None, width=6.0):
    fig, ax = plots.subplots(width, 2.5)
    ax.bar(["Your", "journey", "starts", "with"], values, color=color)
    for x, label in enumerate(labels or ["0.95", "1.50", "1.48", "0.84"]):
        ax.text(x, 0.05, label, ha="center", fontsize=8.5, color="white")
    if rule:
        ax.axhline(rule, color=plots.GREY, lw=1, ls="--")
    ax.set(title=title, ylabel="score", ylim=(0, 1.7))
    return plots.png(fig)


def curves(scale=1.0, count=3):
    fig, ax = plots.subplots(6, 2.5)
    x = np.linspace(0, 10, 100)
    for k in range(count):
        ax.plot(x, scale * np.sin(x + k))
    ax.set_ylim(-1.3, 1.3)
    return plots.png(fig)


def repainted(png, change):
    """The picture after `change` on its pixels (rows, columns, 3)."""
    pixels = change(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int))
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, format="PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def figure():
    return bars()


def test_figures_that_look_alike(figure):
    noise = np.random.default_rng(0).integers(-8, 9, (360, 864, 1))
    assert picture_problem(bars(), figure) is None
    assert picture_problem(bars(values=(0.9505, 1.5005, 1.4805, 0.8405)), figure) is None
    assert picture_problem(repainted(figure, lambda pixels: pixels + noise), figure) is None
    assert picture_problem(repainted(figure, lambda pixels: np.roll(pixels, (1, -1), (0, 1))), figure) is None
    assert picture_problem(curves(1.0005), curves()) is None


@pytest.mark.parametrize(
    "change",
    [
        {"values": (0.95, 1.50, 1.48, 0.87)},
        {"labels": ["0.95", "1.50", "1.48", "0.85"]},
        {"labels": ["0.95", "1.50", "1.49", "0.84"]},
        {"labels": ["0.95", "1.50", "−1.48", "0.84"]},
        {"title": "Stores"},
        {"title": ""},
        {"rule": 1.2},
        {"color": plots.SKY},
        {"width": 5.0},
    ],
    ids=str,
)
def test_figures_that_differ(figure, change):
    assert picture_problem(bars(**change), figure)
    assert picture_problem(figure, bars(**change))


def test_a_share_of_a_figure(figure):
    other = bars(values=(0.95, 1.50, 1.48, 0.87))
    assert picture_problem(other, figure, 0.002)
    assert picture_problem(other, figure, 0.05) is None
    assert picture_problem(bars(width=5.0), figure, 0.4)  # of another size
    assert picture_problem(bars(color=plots.SKY), figure, 0.05)
    got, expected = ([shown(image_png=base64.b64encode(png).decode())] for png in (other, figure))
    assert outputs_problem(got, expected)
    assert outputs_problem(got, expected, ["nbval-share=0.05"]) is None


def test_missing_curve_and_message():
    assert picture_problem(curves(count=2), curves())
    assert picture_problem(curves(1.02), curves())

    def darker(pixels):
        pixels[80:100, 160:200] -= 60
        return pixels

    problem = picture_problem(repainted(bars(), darker), bars())
    assert re.search(r"around pixel \(1[5-9]\d, [789]\d\) from the upper left, by (5\d|60) of 255", problem)


# ---- in real kernels -------------------------------------------------------------------------------------------

SHOW = """\
import base64, io, os, ipywidgets
from IPython.display import HTML, Latex, display
from PIL import Image, ImageDraw

def show(height):  # in place of helpers.course.plots, which takes longer to import
    picture, data = Image.new("RGB", (200, 100), "white"), io.BytesIO()
    for x, top in ((50, 80), (120, 80 - height)):
        ImageDraw.Draw(picture).rectangle((x, top - 20, x + 30, 90), fill="navy")
    picture.save(data, format="png")
    source = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    display({"text/html": f'<img src="{source}" alt="two bars">', "text/plain": "two bars"}, raw=True)"""
CELLS = {
    "imports": SHOW,
    "integer": "print('there are 5,145 tokens')",
    "float": "print(f'loss {10.794:.4f}')",
    "float within": "print(f'loss {10.794:.4f}, again')",
    "word": "print('the ladder')",
    "added line": "print('one\\ntwo')",
    "removed output": "print('one')\n'two'",
    "minus zero": "print(f'{-1e-9:.4f}')",
    "loosened": "print(f'loss {2.0:.2f}')",
    "figure": "show(20)",
    "missing figure": "show(30)",
    "changed figure": "show(40)",
    "changed alternative": "show(50)",
    "latex": "Latex('$x^2$')",
    "html": "HTML('<b>3 of 4</b>')",
    "widget": "ipywidgets.IntSlider(value=3)",
    "order": "print('a')\nshow(10)\nprint('b')",
    "environment": "print([os.environ.get(key) for key in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'COURSE_PROFILE')])",
    "unexecuted": "unexecuted = 1",
    "error": "1 / 0",
    "skipped": "print('skipped')",
    "ignored": "print('ignored')",
}
TAGS = {"error": ["raises-exception"], "loosened": ["nbval-rtol=0.05"]}
TAGS |= {"skipped": ["nbval-skip"], "ignored": ["nbval-ignore-output"]}


def longer_bar(pixels):
    pixels[18:20, 120:151] = (0, 0, 128)
    return pixels


def spoil(cells):
    """Edit the outputs of the cells (by name) as if something else had been committed."""

    def text(name, old, new):
        output = cells[name].outputs[0]
        place, key = (output, "text") if "text" in output else (output.data, old if old in output.data else None)
        if key is None:
            key = next(kind for kind, value in output.data.items() if old in value)
        assert old in place[key]
        place[key] = place[key].replace(old, new)

    text("integer", "5,145", "5,146")
    text("float", "10.7940", "10.7722")
    text("float within", "10.7940", "10.7941")
    text("word", "ladder", "letter")
    text("added line", "one\ntwo", "one")
    cells["removed output"].outputs.append(stream("three"))
    text("minus zero", "-0.0000", "0.0000")
    text("loosened", "2.00", "2.04")
    cells["missing figure"].outputs = []
    figure = cells["changed figure"].outputs[0].data
    png = IMAGE.fullmatch(figure["text/html"])["png"]
    other = base64.b64encode(repainted(base64.b64decode(png), longer_bar)).decode()
    figure["text/html"] = figure["text/html"].replace(png, other)
    text("changed alternative", 'alt="two bars"', 'alt="three bars"')
    text("latex", "x^2", "x^3")
    text("html", "3 of 4", "4 of 4")
    cells["order"].outputs = [cells["order"].outputs[i] for i in (0, 2, 1)]
    cells["unexecuted"].execution_count = None
    cells["error"].outputs[0].evalue = "division by one"
    text("skipped", "skipped", "anything")
    text("ignored", "ignored", "anything")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The outcome of every cell, untouched and spoiled, and the printed report: {(notebook, cell): message or None}."""
    folder = tmp_path_factory.mktemp("nbval")
    good, bad = folder / "good.ipynb", folder / "bad.ipynb"
    cells = [new_code_cell(code, metadata={"tags": TAGS.get(name, [])}) for name, code in CELLS.items()]
    nbformat.write(new_notebook(cells=cells), good)
    environment = pytest.MonkeyPatch()
    environment.setenv("PYTHONPATH", str(ROOT))
    refresh(good)
    nb = nbformat.read(good, as_version=4)
    spoil(dict(zip(CELLS, nb.cells, strict=True)))
    nbformat.write(nb, bad)
    environment.setenv("OMP_NUM_THREADS", "7")
    environment.setenv("COURSE_PROFILE", "book")
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", "--junitxml=report.xml"]
    command += ["-p", "tests.nbval_numbers", "-p", "no:cacheprovider", "--basetemp=made", "--rootdir=.", "."]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    environment.undo()
    found = {}
    for case in ET.parse(folder / "report.xml").iter("testcase"):
        name = list(CELLS)[int(case.get("name").split()[-1])]
        problem = case.find("failure")
        found["good" in case.get("classname"), name] = (
            "skipped" if case.find("skipped") is not None else (None if problem is None else problem.text)
        )
    assert len(found) == 2 * len(CELLS), run.stdout + run.stderr
    return found


@pytest.mark.parametrize("name", CELLS)
def test_untouched_cell_passes(results, name):
    assert results[True, name] == ("skipped" if name == "skipped" else None)


@pytest.mark.parametrize(
    ("name", "message"),
    {
        "imports": None,
        "integer": "'5,145' instead of '5,146'",
        "float": "number 10.7940, expected 10.7722 (off by 0.0218, allowed 0.0109)",
        "float within": None,
        "word": "'ladder' instead of 'letter'",
        "added line": "'two' was added",
        "removed output": "output 3 (stdout) is missing: 'three'",
        "minus zero": None,
        "loosened": None,
        "figure": None,
        "missing figure": "output 1 (text/html, text/plain, image/png) was added",
        "changed figure": "the figure looks different",
        "changed alternative": "'two' instead of 'three'",
        "latex": "'2' instead of '3'",
        "html": "'3' instead of '4'",
        "widget": None,
        "order": "output 1 (stdout), line 2: 'b' is missing",
        "environment": None,
        "unexecuted": "never executed",
        "error": "'zero' instead of 'one'",
        "skipped": "skipped",
        "ignored": None,
    }.items(),
)
def test_spoiled_cell(results, name, message):
    problem = results[False, name]
    assert (problem is None) if message is None else (message in problem)
    if name == "changed figure":  # both pictures are kept for a look
        new = Path(re.search(r"see (\S+got\.png)", problem)[1])
        assert picture_problem(new.read_bytes(), (new.parent / "expected.png").read_bytes())


def test_kernels_get_a_fixed_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("COURSE_DATA_DIR", "somewhere")
    with kernel_environment():
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
        assert "COURSE_DATA_DIR" not in os.environ and "COURSE_PROFILE" not in os.environ
    assert os.environ["OMP_NUM_THREADS"] == "7" and os.environ["COURSE_DATA_DIR"] == "somewhere"


@pytest.mark.parametrize(
    ("here", "outcome"), [(False, {1: None, 2: "ZeroDivisionError"}), (True, {1: "there", 2: "Zero"})]
)
def test_cells_that_need_a_file(tmp_path, here, outcome):
    """Where it is missing they are run and not compared: another output passes, an error fails."""
    sources = ["x = 1", "print('here')", "print(1 / 0)"]
    cells = [new_code_cell(source, execution_count=number) for number, source in enumerate(sources, start=1)]
    for cell in cells[1:]:
        cell.metadata["tags"] = ["needs:smollm2"]
        cell.outputs = [stream("there\n")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "a.ipynb")
    (tmp_path / "conftest.py").write_text(
        f"from tests import nbval_numbers\nnbval_numbers.NEEDS['smollm2'] = lambda: {here}\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", "--junitxml=report.xml"]
    command += ["-p", "tests.nbval_numbers", "-p", "no:cacheprovider", "--rootdir=.", "."]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    found = [case.find("failure") for case in ET.parse(tmp_path / "report.xml").iter("testcase")]
    assert len(found) == 3 and found[0] is None, run.stdout + run.stderr
    for place, message in outcome.items():
        assert (found[place] is None) if message is None else (message in found[place].text)


@pytest.mark.parametrize("here", [False, True])
def test_what_needs_a_file_is_executed_only_where_it_is(tmp_path, monkeypatch, here):
    monkeypatch.setitem(nbval_numbers.NEEDS, "smollm2", lambda: here)
    nbval_numbers._is_here.cache_clear()
    cell = new_code_cell("print('here')", metadata={"tags": ["needs:smollm2"]})
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "a.ipynb")
    assert nbval_numbers.missing_needs(["setup", "needs:smollm2"]) == ([] if here else ["smollm2"])
    if here:
        refresh(tmp_path / "a.ipynb")
        assert nbformat.read(tmp_path / "a.ipynb", as_version=4).cells[0].outputs == [stream("here\n")]
    else:
        with pytest.raises(RuntimeError, match="its outputs need smollm2, which is not on this machine"):
            refresh(tmp_path / "a.ipynb")
    nbval_numbers._is_here.cache_clear()
