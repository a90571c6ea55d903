"""Every exercise of the course has a checker, a cell, a solution that the checker accepts, and links both ways."""

import copy
import re
from pathlib import Path

import nbformat
import pytest

from helpers.course.checks import EXERCISES
from tests.notebooks import ROOT, SOLUTIONS, STATED, all_notebooks, exercise_headings, link, links, tags


def numbered(nb: nbformat.NotebookNode, kind: str) -> dict[str, nbformat.NotebookNode]:
    """The cells of a notebook with a tag such as `exercise:2.1`, by number."""
    return {tag.split(":")[1]: cell for cell in nb.cells for tag in tags(cell) if tag.startswith(f"{kind}:")}


def headings(nb: nbformat.NotebookNode) -> dict[str, tuple[str, nbformat.NotebookNode]]:
    """The line `### Exercise 2.1: title` of each exercise by number, and its cell."""
    cells = [cell for cell in nb.cells if cell.cell_type == "markdown"]
    return {found[1]: (found[0], cell) for cell in cells for found in STATED.finditer(cell.source)}


def problems(course: dict[str, nbformat.NotebookNode]) -> list[str]:
    """What is missing between exercises, checkers and solutions; `course` holds notebooks by path in notebooks/."""
    appendix, found = course[SOLUTIONS], []
    solutions, solved = numbered(appendix, "solution"), headings(appendix)
    exercises = {}
    for path, nb in course.items():
        if path == SOLUTIONS:
            found += [f"exercise {number} stands in the appendix of solutions" for number in numbered(nb, "exercise")]
            continue
        found += [f"solution {number} stands in {path}" for number in numbered(nb, "solution")]
        for number in numbered(nb, "exercise"):
            exercises[number] = path
            line, cell = headings(nb).get(number, ("", None))
            if not line:
                found.append(f"exercise {number} has no heading")
                continue
            if number not in solved:
                found.append(f"exercise {number} has no heading in the appendix of solutions")
                continue
            title, solution = solved[number]
            here, there = Path(path), Path(SOLUTIONS)
            if f"[appendix C]({link(here, there, solution.id)})" not in cell.source:
                found.append(f"exercise {number} does not lead to its solution: run make links")
            if title != line:
                found.append(f"exercise {number} has another title in the appendix: {title!r}")
            if f"[To the statement]({link(there, here, cell.id)})" not in solution.source:
                found.append(f"solution {number} does not lead back to its statement: run make links")
    found += [f"exercise {number} has no checker" for number in exercises if number not in EXERCISES]
    found += [f"exercise {number} has no solution" for number in exercises if number not in solutions]
    found += [f"solution {number} has no exercise" for number in solutions if number not in exercises]
    found += [f"no notebook uses the checker {number}" for number in EXERCISES if number not in exercises]
    for number, cell in solutions.items():
        verdicts = [output.data["text/plain"] for output in cell.outputs if output.output_type == "execute_result"]
        if len(verdicts) != 1 or not verdicts[0].startswith(f"Exercise {number}: right. "):
            found.append(f"solution {number} is not accepted: {verdicts}")
    return found


@pytest.fixture(scope="module")
def course() -> dict[str, nbformat.NotebookNode]:
    folder = ROOT / "notebooks"
    return {p.relative_to(folder).as_posix(): nbformat.read(p, as_version=4) for p in all_notebooks()}


def test_every_exercise_is_checked_solved_and_linked(course):
    assert problems(course) == []


def test_quizzes_are_answered(course):
    """The appendix runs every self-test of the course, with the right letters."""
    calls = {re.match(r"checks\.(self_test_\w+)\(", cell.source): cell for cell in course[SOLUTIONS].cells}
    answered = {match[1]: cell.outputs[0].data["text/plain"] for match, cell in calls.items() if match}
    sources = [cell.source for path, nb in course.items() if path != SOLUTIONS for cell in nb.cells]
    asked = {
        match[1] for source in sources for match in re.finditer(r"^checks\.(self_test_\w+)\(", source, re.MULTILINE)
    }
    assert set(answered) == asked
    for name, verdict in answered.items():
        assert re.match(r"Self-test \w+: right\. (\d+) of \1 right\.", verdict), (name, verdict)


def test_the_seam_fails_where_it_is_cut(course):
    """Each rule, broken once."""
    chapter = next(path for path in course if path.startswith("ch02"))

    def broken(change) -> list[str]:
        sample = copy.deepcopy(course)
        change(sample[chapter], sample[SOLUTIONS])
        return problems(sample)

    def retag(kind, tag):
        def change(nb, appendix):
            numbered(appendix if kind == "solution" else nb, kind)["2.1"].metadata["tags"] = [tag] if tag else []

        return change

    def edit(where, old, new):
        def change(nb, appendix):
            cell = headings(appendix if where == "appendix" else nb)["2.1"][1]
            assert old in cell.source
            cell.source = cell.source.replace(old, new)

        return change

    def verdict(nb, appendix):
        output = numbered(appendix, "solution")["2.1"].outputs[-1]
        output.data["text/plain"] = output.data["text/plain"].replace("right", "not yet", 1)

    cases = [
        (retag("solution", ""), "exercise 2.1 has no solution"),
        (retag("solution", "exercise:2.1"), "exercise 2.1 stands in the appendix"),
        (retag("exercise", ""), "solution 2.1 has no exercise"),
        (retag("exercise", ""), "no notebook uses the checker 2.1"),
        (retag("exercise", "solution:2.1"), f"solution 2.1 stands in {chapter}"),
        (retag("exercise", "exercise:2.9"), "exercise 2.9 has no heading"),
        (retag("exercise", "exercise:2.9"), "exercise 2.9 has no checker"),
        (edit("chapter", f"{SOLUTIONS}#", f"{SOLUTIONS}?"), "2.1 does not lead to its solution"),
        (edit("appendix", f"({chapter}#", "("), "2.1 does not lead back"),
        (edit("appendix", "### Exercise 2.1: ", "### Exercise 2.1: Other: "), "2.1 has another title"),
        (edit("appendix", "### Exercise", "### The exercise"), "2.1 has no heading in the appendix"),
        (verdict, "solution 2.1 is not accepted"),
    ]
    for change, message in cases:
        assert any(message in problem for problem in broken(change)), message


def test_links_are_stamped_both_ways(tmp_path):
    """`make links` puts the anchors in, in a chapter, a bonus notebook and the appendix."""

    def notebook(path, *texts):
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = [nbformat.v4.new_markdown_cell(text) for text in ("# Title", *texts)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    folder, heading = tmp_path / "notebooks", "### Exercise 9.1: Add one, and why?"
    bonus_heading = heading.replace("9.1", "bpe.9")
    text = "Add one. The solution is in [appendix C]({}appendix_c_solutions.ipynb)."
    chapter = notebook(folder / "ch09_sample.ipynb", f"{heading}\n\n{text.format('')}")
    bonus = notebook(folder / "bonus" / "bpe.ipynb", f"{bonus_heading}\n\n{text.format('../')}")
    back = [f"{line}\n\n*[To the statement](old.ipynb#Old)*" for line in (heading, bonus_heading)]
    appendix = notebook(folder / SOLUTIONS, *back)
    statements, solutions = exercise_headings(tmp_path)
    assert set(statements) == set(solutions) == {"9.1", "bpe.9"}
    for path in (chapter, bonus, appendix):
        assert links(path, tmp_path) and not links(path, tmp_path)
    ids = {path: [cell.id for cell in nbformat.read(path, as_version=4).cells] for path in (chapter, bonus, appendix)}
    assert f"({SOLUTIONS}#cell-id={ids[appendix][1]})" in chapter.read_text()
    assert f"(../{SOLUTIONS}#cell-id={ids[appendix][2]})" in bonus.read_text()
    assert f"(ch09_sample.ipynb#cell-id={ids[chapter][1]})" in appendix.read_text()
    assert f"(bonus/bpe.ipynb#cell-id={ids[bonus][1]})" in appendix.read_text()


def test_a_solution_is_in_its_notebooks_section():
    """Each section names its notebook, and its exercises lead to statements there and nowhere else."""
    section, found = None, 0
    for cell in nbformat.read(ROOT / "notebooks" / SOLUTIONS, as_version=4).cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            notebook = re.search(r"^From \[.*?\]\((.*?)\)", cell.source, re.MULTILINE)
            section = notebook and notebook[1]
        elif statement := re.search(r"\[To the statement\]\((.*?)#", cell.source):
            found += 1
            assert statement[1] == section, cell.source.splitlines()[0]
    assert found > 100
