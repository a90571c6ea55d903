"""Every notebook of the course in JupyterLab, in a real browser: opened, run to its end, its widgets moved.

Runs only when asked for (`make test-browser`), since it takes about as long as all other tests together; its times are
printed at the end. Needs Chromium, as test_browser does. Where COURSE_AXE names axe-core's axe.min.js
(`npm pack axe-core`), one notebook is checked for accessibility as well.
"""

import json
import os
import shutil
import time
from pathlib import Path

import nbformat
import pytest

from helpers.course.chapters import NOTEBOOKS
from tests.notebooks import WIDGET, code_cells, read

from .test_browser import PATIENCE, REPOSITORY, TOKEN, Lab, new_visit, open_browser  # noqa: F401 (fixtures)

pytestmark = [pytest.mark.browser, pytest.mark.whole]

LONGEST = 400  # seconds for all cells of a notebook
SLOWEST_FIRST = [notebook.file for notebook in sorted(NOTEBOOKS, key=lambda notebook: -notebook.seconds[0])]
CHECKED_BY_AXE = "ch03_attention.ipynb"


class WholeLab(Lab):
    """A JupyterLab on a copy of the course's notebooks, which import `helpers` from the repository.

    It hands the page its application object, so that a test can ask what stands in the cells that are not in view.
    """

    options = "--LabApp.expose_app_in_browser=True"
    own_cache = False

    def fill(self):
        for name in ("README.md", "CONTRIBUTING.md"):
            shutil.copy(REPOSITORY / name, self.course)
        ignored = shutil.ignore_patterns("__pycache__", "assets")
        shutil.copytree(REPOSITORY / "helpers", self.course / "helpers", ignore=ignored)
        ignored = shutil.ignore_patterns(".ipynb_checkpoints")
        shutil.copytree(REPOSITORY / "notebooks", self.course / "notebooks", ignore=ignored)


@pytest.fixture(name="lab", scope="module")
def whole_lab(tmp_path_factory, browser):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TQDM_DISABLE", raising=False)  # learners see progress bars
        patch.delenv("COURSE_PROFILE", raising=False)
        lab = WholeLab(tmp_path_factory.mktemp("whole"))
    try:
        lab.wait()
        yield lab
    finally:
        lab.stop()


# What a page is asked. The notebook in front is `panel`.
PANEL = "const panel = jupyterapp.shell.currentWidget; const cells = [...panel.content.widgets];"
STATE = f"""() => {{
    {PANEL}
    const models = cells.map(cell => cell.model);
    const code = models.filter(model => model.type === "code" && model.sharedModel.source.trim());
    const outputs = code.flatMap(model => model.outputs.toJSON());
    const errors = outputs.filter(output => output.output_type === "error");
    return {{
        begun: code.some(model => model.executionCount !== null || model.executionState === "running"),
        left: code.filter(model => model.executionCount === null || model.executionState === "running").length,
        errors: errors.map(output => `${{output.ename}}: ${{output.evalue}}`),
        expected: code.filter(model => (model.getMetadata("tags") || []).includes("raises-exception")).length,
        stderr: outputs.filter(output => output.name === "stderr").map(output => [output.text].flat().join("")),
        idle: panel.sessionContext.session?.kernel?.status === "idle",
        dirty: panel.context.model.dirty,
    }};
}}"""
RUN_ALL = "() => { jupyterapp.commands.execute('notebook:run-all-cells'); }"
CLEAR = "() => { jupyterapp.commands.execute('notebook:clear-all-cell-outputs'); }"
WIDGET_CELLS = f"""() => {{
    {PANEL}
    return cells.flatMap((cell, index) => cell.model.type === "code" &&
        /^(widgets\\.(play|browse)|chat\\.widget)\\(/m.test(cell.model.sharedModel.source) &&
        cell.model.outputs.toJSON().some(output => output.data?.["{WIDGET}"]) ? [index] : []);
}}"""
GO_TO = f"""index => {{
    {PANEL}
    panel.content.activeCellIndex = index;
    panel.content.scrollToItem(index, "start");  // what it promises is not always kept
    cells[index].node.setAttribute("data-test", index);
}}"""
ASK_KERNEL = """code => new Promise(resolve => {
    const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const future = kernel.requestExecute({ code, store_history: false });
    let said = "";
    future.onIOPub = message => {
        if (message.header.msg_type === "stream") said += message.content.text;
        if (message.header.msg_type === "error") said += message.content.ename + ": " + message.content.evalue;
    };
    future.done.then(() => resolve(said));
})"""

# Asked of the kernel after the last cell: each control goes to its ends and back. Nothing may fail, and what is seen in
# the end must be what the cell showed at first, whatever the cells after it have changed.
EXTREMES = """
def _extremes():
    import json
    import ipywidgets
    problems, moved = [], 0
    widgets = list(ipywidgets.widgets.widget._instances.values())
    for box in widgets:
        children = getattr(box, "children", ())
        if type(box) is not ipywidgets.VBox or len(children) < 4 or not isinstance(children[-3], ipywidgets.HTML):
            continue
        *controls, problem, part, _ = children
        if not hasattr(part, "value") or "course-dead" not in getattr(children[-1], "value", ""):
            continue
        first = part.value
        for control in controls:
            begun = control.value
            if hasattr(control, "options"):
                ends = list(control.options)
            elif hasattr(control, "min"):
                ends = [control.min, control.max]
            else:
                ends = ["the dog and the cat", "ß ∑ $x_1$ <b>", "word " * 500, ""]
            for end in [*ends, begun]:
                control.value = end
                moved += 1
                if problem.value:
                    problems.append(f"{control.description}={end!r}: {problem.value}")
        if part.value != first:
            problems.append(f"{controls[0].description}: another picture than at first, with the same values")
    bars = [widget for widget in widgets if getattr(widget, "bar_style", "") == "danger"]
    problems += [f"a red progress bar at {bar.value:g} of {bar.max:g}" for bar in bars]
    print(json.dumps({"moved": moved, "problems": problems}))

_extremes()
del _extremes
"""


class Notebook:
    """A notebook that is open in the browser, and what its page has said on the console."""

    def __init__(self, lab, visit, file):
        self.lab, self.visit, self.page, self.file = lab, visit, visit.page, file
        self.console = []
        self.page.on("pageerror", lambda error: self.console.append(f"{error.name}: {error.message}"))
        self.page.on("console", self._note)

    def _note(self, message):
        if message.type == "error":
            self.console.append(message.text)

    def open(self):
        self.page.goto(f"{self.lab.url}/lab/tree/notebooks/{self.file}?reset&token={TOKEN}")
        self.page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.content?.widgets?.length > 0")
        self.wait(lambda state: state["idle"], PATIENCE / 1000)

    def state(self):
        return self.page.evaluate(STATE)

    def wait(self, done, seconds):
        end = time.monotonic() + seconds
        while not done(state := self.state()):
            assert time.monotonic() < end, f"after {seconds} seconds: {state}"
            self.page.wait_for_timeout(200)
        return state

    def run_all(self, expected):
        """Run all cells, until they have run or one has failed that is not among the errors to be `expected`."""
        for _ in range(10):  # while the kernel is still connecting, nothing comes of it, without a word
            self.page.evaluate(RUN_ALL)
            self.page.wait_for_timeout(1000)
            if self.state()["begun"]:
                break
        return self.wait(
            lambda state: len(state["errors"]) > expected or (state["left"] == 0 and state["idle"]), LONGEST
        )

    def look_through(self):
        """Scroll from the first cell to the last, so that all of them are rendered."""
        count = self.page.evaluate(f"() => {{ {PANEL} return cells.length; }}")
        for index in [*range(0, count, 4), count - 1]:
            self.page.evaluate(GO_TO, index)
            self.page.wait_for_timeout(60)

    def close(self):
        """Close the tab as a reader does; returns what a dialog asks, if one does."""
        self.page.evaluate("() => { jupyterapp.commands.execute('application:close'); }")
        self.page.wait_for_timeout(700)
        return self.page.locator(".jp-Dialog").all_inner_texts()


def stored_errors(path):
    """The errors in a notebook's outputs, by cell, where they are not the lesson."""
    return [
        (cell.source.splitlines()[0], output.ename)
        for cell in code_cells(nbformat.read(path, as_version=4))
        for output in cell.outputs
        if output.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", [])
    ]


@pytest.mark.parametrize("file", SLOWEST_FIRST, ids=lambda file: Path(file).stem)
def test_notebook(lab, visit, file, record_property):
    begin = time.monotonic()
    notebook = Notebook(lab, visit, file)
    notebook.open()
    notebook.look_through()
    assert notebook.state()["dirty"] is False
    assert notebook.close() == []  # nobody asks whether to save what nobody has changed
    opened = time.monotonic() - begin

    notebook.open()
    expected = notebook.state()["expected"]
    visit.page.evaluate(CLEAR)  # what is seen from here on was made here
    before = time.monotonic()
    state = notebook.run_all(expected)
    assert len(state["errors"]) == expected, state["errors"]
    assert state["stderr"] == []
    ran = time.monotonic() - before

    before = time.monotonic()
    answer = visit.page.evaluate(ASK_KERNEL, EXTREMES)
    assert answer.startswith("{"), answer
    result = json.loads(answer)
    assert result["problems"] == []
    by_hand = [move_by_hand(visit.page, index) for index in visit.page.evaluate(WIDGET_CELLS)]
    moved, typed = (sum(counts) for counts in zip((0, 0), *by_hand, strict=True))
    source = "\n".join(cell.source for cell in code_cells(read(REPOSITORY / "notebooks" / file)))
    assert result["moved"] > 0 or "widgets.play(" not in source
    assert typed == source.count("widgets.text(")
    handled = time.monotonic() - before

    visit.page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    assert stored_errors(lab.course / "notebooks" / file) == []
    axe = Path(os.environ.get("COURSE_AXE", "no"))
    if file == CHECKED_BY_AXE and axe.is_file():
        assert serious_findings(visit.page, axe) == []
    visit.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    assert notebook.console == []
    assert visit.outside() == [] and lab.outside() == []
    record_property(
        "line",
        f"{Path(file).stem:35s} opened {opened:4.0f} s, ran {ran:4.0f} s, widgets {handled:4.0f} s "
        f"({result['moved']} moves in the kernel, {moved} by hand)",
    )


def move_by_hand(page, index):
    """Move every control of the widget in a cell with keyboard and mouse; returns how often, and the lines typed."""
    page.evaluate(GO_TO, index)
    cell = page.locator(f"[data-test='{index}']")
    picture, alarm, moved = cell.locator("img.widget-image").first, cell.locator("[role=alert]"), 0
    cell.locator(".widget-vbox").first.wait_for()
    if cell.get_by_role("button", name="Send", exact=True).count():
        return 0, 0  # the chat, which test_browser_chat moves
    foot = cell.locator(".course-dead")

    def settled():
        page.wait_for_function(
            "() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'",
            timeout=PATIENCE,
        )
        assert alarm.all_inner_texts() == []
        return picture.get_attribute("src") if picture.count() else cell.inner_text()

    assert foot.is_hidden()
    for slider in cell.locator(".widget-slider").all():
        handle = slider.locator("[role=slider]")
        name = slider.locator("label").inner_text()
        assert handle.get_attribute("aria-label") == name
        assert slider.get_attribute("title") in (None, name)
        handle.scroll_into_view_if_needed()
        readout, seen = slider.locator(".widget-readout"), {settled()}
        for key in ("Home", "End", "ArrowLeft"):
            shown, value = settled(), readout.inner_text()
            handle.focus()
            handle.press(key)
            page.wait_for_timeout(150)
            end = time.monotonic() + PATIENCE / 2000
            while readout.inner_text() != value and settled() == shown and time.monotonic() < end:
                page.wait_for_timeout(100)  # the picture comes later than the number, on a busy machine
            seen.add(settled())
            moved += 1
        assert len(seen) > 1, f"{name}: the picture does not follow the keys"
        track = slider.locator(".noUi-base").bounding_box()
        before = readout.inner_text()
        page.mouse.click(track["x"] + track["width"] * 0.4, track["y"] + track["height"] / 2)
        page.wait_for_timeout(150)
        settled()
        moved += 1
        assert readout.inner_text() != before, f"{name}: the mouse does not move it"
    for choice in cell.locator(".widget-dropdown select").all():
        for option in (choice.locator("option").count() - 1, 0):
            choice.select_option(index=option)
            page.wait_for_timeout(150)
            settled()
            moved += 1
    lines = cell.locator(".widget-text input").all()
    for line in lines:
        before = settled()
        line.click()
        page.keyboard.type("the dog")
        page.keyboard.press("Enter")
        page.wait_for_timeout(300)
        assert settled() != before
        moved += 1
    return moved, len(lines)


def serious_findings(page, axe):
    """What axe-core finds in prose and outputs, by rule and element, if it is serious; the rest is JupyterLab's."""
    page.evaluate(axe.read_text(encoding="utf-8"))
    places = "{ include: [['.jp-MarkdownOutput'], ['.jp-OutputArea-output']] }"
    found = page.evaluate(f"axe.run({places})")["violations"]
    serious = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    return [f"{rule['id']}: {node['html'][:150]}" for rule in serious for node in rule["nodes"]]
