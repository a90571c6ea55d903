"""Which exercises you have solved, kept in a small file on your machine: `checks.progress()` shows them.

The file is progress.json in the folder of the course's downloads (`helpers.texts.cache_dir`: COURSE_CACHE_DIR, else the
system's cache folder), never in the repository. Only verdicts that a notebook shows are counted. Several notebooks may
run at once: whoever writes holds a lock, and writes the whole file.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from ..files import first_line, read_json, write_text_whole
from ..stop_button import notebook_shell
from ..texts import cache_dir
from .chapters import NOTEBOOKS, Notebook

MARKS = {True: "✓", False: "✗", None: "·"}  # solved, tried, not tried
_PATIENCE = 5  # seconds to wait for another notebook that is writing
_uncounted = False  # whether this process's verdicts are left out


def progress_file() -> Path:
    """Where your progress is kept."""
    return cache_dir() / "progress.json"


def kept() -> dict[str, bool]:
    """What is kept: for each title, such as "Exercise 3.1" or "Self-test 3", whether it was ever right.

    Raises ValueError, in a sentence, if the file is damaged, and OSError if it cannot be read.
    """
    path = progress_file()
    if not path.exists():
        return {}
    verdicts = read_json(path)
    if not isinstance(verdicts, dict) or not all(isinstance(right, bool) for right in verdicts.values()):
        raise ValueError(f"{path} is not a list of solved exercises, or it is damaged")
    return verdicts


def uncounted() -> None:
    """Leave the verdicts of this notebook out, from here on: its answers are not yours (appendix C)."""
    global _uncounted
    _uncounted = True


def count(title: str, right: bool) -> str:
    """Keep a verdict, if a notebook shows it; returns what to say about it, "" for nothing.

    What was right once stays right. A damaged file is left as it is.
    """
    if _uncounted or not _in_a_notebook():
        return ""
    try:
        path = progress_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=_PATIENCE):
            verdicts = kept()
            if verdicts.get(title) is not True and verdicts.get(title) != right:
                verdicts[title] = right
                write_text_whole(path, json.dumps(dict(sorted(verdicts.items())), indent=1) + "\n")
    except (OSError, ValueError, Timeout) as error:
        return f"(Not counted: {first_line(error, 300)}.)"
    if not right:
        return ""
    row = next((row for row in Overview(verdicts).rows() if title in row.titles), None)
    return f"({row.summary()} `checks.progress()` shows all.)" if row else ""


def _in_a_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    return notebook_shell() is not None


@dataclass(frozen=True)
class Row:
    """A notebook's exercises and self-test, each with what is kept about it: True, False or None."""

    notebook: Notebook
    exercises: Mapping[str, bool | None]  # by number
    self_test: Mapping[str, bool | None] = field(default_factory=dict)  # by title, one or none

    @property
    def name(self) -> str:
        return self.notebook.name[:1].upper() + self.notebook.name[1:]

    @property
    def titles(self) -> set[str]:
        return {f"Exercise {number}" for number in self.exercises} | set(self.self_test)

    @property
    def solved(self) -> int:
        return sum(right is True for right in self.exercises.values())

    def summary(self) -> str:
        return f"{self.name}: {self.solved} of {len(self.exercises)} exercises solved."

    def marks(self) -> Iterator[tuple[bool | None, str]]:
        """The verdict on each exercise with its number, the self-test last."""
        yield from ((right, number) for number, right in self.exercises.items())
        yield from ((right, "self-test") for right in self.self_test.values())


@dataclass(frozen=True)
class Overview:
    """What has been solved, as a notebook shows it. `problem` says why nothing could be read."""

    verdicts: Mapping[str, bool]
    problem: str = ""

    def rows(self) -> list[Row]:
        """A row for each notebook that has exercises, in the order of the course."""
        from .checks._core import EXERCISES, SELF_TESTS  # they count what they check

        rows, tests = [], {test.title for test in SELF_TESTS.values()}
        for notebook in NOTEBOOKS:
            numbers = [number for number in EXERCISES if number.split(".")[0] == notebook.prefix]
            exercises = {number: self.verdicts.get(f"Exercise {number}") for number in sorted(numbers, key=_order)}
            self_test = {title: self.verdicts.get(title) for title in tests & {f"Self-test {notebook.prefix}"}}
            if exercises:
                rows.append(Row(notebook, exercises, self_test))
        return rows

    def _headline(self) -> str:
        rows = self.rows()
        solved, all_of_them = sum(row.solved for row in rows), sum(len(row.exercises) for row in rows)
        return f"{solved} of {all_of_them} exercises solved (✓ solved, ✗ tried, · not tried yet)."

    def __repr__(self) -> str:
        rows = self.rows()
        width = max(len(row.name) for row in rows)
        lines = [self.problem] if self.problem else []
        for row in rows:
            marks = "  ".join(f"{MARKS[right]} {label}" for right, label in row.marks())
            lines.append(f"{row.name:{width}}  {row.solved:2d} of {len(row.exercises):2d}  {marks}")
        return "\n".join([*lines, self._headline()])

    def _repr_html_(self) -> str:
        colors = {True: "#009E73", False: "#D55E00", None: "#767676"}
        lines = [f"<p>{html.escape(self.problem)}</p>"] if self.problem else []
        lines += [f"<p><b>{self._headline()}</b></p>", "<table>"]
        left = 'style="text-align: left"'
        lines += [f"<tr><th {left}>notebook</th><th>solved</th><th {left}>exercises</th></tr>"]
        for row in self.rows():
            marks = " &nbsp; ".join(
                f'<span style="white-space: nowrap"><b style="color: {colors[right]}">{MARKS[right]}</b> {label}</span>'
                for right, label in row.marks()
            )
            title = html.escape(row.notebook.heading)
            solved = f"{row.solved} of {len(row.exercises)}"
            lines.append(f"<tr><td {left}>{title}</td><td>{solved}</td><td {left}>{marks}</td></tr>")
        return "\n".join([*lines, "</table>"])


def _order(number: str) -> tuple[bool, int, str]:
    """Sorts an exercise's number: the book's first, each series in its order."""
    last = number.split(".")[1]
    return (not last.isdecimal(), int(last) if last.isdecimal() else 0, last)


def progress() -> Overview:
    """What you have solved so far, in all notebooks, as a table."""
    try:
        return Overview(kept())
    except (OSError, ValueError) as error:
        return Overview({}, f"{first_line(error, 300)}. Delete the file to begin again.")
