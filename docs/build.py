"""The course as a site: `make site` makes pages of the committed notebooks in the folder site/, without running them.

Sphinx writes the pages (see conf.py). What it reads is prepared here: README and the notebooks with links that lead to
pages, an anchor at every cell that a link names, and a page for every other file of the course that they link to.
Needs the packages of docs/requirements.txt, none of the course's own.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import runpy
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "site"
START = "README.md"  # becomes the site's first page
NOTEBOOKS = runpy.run_path(str(ROOT / "helpers" / "course" / "chapters.py"))["NOTEBOOKS"]
CAPTIONS = {"chapter": "Chapters", "appendix": "Appendices", "bonus": "Bonus"}
MARK = ".buildinfo"  # Sphinx leaves it in every site that it has made
FILES = "_files"  # where the files lie that pages show as code
PAGES = (".md", ".ipynb")
CODE = {".py": "python", "": "text", ".txt": "text"}  # shown on a page of their own; all others are copied

# A link's target in Markdown; code is matched first, so that what looks like a link in it is left alone.
_LINK = re.compile(r"(?ms)^(?:```|~~~).*?^(?:```|~~~)|`[^`\n]+`|(?<=\]\()(?P<target>[^()\s]+)(?=\))")
_HREF = re.compile(r'(?<=href=")(?P<target>[^"]+)(?=")')
_COLAB = re.compile(r"\[Open in Colab\]\([^)]*OWNER/REPOSITORY[^)]*\)\n*")  # a fork has not stamped its address yet


def address(path: str) -> str:
    """Where the site has a file of the course; both are relative to the top folder, with "/".

    >>> address("README.md"), address("notebooks/ch03_attention.ipynb"), address("helpers/gpt.py")
    ('index.html', 'notebooks/ch03_attention.html', 'helpers/gpt.py.html')
    """
    stem, suffix = posixpath.splitext(path)
    if path == START:
        return "index.html"
    return f"{stem}.html" if suffix in PAGES else f"{path}.html" if suffix in CODE else path


def resolve(target: str, origin: str) -> tuple[str, str] | None:
    """The file of the course that a link in the file `origin` leads to, and the part after "#"; None for any other.

    A link to a folder leads to its `__init__.py`. Raises ValueError if there is no such file.
    """
    if re.match(r"[a-z][a-z0-9+.-]*:|#|/", target, re.IGNORECASE):
        return None
    path, _, fragment = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
    if (ROOT / path).is_dir():
        path = f"{path}/__init__.py"
    if path.startswith("..") or not (ROOT / path).is_file():
        raise ValueError(f"{origin} links to {target}, which does not exist")
    return path, fragment


class Source:
    """What Sphinx is given, in `folder`: `add` a file, and all that it links to is added too."""

    def __init__(self, folder: Path):
        self.folder, self.added, self.waiting = folder, set(), []
        self.anchors: dict[str, set[str]] = {}  # the cells of each notebook that links lead to

    def add(self, path: str) -> None:
        if path not in self.added:
            self.added.add(path)
            self.waiting.append(path)

    def write(self) -> None:
        """Write what was added, and what that links to."""
        notebooks = []
        while self.waiting:
            path = self.waiting.pop()
            suffix = posixpath.splitext(path)[1]
            if suffix == ".ipynb":
                notebooks.append((path, self._notebook(path)))
            elif suffix == ".md":
                text = self._linked(_LINK, (ROOT / path).read_text(encoding="utf-8"), path)
                head = "" if path == START else "---\norphan: true\n---\n\n"
                self._write("index.md" if path == START else path, head + text + (_toc() if path == START else ""))
            elif suffix in CODE:
                self._copy(path, f"{FILES}/{path}")
                head = "---\norphan: true\nnosearch: true\n---\n\n"
                show = f"```{{literalinclude}} /{FILES}/{path}\n:language: {CODE[suffix]}\n```\n"
                self._write(f"{path}.md", f"{head}# `{path}`\n\n{show}")
            else:
                self._copy(path, path)
        for path, notebook in notebooks:  # when all links are known
            notebook["cells"] = list(_anchored(notebook["cells"], self.anchors.get(path, set())))
            self._write(path, json.dumps(notebook))

    def _notebook(self, path: str) -> dict[str, Any]:
        notebook = json.loads((ROOT / path).read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                cell["source"] = self._linked(_LINK, _COLAB.sub("", cell["source"]), path)
            if "bootstrap" in cell["metadata"].get("tags", []):
                cell["metadata"]["tags"] = ["remove-cell"]
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                if "text/html" in data:
                    data["text/html"] = self._linked(_HREF, "".join(data["text/html"]), path)
        return notebook

    def _linked(self, pattern: re.Pattern, text: str, origin: str) -> str:
        """A text whose links lead to the site's pages; what they lead to is added."""

        def replace(match: re.Match) -> str:
            found = match["target"] and resolve(match["target"], origin)
            if not found:
                return match[0]
            path, fragment = found
            self.add(path)
            if fragment:
                self.anchors.setdefault(path, set()).add(fragment)
            here = posixpath.dirname(address(origin)) or "."
            return posixpath.relpath(address(path), here) + (f"#{fragment}" if fragment else "")

        return pattern.sub(replace, text)

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text, encoding="utf-8")

    def _copy(self, path: str, name: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, self.folder / name)


def _anchored(cells: Iterable[dict[str, Any]], fragments: set[str]) -> Iterable[dict[str, Any]]:
    """The cells, with an anchor before each one that a link of the form "#cell-id=..." leads to."""
    for cell in cells:
        fragment = f"cell-id={cell['id']}"
        if fragment in fragments:
            anchor = f'<span id="{fragment}"></span>'
            yield {"cell_type": "markdown", "id": f"anchor-{cell['id']}", "metadata": {}, "source": anchor}
        yield cell


def _toc() -> str:
    """The site's contents, which order its pages: the notebooks as chapters.py lists them."""
    parts = []
    for kind, caption in CAPTIONS.items():
        pages = []
        for notebook in NOTEBOOKS:
            if notebook.kind == kind:
                label = notebook.title if kind == "bonus" else f"{notebook.number}. {notebook.title}"
                pages.append(f"{label} <notebooks/{notebook.file.removesuffix('.ipynb')}>")
        parts += [f"```{{toctree}}\n:hidden:\n:caption: {caption}\n", *pages, "```\n"]
    return "\n\n" + "\n".join(parts)


def build(site: Path = SITE) -> None:
    """Make the site in a folder, in the place of an earlier one. Raises SystemExit with what is wrong if it cannot."""
    if site.exists() and not (site / MARK).is_file() and any(site.iterdir()):
        raise SystemExit(f"The folder {os.path.relpath(site)} exists and is not a site that was made here: rename it.")
    from sphinx.cmd.build import build_main

    with tempfile.TemporaryDirectory() as folder:
        source = Source(Path(folder) / "source")
        for path in (START, *(f"notebooks/{notebook.file}" for notebook in NOTEBOOKS)):
            source.add(path)
        source.write()
        target = Path(folder) / "site"
        options = f"-b html -q -W --keep-going -d {folder}/doctrees -c".split()
        if build_main([*options, str(ROOT / "docs"), str(source.folder), str(target)]):
            raise SystemExit("The site was not built: see the lines above.")
        for path in source.added:  # files that are neither pages nor pictures on one
            if not address(path).endswith(".html"):
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / path, target / path)
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(target, site)
    print(f"The site is in {os.path.relpath(site)}: open {os.path.relpath(site / 'index.html')} in a browser.")


if __name__ == "__main__":
    build(*map(Path, sys.argv[1:]))
