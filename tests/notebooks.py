"""Keeping notebooks in order: `python -m tests.notebooks refresh|lint|links [paths]`.

`refresh` executes notebooks in place in fresh kernels, `links` stamps the repository into links to Colab and
bootstrap cells, joins exercises with their solutions and each notebook with the next, and makes the table of notebooks
where a cell has its comments; `lint` says what is wrong with committed notebooks. Without paths, all notebooks of the
course; the table of notebooks in README and on the start page is then made (`links`) or compared (`lint`), too.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import html
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import nbformat

from helpers import smollm2
from helpers.course.chapters import NOTEBOOKS
from tests.nbval_numbers import IMAGE, NEEDS, WIDGET, as_text, kernel_environment, merge_streams, missing_needs

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
START = ROOT / "notebooks" / "START.md"  # the page that `make lab` opens

Place = tuple[Path, str]  # a notebook, and the id of a cell in it

SOLUTIONS = "appendix_c_solutions.ipynb"
# What asks for a prediction, to the end of its line: "*Before you run it:*", or a sentence that begins with Predict.
ASKED = re.compile(r"(?:\*[^*\n]*\b(?i:before you)\b[^*\n]*:\*|(?:^|(?<=\. ))Predict\b).*", re.MULTILINE)
FOLD = re.compile(r"^<details><summary>[^<\n]+</summary>\n\n.+?\n\n</details>(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
STATED = re.compile(r"^### Exercise (\w+\.\w+): .+?(?= *$)", re.MULTILINE)
ENDING = ["What you built", "Check yourself", "What comes next"]
LEAD_INS = ["What you will be able to do.", "What you need first.", "Time."]
BOOTSTRAP = """\
import sys

if "google.colab" in sys.modules:  # nothing to do on your own machine; in Colab, fetch the course's helpers
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/{repository}")"""
UNNAMED = "OWNER/REPOSITORY"  # the repository until `make links` has stamped one
BOOTSTRAP_UNNAMED = """\
import sys

if "google.colab" in sys.modules:  # nothing to do on your own machine
    raise SystemExit("This copy does not know its repository: set it in pyproject.toml and run `make links`.")"""
BADGE = "[Open in Colab](https://colab.research.google.com/github/{repository}/blob/main/{path})"
NEXT = r"^\*\*Next:\*\* \[.*\]\(.*\)\.$"
TIME = re.compile(r"(?i)\b(\d+|half an|an?|one|two|three|four)( and a half)? (minutes?|hours?)( and a half)?")
NUMBERS = {"half an": 0.5, "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4}
TABLE = "<!-- notebooks: `make links` makes this table from helpers/course/chapters.py -->\n\n", "\n<!-- /notebooks -->"
MOST_BYTES, MOST_BULLETS, MOST_UNCOMPARED = 3_000_000, 0.40, 0.05
UNCOMPARED = ("nbval-skip", "nbval-ignore-output")
TAG = re.compile(
    r"bootstrap|setup|raises-exception|nbval-skip|nbval-ignore-output|nbval-machine"
    r"|needs:[a-z0-9]+|nbval-rtol=(0\.\d+|\d+e-\d+)|nbval-atol=(\d\.\d+|\d+e-\d+)|nbval-share=0\.[0-4]\d*"
    r"|reason:[a-z0-9-]+|helpers:\w+(\.\w+)+|(?:exercise|solution):(?:[1-9A-E]|[a-z]+)\.(?:\d+|[A-Z])"
)
PRIVATE = re.compile(
    r"(?<![\w.~-])/(?:home|root|work|tmp|Users)\b|(?<!\w)(?:C:\\|[A-Z]:\\{1,2}[A-Z])"
    r"|Looking in indexes|index-url|artifactory|pythonhosted|/simple\b"
)


def all_notebooks(root: Path = ROOT) -> list[Path]:
    """The notebooks of the course, chapters first, the bonus ones last."""
    found = [path for path in (root / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts]
    return sorted(found, key=lambda path: (len(path.parts), not path.name.startswith("ch"), path.name))


def repository() -> str:
    """OWNER/NAME of the course's repository, from pyproject.toml (read without tomllib, which Python 3.10 lacks)."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'^Repository = "https://github\.com/([\w.-]+/[\w.-]+)"', text, re.MULTILINE)[1]


def bootstrap() -> str:
    """The first code cell of every notebook."""
    return BOOTSTRAP_UNNAMED if repository() == UNNAMED else BOOTSTRAP.format(repository=repository())


# ---- reading, writing, executing -----------------------------------------------------------------------------------


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook, with ids (made from place and content) for cells that have none."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    for number, cell in enumerate(raw["cells"]):
        cell.setdefault("id", hashlib.sha256(f"{number} {cell['source']}".encode()).hexdigest()[:8])
    raw["nbformat_minor"] = max(raw["nbformat_minor"], 5)
    return nbformat.reads(json.dumps(raw), as_version=4)


def write(nb: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(nbformat.writes(nb).rstrip("\n") + "\n", encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def code_cells(nb: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells that hold any code."""
    return [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]


def digest(nb: nbformat.NotebookNode) -> str:
    """A digest of the code cells: sources, tags, outputs. `refresh` records it, so that `lint` notices any edit."""
    content = [[cell.source, sorted(tags(cell)), cell.outputs] for cell in code_cells(nb)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def seal(nb: nbformat.NotebookNode) -> None:
    """Record the digest, of what will be read back, in the notebook's metadata."""
    nb.metadata["course"] = {"outputs": digest(nbformat.reads(nbformat.writes(nb), as_version=4))}


def tidy(nb: nbformat.NotebookNode) -> None:
    """Leave out what changes without meaning anything: widget views, timings, editors' metadata, pieces of prints."""
    # As JupyterLab writes both: else opening a notebook would change it, and closing it would ask whether to save.
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    language = nb.metadata.get("language_info", {"name": "python"})
    nb.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": language})
    for cell in nb.cells:
        cell.metadata = nbformat.from_dict({"tags": tags(cell)} if tags(cell) else {})
        if cell.cell_type == "code":
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
            cell.outputs = [output for output in merge_streams(cell.outputs) if output.get("data", True)]


def refresh(path: Path) -> float:
    """Execute a notebook in place, in a fresh kernel and the quick profile; returns the seconds it took.

    Raises nbclient's CellExecutionError, and leaves the file alone, if a cell fails; RuntimeError if the outputs depend
    on what is not on this machine (the tag `needs:...`).
    """
    from nbclient import NotebookClient

    nb, start = read(path), time.perf_counter()
    if missing := missing_needs([tag for cell in nb.cells for tag in tags(cell)]):
        raise RuntimeError(f"its outputs need {missing[0]}, which is not on this machine: {smollm2.COMMAND} fetches it")
    options = {"record_timing": False, "store_widget_state": False, "timeout": 600, "kernel_name": "python3"}
    with kernel_environment():
        NotebookClient(nb, resources={"metadata": {"path": str(path.parent)}}, **options).execute()
    tidy(nb)
    seal(nb)
    write(nb, path)
    return time.perf_counter() - start


def links(path: Path, root: Path = ROOT) -> bool:
    """Stamp the repository into a notebook's link to Colab and bootstrap cell; lead exercises to solutions and back.

    A notebook whose last cell does not lead to the next notebook gets a line that does. Returns whether anything
    changed.
    """
    nb, (statements, solutions) = read(path), exercise_headings(root)
    before, sealed = nbformat.writes(nb), nb.metadata.get("course", {}).get("outputs") == digest(nb)
    first = nb.cells[0]
    title, *rest = [line for line in first.source.splitlines() if not re.match(r"\[!?\[?Open in Colab\]", line)]
    first.source = "\n\n".join([title, _badge(path, root), "\n".join(rest).strip()]).strip()
    for cell in nb.cells:
        if "bootstrap" in tags(cell):
            cell.source = bootstrap()
        if cell.cell_type == "markdown":
            cell.source = cell_with_table(cell.source, path.name)
        if cell.cell_type == "markdown" and (stated := STATED.search(cell.source)):
            there = statements if path.name == SOLUTIONS else solutions
            words = "To the statement" if path.name == SOLUTIONS else "appendix C"
            if stated[1] in there:
                cell.source = re.sub(
                    rf"\[{words}\]\([^)]*\)", f"[{words}]({link(path, *there[stated[1]])})", cell.source
                )
    _lead_onward(nb, next_link(path, root))
    if sealed:
        seal(nb)
    if changed := nbformat.writes(nb) != before:
        write(nb, path)
    return changed


def exercise_headings(root: Path = ROOT) -> tuple[dict[str, Place], dict[str, Place]]:
    """Where each exercise is stated, by number, and where it is solved."""
    statements: dict[str, Place] = {}
    solutions: dict[str, Place] = {}
    for path in all_notebooks(root):
        found = solutions if path.name == SOLUTIONS else statements
        for cell in read(path).cells:
            if cell.cell_type == "markdown":
                found.update({stated[1]: (path, cell.id) for stated in STATED.finditer(cell.source)})
    return statements, solutions


def link(origin: Path, target: Path, cell: str) -> str:
    """The address of a cell, as a notebook links to it.

    JupyterLab finds a cell by its id in a notebook that it has to open first; a heading, only in one that is open.
    """
    return f"{Path(os.path.relpath(target, origin.parent)).as_posix()}#cell-id={cell}"


def _end(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook's last cell of prose, in which stands what comes next."""
    return [cell for cell in nb.cells if cell.cell_type == "markdown"][-1]


def _lead_onward(nb: nbformat.NotebookNode, following: tuple[str, str] | None) -> None:
    """Let the end of a notebook lead to the next one: a line that says so is made right, or written if no link does."""
    end, line = _end(nb), "**Next:** [{}]({}).".format(*following) if following else ""
    if re.search(NEXT, end.source, re.MULTILINE):
        end.source = re.sub(NEXT, lambda _: line, end.source, flags=re.MULTILINE).strip()
    elif following and f"]({following[1]})" not in end.source:
        end.source += f"\n\n{line}"


def next_link(path: Path, root: Path = ROOT) -> tuple[str, str] | None:
    """The title of the notebook that comes after one in the course, and its address there; None after the last."""
    files = [notebook.file for notebook in NOTEBOOKS]
    file = path.resolve().relative_to((root / "notebooks").resolve()).as_posix()
    if file not in files[:-1]:
        return None
    following = NOTEBOOKS[files.index(file) + 1]
    return following.heading, Path(os.path.relpath(following.file, Path(file).parent)).as_posix()


def _badge(path: Path, root: Path) -> str:
    return BADGE.format(repository=repository(), path=path.resolve().relative_to(root.resolve()).as_posix())


# ---- the table of notebooks ----------------------------------------------------------------------------------------


def table(folder: str = "notebooks/") -> str:
    """The table of notebooks as README shows it; the links begin with `folder`."""
    lines = ["| notebook | what you build | read first | time |", "|---|---|---|---|"]
    short = {other.number: f"*{other.title}*" if other.kind == "bonus" else other.number for other in NOTEBOOKS}
    for notebook in NOTEBOOKS:
        label = "Bonus: " if notebook.kind == "bonus" else f"{notebook.number}. "
        link = f"[{label}{notebook.title}]({folder}{notebook.file})"
        builds = notebook.builds.replace("|", r"\|")
        needs = ", ".join(short[number] for number in notebook.needs)
        lines.append(f"| {link} | {builds} | {needs} | {_spell(notebook.minutes)} |")
    return "\n".join(lines) + "\n"


def _spell(minutes: int | None) -> str:
    """A reading time: "90 min", "2 h" or "2 h 30"."""
    if minutes is None:
        return "a few minutes each"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60 or ''}".strip()


def with_table(text: str, where: str = "README.md") -> str:
    """The text with the table of notebooks between its two comments. Raises ValueError if a comment is missing.

    `where` names the text's file: README calls the folder of the notebooks notebooks/, anything else lies in it.
    """
    start, end = TABLE
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{where} must have the lines {start.strip()} and {end.strip()}, in this order")
    return before + start + table("notebooks/" if where == README.name else "") + end + after


def cell_with_table(source: str, where: str) -> str:
    """A cell of a chapter; if it has the comment that begins the table of notebooks, with that table."""
    return with_table(source, where) if TABLE[0] in source else source


def stamp_table(page: Path) -> bool:
    """Write the table of notebooks into a page. Returns whether anything changed."""
    text = page.read_text(encoding="utf-8")
    if changed := with_table(text, page.name) != text:
        page.write_text(with_table(text, page.name), encoding="utf-8", newline="\n")
    return changed


def lint_table(page: Path) -> list[str]:
    """What is wrong with a page's table of notebooks; an empty list if nothing is."""
    text = page.read_text(encoding="utf-8")
    right = with_table(text, page.name) == text
    return [] if right else ["the table is not that of helpers/course/chapters.py: run make links"]


# ---- lint ----------------------------------------------------------------------------------------------------------


class Page:
    """A notebook under lint. `problems` in it are what each rule below yields."""

    def __init__(self, path: Path, root: Path):
        self.path, self.root, self.nb = path, root, nbformat.read(path, as_version=4)
        self.code = code_cells(self.nb)
        self.texts = [cell.source for cell in self.nb.cells if cell.cell_type == "markdown"]
        self.prose = [re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL) for text in self.texts]
        self.headings = re.findall(r"^(#+) +(.+?) *$", "\n".join(self.prose), flags=re.MULTILINE)
        file = path.resolve().relative_to((root / "notebooks").resolve()).as_posix()
        self.notebook = next((notebook for notebook in NOTEBOOKS if notebook.file == file), None)

    def outputs(self) -> Iterator[tuple[nbformat.NotebookNode, nbformat.NotebookNode]]:
        for cell in self.code:
            for output in cell.outputs:
                yield cell, output


def name(cell: nbformat.NotebookNode) -> str:
    """How messages refer to a cell: by its first line."""
    return f"cell `{cell.source.strip().splitlines()[0][:60]}`"


def executed(page: Page) -> Iterator[str]:
    for expected, cell in enumerate(page.code, start=1):
        if cell.execution_count != expected:
            yield f"{name(cell)} has execution count {cell.execution_count} instead of {expected}: run make refresh"
            return


def current(page: Page) -> Iterator[str]:
    if page.nb.metadata.get("course", {}).get("outputs") != digest(page.nb):
        yield "code or outputs were edited since they were executed: run make refresh"


def clean_outputs(page: Page) -> Iterator[str]:
    for cell, output in page.outputs():
        if output.output_type == "error" and "raises-exception" not in tags(cell):
            yield f"{name(cell)} stopped with {output.ename}"
        if output.get("name") == "stderr":
            yield f"{name(cell)} writes to stderr: {output.text[:60]!r}"
        if WIDGET in output.get("data", {}):
            yield f"{name(cell)} holds a widget view: run make refresh"
    if "widgets" in page.nb.metadata:
        yield "the notebook holds widget state: run make refresh"


def no_private_paths(page: Page) -> Iterator[str]:
    texts = [(name(cell), cell.source) for cell in page.nb.cells if cell.source.strip()]
    for cell, output in page.outputs():
        kept = [IMAGE.sub(r"\g<after>", as_text(value)) for value in output.get("data", {}).values()]
        found = [output.get("text", ""), *kept, *output.get("traceback", [])]
        texts.append((f"the output of {name(cell)}", "\n".join(found)))
    for where, text in texts:
        if match := PRIVATE.search(text):
            yield f"{where} names a place of one machine: {text[match.start() : match.start() + 40]!r}"


def pictures(page: Page) -> Iterator[str]:
    for cell, output in page.outputs():
        data = output.get("data", {})
        page_text = as_text(data.get("text/html", ""))
        figure = IMAGE.fullmatch(page_text)
        if any(kind.startswith("image/") for kind in data) or ("<img" in page_text and not figure):
            yield f"{name(cell)} shows an image without helpers.course.plots: use plots.show"
        elif figure and len(html.unescape(figure["alt"]).split()) < 5:
            yield f"{name(cell)} shows a figure without alternative text of at least five words: use plots.show"
        elif figure and html.unescape(figure["alt"]) != data.get("text/plain"):
            yield f"{name(cell)} shows a figure whose text/plain is not its alternative text"
    for text in page.prose:
        if re.search(r"!\[|<img", text):
            yield f"an image in markdown, {text[:40]!r}: draw it with helpers.course.plots"


def listed(page: Page) -> Iterator[str]:
    """The notebook is in the list of notebooks, and its opening says the same as the list."""
    if page.notebook is None:
        yield "the notebook is not in the list of notebooks: add a record to helpers/course/chapters.py"
        return
    title = next((title for mark, title in page.headings if mark == "#"), page.notebook.heading)
    if title != page.notebook.heading:
        yield f"the title is {title!r}, in helpers/course/chapters.py it is {page.notebook.heading!r}"
    needs, time = (_paragraph(page, lead_in) for lead_in in LEAD_INS[1:])
    found, expected = TIME.search(time), page.notebook.minutes
    if expected is not None and (found is None or _minutes(found) != expected):
        said = f"{_minutes(found):g} minutes" if found else "no reading time"
        yield f"**Time.** says {said}, helpers/course/chapters.py says {expected} minutes"
    for number in page.notebook.needs:
        other = next(notebook for notebook in NOTEBOOKS if notebook.number == number)
        if not re.search(rf"\b{re.escape(other.name)}\b", needs, re.IGNORECASE) and Path(other.file).name not in needs:
            yield f"**What you need first.** does not name {other.name}, which helpers/course/chapters.py does"


def _paragraph(page: Page, lead_in: str) -> str:
    """The paragraph of the opening that begins with a lead-in; "" if there is none."""
    found = re.search(rf"^\*\*{re.escape(lead_in)}\*\*.*$", "\n".join(page.texts[:4]), re.MULTILINE)
    return found[0] if found else ""


def _minutes(time: re.Match) -> float:
    """The length in minutes of a time such as "75 minutes", "two hours", "two and a half hours"."""
    number, unit = time[1].lower(), 60 if time[3].startswith("hour") else 1
    return unit * ((NUMBERS[number] if number in NUMBERS else int(number)) + (0.5 if time[2] or time[4] else 0))


def frame(page: Page) -> Iterator[str]:
    cells = page.nb.cells
    first = cells[0].source.splitlines() if cells and cells[0].cell_type == "markdown" else []
    if not first or not first[0].startswith("# ") or [mark for mark, _ in page.headings].count("#") != 1:
        yield "the first cell must begin with the only H1 (`# Title`)"
    if next((line for line in first[1:] if line.strip()), "") != _badge(page.path, page.root):
        yield "under the title there must be the link to Colab of this repository and file: run make links"
    opening = "\n\n".join(page.texts[:4])
    starts = [opening.find(f"\n**{lead_in}**") for lead_in in LEAD_INS]
    if -1 in starts or starts != sorted(starts):
        yield f"the opening must have paragraphs that begin with {', '.join(f'**{lead_in}**' for lead_in in LEAD_INS)}"
    if not page.code or "bootstrap" not in tags(page.code[0]) or page.code[0].source != bootstrap():
        yield "the first code cell must be the bootstrap cell, tagged and to the letter: run make links"
    if len(page.code) < 2 or "setup" not in tags(page.code[1]):
        yield "the second code cell must be the imports and the profile, tagged `setup`"


def sections(page: Page) -> Iterator[str]:
    titles = [title for mark, title in page.headings if mark == "##"]
    if titles[-3:] != ENDING:
        yield f"the last three sections must be {', '.join(ENDING)}"
    numbered = page.notebook and page.notebook.kind == "chapter"
    for number, title in enumerate(titles[:-3] if numbered else [], start=1):
        if not title.startswith(f"{page.notebook.number}.{number} "):
            yield f"section `## {title}` should be number {page.notebook.number}.{number}"
            break
    level = 0
    for mark, title in page.headings:
        if len(mark) > level + 1:
            yield f"heading `{mark} {title}` skips a level"
        level = len(mark)


def prose(page: Page) -> Iterator[str]:
    for text in page.prose:
        plain = re.sub(r"`+[^`]*`+|\$\$.*?\$\$|\$[^$\n]+\$|!\[|!=|<!--", "", text, flags=re.DOTALL)
        if match := re.search(r"\S*!.*", plain):
            yield f"an exclamation mark in prose: {match[0][:60]!r}"
    lines = [line for line in "\n".join(page.prose).splitlines() if line.strip()]
    bullets = sum(bool(re.match(r"\s*([-*+]|\d+[.)])\s", line)) for line in lines)
    if bullets > MOST_BULLETS * len(lines):
        yield f"{bullets} of {len(lines)} lines of prose are bullets (at most {MOST_BULLETS:.0%})"


def predictions(page: Page) -> Iterator[str]:
    """What the outcome is compared with is folded, so that nobody reads it before they have made a prediction."""
    text = "\n\n".join(page.prose)
    if not text.count("<details") == text.count("</details") == len(FOLD.findall(text)):
        yield "a fold is not in the form that CONTRIBUTING.md shows: it hides too much, or its Markdown is not rendered"
    asked = [(match.end(), match[0]) for match in ASKED.finditer(text)]
    for (end, words), (following, _) in pairwise([*asked, (len(text), "")]):
        if not FOLD.search(text, end, following):
            yield f"no fold before the next question answers {words[:70]!r}"


def onward(page: Page) -> Iterator[str]:
    following = next_link(page.path, page.root)
    if following and f"]({following[1]})" not in _end(page.nb).source:
        yield f"the last cell has no link to the next notebook, {following[1]}: run make links"


def relative_links(page: Page) -> Iterator[str]:
    targets = re.findall(r"\]\(([^)\s]+)|href=[\"']([^\"']+)", "\n".join(page.prose))
    for target in (bracket or href for bracket, href in targets):
        if re.match(r"https?://|mailto:|#", target):
            continue
        file = target.split("#")[0]
        if file.startswith("/") or not (page.path.parent / file).exists():
            yield f"the link to {target} leads nowhere"


def tables(page: Page) -> Iterator[str]:
    if any(cell_with_table(text, page.path.name) != text for text in page.texts):
        yield "the table of notebooks is not that of helpers/course/chapters.py: run make links"


def tagging(page: Page) -> Iterator[str]:
    uncompared = [cell for cell in page.code if any(tag in UNCOMPARED for tag in tags(cell))]
    if len(uncompared) > MOST_UNCOMPARED * len(page.code):
        yield f"{len(uncompared)} of {len(page.code)} code cells are not compared (at most {MOST_UNCOMPARED:.0%})"
    for cell in uncompared:
        if not any(tag.startswith("reason:") for tag in tags(cell)):
            yield f"{name(cell)} is not compared, but has no tag `reason:...`"
    for cell in page.nb.cells:
        for tag in tags(cell):
            if not TAG.fullmatch(tag) or (tag.startswith("needs:") and tag.removeprefix("needs:") not in NEEDS):
                yield f"{name(cell)} has the unknown tag {tag!r}"
        if cell.cell_type == "code" and re.search(r"#\s*(NBVAL_|PYTEST_VALIDATE)", cell.source):
            yield f"{name(cell)} steers nbval by a comment: use tags"


def exercises(page: Page) -> Iterator[str]:
    from helpers.course.checks import EXERCISES

    seen, stated = [], []
    for cell in page.nb.cells:
        if cell.cell_type == "markdown":
            stated += re.findall(r"^#+ +Exercise (\w+\.\w+)", cell.source, flags=re.MULTILINE)
        for number in [tag.split(":")[1] for tag in tags(cell) if tag.startswith(("exercise:", "solution:"))]:
            seen.append(number)
            if number not in EXERCISES:
                yield f"exercise {number} has no checker in helpers.course.checks"
                continue
            if stated[-1:] != [number]:
                yield f"exercise {number} has no heading `### Exercise {number}: ...` above its cell"
            call = f"checks.{EXERCISES[number].__name__}"
            last = getattr(ast.parse(cell.source).body[-1], "value", None)
            if not isinstance(last, ast.Call) or ast.unparse(last.func) != call:
                yield f"the cell of exercise {number} must end with {call}(...)"
    yield from (f"exercise {number} is stated, but has no cell" for number in stated if number not in seen)
    prefix = page.notebook.prefix if page.notebook else None
    for number in EXERCISES:
        if number.split(".")[0] == prefix and seen.count(number) != 1:
            yield f"the checker of exercise {number} has {seen.count(number)} cells instead of one"


def size(page: Page) -> Iterator[str]:
    if (bytes_ := page.path.stat().st_size) > MOST_BYTES:
        yield f"the file has {bytes_:,} bytes (at most {MOST_BYTES:,})"


RULES = [executed, current, clean_outputs, no_private_paths, pictures, listed, frame, sections]
RULES += [prose, predictions, onward, relative_links, tables, tagging, exercises, size]


def lint(path: Path, root: Path = ROOT) -> list[str]:
    """What is wrong with a committed notebook; an empty list if nothing is."""
    page = Page(path, root)
    return [problem for rule in RULES for problem in rule(page)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.notebooks", description=__doc__)
    parser.add_argument("command", choices=["refresh", "lint", "links"])
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks; all of the course's if left out")
    options = parser.parse_args(arguments)
    problems = 0
    for path in options.paths or [README, START, *all_notebooks()]:
        if options.command == "lint":
            found = lint_table(path) if path in (README, START) else lint(path)
            problems += len(found)
            print("\n".join(f"{path.name}: {problem}" for problem in found or ["in order"]))
        elif options.command == "links":
            changed = stamp_table(path) if path in (README, START) else links(path)
            print(f"{path.name}: {'stamped' if changed else 'already current'}")
        elif path not in (README, START):
            print(f"{path.name}: ", end="", flush=True)
            try:
                print(f"{refresh(path):.1f} s")
            except Exception as error:
                print(f"failed, and was not written.\n{error}", file=sys.stderr)
                return 1
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
