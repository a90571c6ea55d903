"""A pytest plugin: the faults and bad inputs that tests tried, and what happened, as a table that the run writes.

A test takes the fixture `fault`, says what it does and what is expected, and lets it watch. COURSE_FAULT_TABLE names
the Markdown file that the table goes to at the end of the run, also when several processes share the tests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SENTENCE = 300  # characters that an error's message may have
_COLUMNS = ("area", "tried", "expected", "happened", "test")


class Fault:
    """One row of the table. `folder` is written as FOLDER in it, since it has another name in each run."""

    def __init__(self, row: dict[str, str], folder: Path):
        self.row, self.folder = row, str(folder)

    def tries(self, tried: str, expected: str) -> None:
        """What the test does, and what should come of it."""
        self.row.update(tried=tried, expected=expected)

    def happened(self, what: Any) -> None:
        """What came of it."""
        self.row["happened"] = str(what).replace(self.folder, "FOLDER")

    @contextmanager
    def refuses(
        self,
        names: str = "",
        kinds: type[Exception] | tuple[type[Exception], ...] = (ValueError, TypeError, OSError),
        secret: str | None = None,
    ) -> Iterator[None]:
        """The block must raise one of `kinds`, in one line that matches `names` and does not hold `secret`."""
        try:
            yield
        except Exception as error:
            message = str(error).replace(self.folder, "FOLDER")
            self.happened(f"{type(error).__name__}: {message}")
            if not isinstance(error, kinds):
                raise
            assert message and "\n" not in message and len(message) <= SENTENCE, message
            assert re.search(names, message), f"{message!r} does not name {names!r}"
            assert secret is None or secret not in message, message
        else:
            self.happened("no error")
            pytest.fail("no error")


@pytest.fixture(name="fault")
def fault_to_record(request: pytest.FixtureRequest, tmp_path: Path) -> Fault:
    """A row of the table of faults, in the area that the first line of the test class's docstring names."""
    row = dict.fromkeys(_COLUMNS, "")
    row |= {"area": (request.cls.__doc__ or "").splitlines()[0].rstrip("."), "happened": "not recorded"}
    request.node.user_properties.append(("fault", row))
    return Fault(row, tmp_path)


def table(reports: list[pytest.TestReport]) -> str:
    """The rows that the reports of a run hold, by area, as Markdown."""
    rows = []
    for report in reports:
        found = [row for name, row in getattr(report, "user_properties", ()) if name == "fault"]
        if getattr(report, "outcome", None) != "skipped" and (report.when == "call" or report.failed):
            rows += [{**row, "test": report.outcome} for row in found]
    rows.sort(key=lambda row: row["area"])
    passed = sum(row["test"] == "passed" for row in rows)
    lines = [
        "# Faults and bad inputs tried, and what happened\n",
        f"{len(rows)} rows, {passed} as expected. Written by the test run (`COURSE_FAULT_TABLE=FILE pytest`).\n",
        "| # | Area | What was tried | Expected | What happened | Test |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {n} | " + " | ".join(map(_cell, (row[c] for c in _COLUMNS))) + " |" for n, row in enumerate(rows, 1)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    text = " ".join(text.encode("ascii", "backslashreplace").decode().split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Write the table; only the process that reports comes here, with the reports of all others."""
    target = os.environ.get("COURSE_FAULT_TABLE")
    if target:
        reports = [report for kind in terminalreporter.stats.values() for report in kind]
        Path(target).write_text(table(reports), encoding="utf-8")
        terminalreporter.write_line(f"the table of faults is in {target}")
