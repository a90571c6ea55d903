"""JupyterLab as `make lab` starts it, in a real browser: a slider redraws, links work, and nothing leaves the machine.

Needs Chromium: the one on PATH, or the one that COURSE_CHROMIUM names. Without it the tests are skipped, or fail if
COURSE_REQUIRE_BROWSER=1.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest

from helpers.apps.launch import free_port
from tests.notebooks import TABLE, link

pytestmark = pytest.mark.browser

REPOSITORY = Path(__file__).parent.parent
TOKEN = "course"
PATIENCE = 60_000  # milliseconds for each thing that is waited for; an idle machine needs a few seconds
ALT = "Interactive figure: a bar that grows with the slider above it."
CODE = f"""
from helpers import plots, widgets

def bar(height):
    fig, ax = plots.subplots(4, 2)
    ax.bar([0], [height])
    ax.set_ylim(0, 10)
    return fig

widgets.play(bar, alt="{ALT}", height=widgets.slider("height", 1, 9, 1, 3))
"""
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Loaded by every Python that the server starts, kernels too: writes down each address that is not of this machine.
WATCH = """
import os, sys

def watch(event, args):
    if event == "socket.connect":
        address = args[1]
        host = str(address[0]) if isinstance(address, tuple) else ""
        if host and host not in ("127.0.0.1", "::1", "localhost", "0.0.0.0"):
            note(host)
    elif event == "socket.getaddrinfo":
        host = args[0].decode() if isinstance(args[0], bytes) else args[0]
        if host and host not in ("127.0.0.1", "::1", "localhost", "0.0.0.0"):
            note(host)

def note(host):
    with open(os.environ["COURSE_TEST_HOSTS"], "a") as file:
        file.write(host + "\\n")

sys.addaudithook(watch)
"""


def chromium_path():
    """The browser's path; skips the test, or fails it where a browser is required, if there is none."""
    named = os.environ.get("COURSE_CHROMIUM")
    candidates = [named] if named else ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    path = next(filter(None, map(shutil.which, candidates)), None)
    if path is None:
        reason = f"no Chromium found (looked for {', '.join(candidates)}); name one in COURSE_CHROMIUM"
        if os.environ.get("COURSE_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def lab_command(port, more=""):
    """The command that `make lab` would run, with this environment's JupyterLab, on a port of the test's."""
    lab_args = f"--no-browser --ServerApp.ip=127.0.0.1 --ServerApp.port={port} --ServerApp.port_retries=0"
    lab_args += f" --IdentityProvider.token={TOKEN} {more}"
    line = subprocess.run(
        ["make", "--no-print-directory", "-n", "-o", ".venv/.installed", "lab", f"LAB_ARGS={lab_args}"],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()[-1]
    program, *arguments = shlex.split(line)
    assert (Path(program).name, arguments[0]) == ("jupyter", "lab")
    return [sys.executable, "-m", "jupyterlab", *arguments[1:]]


class Lab:
    """A running JupyterLab: `url`, and `outside()`, the foreign hosts that its processes asked for.

    `course` is what it serves, made by `fill`; `options` are for its command line, beside those of `make lab`.
    """

    options = ""
    own_cache = True  # for solved exercises; else the one of whoever runs the tests, with what they have downloaded

    def fill(self):
        """Notebooks that are quick to run."""
        shutil.copytree(
            REPOSITORY / "helpers", self.course / "helpers", ignore=shutil.ignore_patterns("__pycache__", "assets")
        )
        (self.course / "notebooks").mkdir()
        shutil.copy(REPOSITORY / "notebooks" / "START.md", self.course / "notebooks")
        cells = [
            nbformat.v4.new_markdown_cell("# Chapter 0\n\n[the widgets](../helpers/course/widgets.py)"),
            nbformat.v4.new_code_cell(CODE.strip()),
        ]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        chapter = [nbformat.v4.new_markdown_cell("# Chapter 3: A chapter to arrive at")]
        first = nbformat.read(REPOSITORY / "notebooks" / "ch01_understanding_llms.ipynb", as_version=4).cells
        maps = [cell for cell in first if "course_map()" in cell.source or TABLE[0] in cell.source]
        for name, content in [("play.ipynb", cells), ("map.ipynb", maps), ("ch03_attention.ipynb", chapter)]:
            nbformat.write(nbformat.v4.new_notebook(cells=content, metadata=kernel), self.course / "notebooks" / name)

    def __init__(self, folder):
        self.course = folder / "course"
        self.hosts = folder / "hosts.txt"
        self.log = folder / "lab.log"
        self.course.mkdir(parents=True)
        self.fill()
        hook = folder / "hook"
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(WATCH)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            **os.environ,
            "COURSE_TEST_HOSTS": str(self.hosts),
            "PYTHONPATH": os.pathsep.join([str(hook), str(REPOSITORY)]),
            "JUPYTER_CONFIG_DIR": str(
                folder / "config"
            ),  # neither the settings of whoever runs this nor theirs changed
            "JUPYTER_CONFIG_PATH": str(REPOSITORY / ".jupyter"),  # as the Makefile sets it
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "JUPYTER_DATA_DIR": str(folder / "data"),
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
            "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
            "IPYTHONDIR": str(folder / "ipython"),
            **({"COURSE_CACHE_DIR": str(folder / "cache")} if self.own_cache else {}),
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                lab_command(port, self.options),
                cwd=self.course,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self):
        """Until the server answers."""
        end = time.monotonic() + PATIENCE / 1000
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                with opener.open(f"{self.url}/api/status?token={TOKEN}", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        pytest.fail(f"JupyterLab did not start:\n{self.log.read_text()[-3000:]}")

    def outside(self):
        return sorted(set(self.hosts.read_text().split())) if self.hosts.exists() else []

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(name="browser", scope="module")
def open_browser():
    path = chromium_path()
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(name="lab", scope="module")
def running_lab(tmp_path_factory, browser):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.wait()
        yield lab
    finally:
        lab.stop()


class Visit:
    """A page in the browser, and every address that it asked for."""

    def __init__(self, page):
        self.page = page
        self.addresses = []
        page.context.on("request", lambda request: self.addresses.append(request.url))
        page.on("websocket", lambda websocket: self.addresses.append(websocket.url))

    def outside(self):
        def is_local(address):
            parts = urlsplit(address)
            return parts.scheme in ("data", "blob", "about") or parts.hostname in ("127.0.0.1", "localhost")

        return [address for address in self.addresses if not is_local(address)]


@pytest.fixture(name="visit")
def new_visit(browser):
    context = browser.new_context(viewport={"width": 1400, "height": 900}, locale="en-US")
    context.set_default_timeout(PATIENCE)
    yield Visit(context.new_page())
    context.close()


PICTURE_BYTES = """async image => {
    await image.decode();
    const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
    return Array.from(await crypto.subtle.digest("SHA-256", bytes).then(sum => new Uint8Array(sum))).join(" ");
}"""


def run_all(lab, page, name):
    """Open a notebook with no other beside it and run all its cells; returns the notebook's panel.

    What the menu is asked for while the kernel is still connecting is dropped without a word, so that it is asked again
    until the first code cell has been taken up.
    """
    from playwright.sync_api import expect

    page.goto(f"{lab.url}/lab/tree/notebooks/{name}?reset&token={TOKEN}")
    notebook = page.locator(".jp-NotebookPanel:visible")
    expect(notebook.locator(".jp-Notebook")).to_be_visible()
    expect(page.get_by_text(re.compile(r"Python 3 .*\| Idle$"))).to_be_visible()  # in the status bar
    prompt = notebook.locator(".jp-CodeCell .jp-InputPrompt").first
    end = time.monotonic() + PATIENCE / 1000
    while prompt.inner_text().strip() == "[ ]:":
        assert time.monotonic() < end, "no cell was run"
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_timeout(1000)
    return notebook


def test_a_slider_redraws_its_picture_and_nothing_leaves_the_machine(lab, visit):
    from playwright.sync_api import expect

    page = visit.page
    notebook = run_all(lab, page, "play.ipynb")
    picture = notebook.locator(".jp-OutputArea-output img.widget-image")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    assert notebook.locator(".jp-RenderedText[data-mime-type*=stderr]").count() == 0
    before = picture.evaluate(PICTURE_BYTES)
    source = picture.get_attribute("src")

    expect(notebook.locator(".widget-readout")).to_have_text("3")
    expect(picture).to_have_attribute("alt", ALT)
    handle = notebook.get_by_role("slider", name="height")  # by the name that a screen reader reads out
    handle.focus()
    handle.press("ArrowRight")
    expect(notebook.locator(".widget-readout")).to_have_text("4")
    expect(picture).not_to_have_attribute("src", source)
    after = picture.evaluate(PICTURE_BYTES)
    assert after != before
    handle.press("ArrowLeft")
    expect(notebook.locator(".widget-readout")).to_have_text("3")
    page.wait_for_function("([image, old]) => image.src !== old", arg=[picture.element_handle(), source])

    assert visit.addresses
    assert visit.outside() == []
    assert lab.outside() == []


def test_a_figure_without_its_kernel_says_what_to_do(lab, visit):
    """After a restart, and when the notebook is opened again; and it is saved as nothing that cannot be shown."""
    from playwright.sync_api import expect

    page = visit.page
    notebook = run_all(lab, page, "play.ipynb")
    expect(notebook.locator("img.widget-image")).to_be_visible()
    said = notebook.get_by_text("Its kernel is gone: run this cell again.")
    expect(said).to_be_hidden()
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Restart Kernel…")).click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    expect(said).to_be_visible()
    page.keyboard.press("Control+s")
    saved = lab.course / "notebooks" / "play.ipynb"
    page.wait_for_function("() => document.querySelector('.lm-TabBar-tab.jp-mod-dirty') === null")
    assert "widget-view" not in saved.read_text(encoding="utf-8")

    page.goto(f"{lab.url}/lab/tree/notebooks/play.ipynb?reset&token={TOKEN}")
    notebook = page.locator(".jp-NotebookPanel:visible")
    expect(notebook.get_by_text(f"{ALT} Run this cell to use it.")).to_be_visible()
    assert notebook.get_by_text("model not found").count() == 0


def test_a_notebook_that_another_python_ran_is_closed_without_a_question(lab, visit):
    """Opening is no change, although the kernel tells JupyterLab its own version of Python."""
    from playwright.sync_api import expect

    chapter = nbformat.read(REPOSITORY / "notebooks" / "ch01_understanding_llms.ipynb", as_version=4)
    chapter.metadata["language_info"]["version"] = "3.9.99"
    chapter.cells = chapter.cells[:3]
    nbformat.write(chapter, lab.course / "notebooks" / "other.ipynb")
    page = visit.page
    page.goto(f"{lab.url}/lab/tree/notebooks/other.ipynb?reset&token={TOKEN}")
    expect(page.get_by_text(re.compile(r"Python 3 .*\| Idle$"))).to_be_visible()
    page.wait_for_timeout(1000)
    changed = page.locator(".lm-TabBar-tab.jp-mod-dirty")
    expect(changed).to_have_count(0)
    page.get_by_role("menuitem", name="File", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Close Tab")).click()
    expect(page.locator(".jp-NotebookPanel")).to_have_count(0)


def test_make_lab_opens_the_start_page_and_its_links_work(lab, visit):
    from playwright.sync_api import expect

    page = visit.page
    page.goto(f"{lab.url}/?token={TOKEN}")  # what the browser is sent to
    page.wait_for_url("**/lab/tree/notebooks/START.md**")
    start = page.locator(".jp-MarkdownViewer:visible")
    expect(start.get_by_role("heading", name="Start here")).to_be_visible()  # as a page, not as Markdown
    numbers = [text[:2] for text in start.locator("td:first-child").all_inner_texts()]
    assert numbers[:12] == [f"{name}." for name in "1234567ABCDE"]  # chapters before appendices
    expect(page.locator(".jp-DirListing-item", has_text="play.ipynb")).to_be_visible()
    start.get_by_role("link", name="3. Coding attention").click()
    expect(page.locator(".jp-NotebookPanel:visible")).to_contain_text("A chapter to arrive at")
    assert visit.outside() == []
    assert lab.outside() == []


def test_links_to_helpers_work(lab, visit):
    from playwright.sync_api import expect

    page = visit.page
    page.goto(f"{lab.url}/lab/tree/notebooks/play.ipynb?reset&token={TOKEN}")
    page.locator(".jp-NotebookPanel:visible").get_by_role("link", name="the widgets").click()
    expect(page.locator(".jp-FileEditor:visible")).to_contain_text("Interactive figures")
    assert visit.outside() == []
    assert lab.outside() == []


def test_the_map_and_its_links_work_in_a_notebook_that_nobody_has_run(lab, visit):
    """Chapter 1's map with the table under it, as saved: JupyterLab does not trust their outputs."""
    from playwright.sync_api import expect

    page = visit.page
    page.goto(f"{lab.url}/lab/tree/notebooks/map.ipynb?reset&token={TOKEN}")
    notebook = page.locator(".jp-NotebookPanel:visible")
    expect(notebook.get_by_role("img", name="Map of the course")).to_be_visible()
    notebook.get_by_role("link", name="3. Coding attention mechanisms").click()
    expect(page.locator(".jp-NotebookPanel:visible")).to_contain_text("A chapter to arrive at")
    page.wait_for_url("**ch03_attention**")
    assert len(page.context.pages) == 1  # in JupyterLab, not in a tab of its own
    assert visit.outside() == []
    assert lab.outside() == []


def test_no_news_and_no_updates_are_asked_for(lab, visit):
    """The notice that offers news stays away; and whoever asks the server for updates does not send it outside."""
    from playwright.sync_api import expect

    page = visit.page
    page.goto(f"{lab.url}/lab?token={TOKEN}")
    expect(page.locator("#jp-main-dock-panel")).to_be_visible()
    expect(page.locator(".jp-DirListing-content")).to_be_visible()
    expect(page.get_by_role("alert").filter(has_text="Jupyter news")).to_have_count(0)
    for path in ("update", "news"):
        assert page.evaluate(f"fetch('/lab/api/{path}?token={TOKEN}').then(answer => answer.status)") == 200
    assert visit.outside() == []
    assert lab.outside() == []


def test_the_watch_on_addresses_works(lab, visit):
    """What the other tests conclude from, shown to notice requests that would leave: the browser's and Python's."""
    visit.page.goto("about:blank")
    visit.page.evaluate("fetch('http://example.invalid/pixel').catch(() => null)")
    assert visit.outside() == ["http://example.invalid/pixel"]
    code = "import socket; socket.getaddrinfo('127.0.0.1', 80); socket.getaddrinfo('example.invalid', 80)"
    subprocess.run([sys.executable, "-c", code], env=lab.environment, stderr=subprocess.DEVNULL, timeout=30)
    assert "example.invalid" in lab.outside()
    lab.hosts.unlink()


def test_an_exercise_leads_to_its_solution(lab, visit):
    """One click on the link of `make links` opens the other notebook at the right cell."""
    from playwright.sync_api import expect

    cells = [
        nbformat.v4.new_markdown_cell(f"### Exercise 9.{n}: Is this one, or that?" + "\n\nText." * 20) for n in range(9)
    ]
    target = link(Path("stated.ipynb"), Path("solved.ipynb"), cells[7].id)
    statement = [nbformat.v4.new_markdown_cell(f"# Chapter 9\n\n[appendix C]({target})")]
    for name, content in (("solved.ipynb", cells), ("stated.ipynb", statement)):
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=content, metadata=kernel), lab.course / "notebooks" / name)
    page = visit.page
    page.goto(f"{lab.url}/lab/tree/notebooks/stated.ipynb?reset&token={TOKEN}")
    page.locator(".jp-NotebookPanel:visible").get_by_role("link", name="appendix C").click()
    page.wait_for_url("**solved.ipynb**")
    heading = page.locator(".jp-NotebookPanel:visible").get_by_role("heading", name="Exercise 9.7: ")
    expect(heading).to_be_in_viewport()
