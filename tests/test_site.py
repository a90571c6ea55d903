"""The course as a site: what Sphinx is given, and, where `make site` has made it, the pages in a real browser.

COURSE_SITE names another folder than site/. The browser is found as in test_browser; accessibility is checked by
axe-core where COURSE_AXE names its axe.min.js (`npm pack axe-core`). COURSE_REQUIRE_SITE=1 makes a failure of a site
that was not made.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from docs import build
from helpers.course.chapters import NOTEBOOKS
from tests.notebooks import ROOT

from .test_browser import new_visit, open_browser  # noqa: F401 (the fixtures)

SITE = Path(os.environ.get("COURSE_SITE", ROOT / "site"))
PAGES = [f"notebooks/{notebook.file.removesuffix('.ipynb')}.html" for notebook in NOTEBOOKS]
SERIOUS = ("serious", "critical")  # what axe-core calls a finding that must not be
WIDTHS = {"wide": (1280, 900), "700": (700, 900), "200 %": (640, 450)}

# ---- what Sphinx is given ------------------------------------------------------------------------------------------


@pytest.fixture(name="source")
def small_course(tmp_path, monkeypatch):
    """A course of two notebooks, of which `source(text)` gives the first one's Markdown cell that text."""
    course = tmp_path / "course"
    for name, text in {"README.md": "# R", "code/a.py": "x = 1", "code/__init__.py": "", "data.json": "{}"}.items():
        (course / name).parent.mkdir(parents=True, exist_ok=True)
        (course / name).write_text(text)
    monkeypatch.setattr(build, "ROOT", course)

    def prepare(text, html=""):
        cells = [{"cell_type": "markdown", "id": "one", "metadata": {}, "source": text.splitlines(keepends=True)}]
        shown = {"output_type": "display_data", "data": {"text/html": html}, "metadata": {}}
        cells += [{"cell_type": "code", "id": "two", "metadata": {}, "source": "", "outputs": [shown]}]
        (course / "notebooks/bonus").mkdir(parents=True, exist_ok=True)
        (course / "notebooks/bonus/first.ipynb").write_text(json.dumps({"cells": cells}))
        second = [{**cells[0], "source": "# Second"}, {**cells[1], "outputs": []}]
        (course / "notebooks/second.ipynb").write_text(json.dumps({"cells": second}))
        source = build.Source(tmp_path / "source")
        source.add("notebooks/bonus/first.ipynb")
        source.write()
        return source

    return prepare


def first(source):
    return json.loads((source.folder / "notebooks/bonus/first.ipynb").read_text())["cells"]


@pytest.mark.parametrize(
    ("target", "page"),
    [
        ("../second.ipynb", "../second.html"),
        ("../second.ipynb#cell-id=two", "../second.html#cell-id=two"),
        ("../../code/a.py", "../../code/a.py.html"),
        ("../../code", "../../code/__init__.py.html"),
        ("../../README.md", "../../index.html"),
        ("../../data.json", "../../data.json"),
        ("https://arxiv.org/abs/1706.03762", "https://arxiv.org/abs/1706.03762"),
        ("#cell-id=two", "#cell-id=two"),
        ("mailto:a@b.c", "mailto:a@b.c"),
    ],
)
def test_a_link_leads_to_a_page(source, target, page):
    cells = first(source(f"See [`this`]({target}) and `[that](none.py)`.\n```\n[x](y.ipynb)\n```"))
    assert cells[0]["source"] == f"See [`this`]({page}) and `[that](none.py)`.\n```\n[x](y.ipynb)\n```"


@pytest.mark.parametrize("target", ["../third.ipynb", "../../../outside.py", "../../code/b.py"])
def test_a_link_that_leads_nowhere_is_named(source, target):
    with pytest.raises(ValueError, match=r"notebooks/bonus/first\.ipynb links to .*, which does not exist"):
        source(f"[x]({target})")


def test_links_in_outputs_and_anchors_before_cells(source):
    made = source("[x](../second.ipynb#cell-id=two)", '<a href="../second.ipynb#cell-id=one">map</a>')
    assert first(made)[1]["outputs"][0]["data"]["text/html"] == '<a href="../second.html#cell-id=one">map</a>'
    second = json.loads((made.folder / "notebooks/second.ipynb").read_text())["cells"]
    assert [cell["source"] for cell in second[::2]] == [f'<span id="cell-id={name}"></span>' for name in ("one", "two")]


def test_a_linked_file_has_a_page(source):
    made = source("[x](../../code/a.py)")
    assert "{literalinclude} /_files/code/a.py" in (made.folder / "code/a.py.md").read_text()
    assert (made.folder / "_files/code/a.py").read_text() == "x = 1"


def test_the_real_course_is_prepared(tmp_path):
    """Every link leads to a file, and one to a cell, to a cell that exists."""
    source = build.Source(tmp_path)
    for path in ("README.md", *(f"notebooks/{notebook.file}" for notebook in NOTEBOOKS)):
        source.add(path)
    source.write()
    assert len(source.anchors["notebooks/appendix_c_solutions.ipynb"]) > 80
    for path, fragments in source.anchors.items():
        if path.endswith(".ipynb"):
            cells = json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"]
            assert fragments <= {f"cell-id={cell['id']}" for cell in cells}, path
    start = (tmp_path / "index.md").read_text(encoding="utf-8")
    assert start.count("```{toctree}") == 3 and all(page.removesuffix(".html") in start for page in PAGES)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit, match="is not a site that was made here"):
        build.build(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


# ---- the pages -----------------------------------------------------------------------------------------------------


@pytest.fixture(name="site", scope="module")
def made_site():
    if not (SITE / "index.html").is_file():
        (pytest.fail if os.environ.get("COURSE_REQUIRE_SITE") == "1" else pytest.skip)("no site: run `make site` first")
    return SITE


class Page(HTMLParser):
    """A page's ids, the addresses that it links to, and those that it loads."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.linked, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.linked.append(found["href"])
        elif tag == "link" and found.get("href"):
            self.loaded.append(found["href"])
        elif found.get("src"):
            self.loaded.append(found["src"])


def test_no_link_is_broken_and_nothing_is_loaded_from_elsewhere(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert {site / page for page in PAGES} < set(pages)
    broken, outside, links = [], [], 0
    for path, page in pages.items():
        for address in page.linked + page.loaded:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                outside += [(path, address)] if address in page.loaded and parts.scheme != "data" else []
                continue
            links += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = pages.get(target)
            fragment = unquote(parts.fragment)
            if not target.is_file() or (fragment and there is not None and fragment not in there.ids):
                broken.append((path.relative_to(site).as_posix(), address))
    assert broken == [] and outside == []
    assert links > 1000


def test_figures_and_outputs_are_those_of_the_notebooks(site):
    for notebook, page in zip(NOTEBOOKS, PAGES, strict=True):
        cells = json.loads((ROOT / "notebooks" / notebook.file).read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        html = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs]
        alternatives = [re.search(r'alt="[^"]*"', text)[0] for text in html if text.startswith("<img")]
        text = (site / page).read_text(encoding="utf-8")
        assert [alt for alt in alternatives if alt not in text] == [], page


@pytest.fixture(name="address", scope="module")
def served_site(site):
    """The site on a port of this machine, as a web server has it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(name="reader")
def new_reader(visit, address):
    """A page of a browser; nothing that it asks for may leave the machine, or fail.

    What was still on its way when the page was left is aborted by the browser, which is no failure.
    """
    problems = []

    def failed(request):
        if request.failure != "net::ERR_ABORTED":
            problems.append(f"failed: {request.url}")

    visit.page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    visit.page.on("pageerror", lambda error: problems.append(str(error)))
    visit.page.on("requestfailed", failed)
    visit.page.on("response", lambda answer: answer.status >= 400 and problems.append(f"{answer.status}: {answer.url}"))
    yield visit.page
    assert visit.addresses and visit.outside() == [] and problems == []


def search(page, address):
    """Look for the causal mask from a page on, and open chapter 3."""
    from playwright.sync_api import expect

    page.goto(address)
    page.get_by_placeholder("Search").first.fill("causal mask")
    page.keyboard.press("Enter")
    found = page.locator("#search-results li a", has_text="Chapter 3").first
    expect(found).to_be_visible()
    found.click()
    expect(page.locator("h1")).to_contain_text("Coding attention")


@pytest.mark.browser
class TestPages:
    def test_from_page_to_page(self, reader, address):
        from playwright.sync_api import expect

        reader.goto(f"{address}/index.html")
        for notebook in NOTEBOOKS[:3]:
            reader.locator("a.next-page").click()
            expect(reader.locator("h1")).to_contain_text(notebook.heading)
        reader.locator("a.prev-page").click()
        expect(reader.locator("h1")).to_contain_text(NOTEBOOKS[1].heading)
        reader.locator(".sidebar-tree").get_by_role("link", name=NOTEBOOKS[-1].title).click()
        expect(reader.locator("h1")).to_contain_text(NOTEBOOKS[-1].heading)
        expect(reader.locator("a.next-page")).to_have_count(0)

    def test_search(self, reader, address):
        from playwright.sync_api import expect

        search(reader, f"{address}/{PAGES[0]}")
        expect(reader.locator("span.highlighted").first).to_be_attached()

    def test_search_without_a_server(self, visit, site):
        search(visit.page, f"{site.resolve().as_uri()}/{PAGES[0]}")
        assert {urlsplit(address).scheme for address in visit.addresses} <= {"file", "data"}

    def test_dark_mode_and_light(self, reader, address):
        reader.goto(f"{address}/{PAGES[2]}")
        colors = {}
        for scheme in ("light", "dark"):
            reader.emulate_media(color_scheme=scheme)
            colors[scheme] = reader.evaluate("getComputedStyle(document.body).backgroundColor")
        assert colors["light"] == "rgb(255, 255, 255)" and colors["dark"] != colors["light"]
        reader.locator(".theme-toggle:visible").first.click()
        assert reader.evaluate("document.body.dataset.theme") in ("light", "dark")

    def test_a_solution_is_one_click_away_and_so_is_its_statement(self, reader, address):
        from playwright.sync_api import expect

        reader.goto(f"{address}/{PAGES[2]}")
        reader.get_by_role("link", name="appendix C", exact=True).last.click()
        reader.wait_for_url("**/appendix_c_solutions.html#cell-id=*")
        here = reader.evaluate("decodeURIComponent(location.hash.slice(1))")
        expect(reader.locator(f'[id="{here}"]')).to_be_in_viewport()
        back = reader.locator(f'[id="{here}"] ~ section, section:has([id="{here}"]) + section').first
        back.get_by_role("link", name="To the statement").first.click()
        reader.wait_for_url("**/ch03_attention.html#cell-id=*")

    def test_helpers_can_be_read(self, reader, address):
        from playwright.sync_api import expect

        reader.goto(f"{address}/{PAGES[3]}")
        reader.locator('a[href$="helpers/gpt.py.html"]').first.click()
        expect(reader.locator(".highlight-python")).to_contain_text("class GPTModel")

    @pytest.mark.parametrize("page", ["index.html", *PAGES])
    def test_every_page_is_complete(self, reader, address, page):
        reader.goto(f"{address}/{page}", wait_until="load")
        reader.evaluate("window.MathJax && MathJax.startup.promise")
        found = reader.evaluate(
            """async () => {
            const images = [...document.images];
            await Promise.all(images.map(image => image.decode()));
            return {
                alternatives: images.every(image => image.alt.split(" ").length >= 5),
                sizes: images.every(image => image.naturalWidth > 50),
                formulas: document.querySelectorAll(".math").length,
                set: document.querySelectorAll(".math mjx-container").length,
                faults: document.querySelectorAll("mjx-merror, [data-mjx-error]").length,
                wide: document.documentElement.scrollWidth - innerWidth,
            };
        }"""
        )
        assert found["alternatives"] and found["sizes"] and found["faults"] == 0 and found["wide"] <= 0, found
        assert found["set"] >= found["formulas"], found

    @pytest.mark.parametrize("size", WIDTHS)
    def test_narrow_and_enlarged(self, reader, address, size):
        width, height = WIDTHS[size]
        reader.set_viewport_size({"width": width, "height": height})
        for page in ("index.html", PAGES[2], PAGES[8]):
            reader.goto(f"{address}/{page}")
            assert reader.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, page

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("page", ["index.html", PAGES[2], "helpers/gpt.py.html"])
    def test_accessibility(self, visit, address, page, scheme):
        path = Path(os.environ.get("COURSE_AXE", "no"))
        if not path.is_file():
            pytest.skip("COURSE_AXE names no axe.min.js (npm pack axe-core)")
        visit.page.emulate_media(color_scheme=scheme)
        visit.page.goto(f"{address}/{page}")
        visit.page.evaluate("window.MathJax && MathJax.startup.promise")
        visit.page.evaluate(path.read_text(encoding="utf-8"))
        found = [rule for rule in visit.page.evaluate("axe.run()")["violations"] if rule["impact"] in SERIOUS]
        assert [(rule["id"], [node["html"][:120] for node in rule["nodes"]][:5]) for rule in found] == []
