"""What has been solved: kept in one file, counted in notebooks only, and shown."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.course import checks, progress
from helpers.course.checks._core import read_quiz
from tests.notebooks import ROOT


@pytest.fixture(name="file", autouse=True)
def own_file(tmp_path, monkeypatch):
    """A file of the test's own, as if this process were a notebook's kernel."""
    monkeypatch.setenv("COURSE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(progress, "_in_a_notebook", lambda: True)
    return tmp_path / "cache" / "progress.json"


class TestCounting:
    def test_verdicts_are_kept(self, file):
        assert progress.count("Exercise 3.1", False) == ""
        assert json.loads(file.read_text()) == {"Exercise 3.1": False}
        said = progress.count("Exercise 3.1", True)
        assert said.startswith("(Chapter 3: 1 of ") and said.endswith("solved. `checks.progress()` shows all.)")
        assert progress.count("Exercise 3.2", True).startswith("(Chapter 3: 2 of ")
        assert json.loads(file.read_text()) == {"Exercise 3.1": True, "Exercise 3.2": True}

    def test_what_was_right_once_stays_right(self, file):
        progress.count("Exercise 3.1", True)
        progress.count("Exercise 3.1", False)
        assert progress.kept() == {"Exercise 3.1": True}

    def test_a_checker_counts(self, file):
        wrong = checks.self_test_3(q1="z")
        assert wrong.passed is False and wrong.counted == "" and progress.kept() == {"Self-test 3": False}
        letters = {f"q{n}": question.right for n, question in enumerate(read_quiz("ch03"), start=1)}
        right = checks.self_test_3(**letters)
        assert right.counted.startswith("(Chapter 3: 0 of ") and right.counted in repr(right)
        page = right._repr_html_()
        assert "<small>(Chapter 3: 0 of " in page and "<code>checks.progress()</code>" in page

    def test_no_answer_does_not(self, file):
        checks.EXERCISES["3.1"](None)
        checks.self_test_3()
        assert not file.exists()

    def test_only_in_a_notebook(self, file, monkeypatch):
        monkeypatch.undo()
        assert progress.count("Exercise 3.1", True) == ""
        assert not file.exists()

    def test_not_where_the_answers_are_the_courses(self, file, monkeypatch):
        monkeypatch.setattr(progress, "_uncounted", False)  # and back, after the test
        checks.uncounted()
        assert progress.count("Exercise 3.1", True) == "" and not file.exists()

    def test_appendix_c_does_not_count(self):
        source = (ROOT / "notebooks" / "appendix_c_solutions.ipynb").read_text(encoding="utf-8")
        assert "checks.uncounted()" in source

    def test_notebooks_that_run_at_once(self, file):
        code = "import sys; from helpers.course import progress; progress._in_a_notebook = lambda: True\n"
        code += "for number in range(20): progress.count(f'Exercise {sys.argv[1]}.{number}', True)"
        with ThreadPoolExecutor(3) as pool:
            calls = [
                pool.submit(subprocess.run, [sys.executable, "-c", code, str(chapter)], cwd=ROOT, check=True)
                for chapter in (3, 4, 5)
            ]
            for call in calls:
                call.result()
        assert len(progress.kept()) == 60 and all(progress.kept().values())

    def test_never_in_the_repository(self, monkeypatch):
        monkeypatch.delenv("COURSE_CACHE_DIR")
        assert ROOT not in progress.progress_file().resolve().parents


class TestDamage:
    @pytest.mark.parametrize("text", ["", "{", "[]", '{"Exercise 3.1": "yes"}', "\0", "null"])
    def test_a_damaged_file(self, file, text):
        """The verdict is given all the same, the file is named and left as it is."""
        file.parent.mkdir()
        file.write_text(text)
        said = progress.count("Exercise 3.1", True)
        assert said.startswith("(Not counted: ") and str(file) in said and "\n" not in said
        assert file.read_text() == text
        shown = progress.progress()
        assert "Delete the file to begin again." in repr(shown) and "Delete the file" in shown._repr_html_()
        assert "0 of " in repr(shown)

    def test_a_folder_that_cannot_be_written(self, file):
        file.parent.write_text("a file where the folder should be")
        assert progress.count("Exercise 3.1", True).startswith("(Not counted: ")


class TestOverview:
    def test_it_lists_every_exercise_once(self):
        rows = progress.progress().rows()
        assert sorted(number for row in rows for number in row.exercises) == sorted(checks.EXERCISES)
        assert sum(len(row.self_test) for row in rows) == len(checks.SELF_TESTS)
        numbers = [row.notebook.number for row in rows]
        assert numbers[:7] == list("1234567")

    def test_marks(self, file):
        progress.count("Exercise 2.1", True)
        progress.count("Exercise 2.2", False)
        progress.count("Self-test 2", True)
        shown = progress.progress()
        line = next(line for line in repr(shown).splitlines() if line.startswith("Chapter 2 "))
        assert " 1 of " in line and "✓ 2.1  ✗ 2.2  · 2.A" in line and line.endswith("✓ self-test")
        assert repr(shown).splitlines()[-1].startswith(f"1 of {len(checks.EXERCISES)} exercises solved")
        page = shown._repr_html_()
        assert page.count("✓</b>") == 2 and page.count("✗</b>") == 1
        assert page.count("<tr>") == 1 + len(shown.rows())

    def test_the_books_numbers_first(self):
        assert sorted(["3.B", "3.10", "3.2", "3.A"], key=progress._order) == ["3.2", "3.10", "3.A", "3.B"]
