"""The references: the file is in order, what is out of order is found; filter, table, figures and notebook agree."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import pytest

from helpers.course import references
from helpers.course.chapters import NOTEBOOKS
from helpers.course.checks import EXERCISES
from helpers.course.references import CHAPTERS, KINDS, find_problems, load_references, select, to_html
from tests.notebooks import ROOT, all_notebooks

mpl.use("Agg")
RECORDS = json.loads(references.PATH.read_text(encoding="utf-8"))
NOTEBOOK = ROOT / "notebooks" / "appendix_b_references.ipynb"


@pytest.fixture(scope="module")
def table():
    return load_references()


class TestFile:
    def test_is_in_order(self):
        assert list(find_problems(RECORDS)) == []

    def test_has_enough_of_each(self, table):
        assert len(table) >= 200
        assert set(table["kind"]) == set(KINDS)
        for chapter in "1234567ADE":
            assert len(select(table, chapter=chapter)) >= 10, CHAPTERS[chapter]

    @pytest.mark.parametrize("chapter", CHAPTERS)
    def test_every_notebook_has_a_reference(self, table, chapter):
        assert len(select(table, chapter=chapter)) >= 1, f"add a reference for {CHAPTERS[chapter]} to references.json"

    def test_is_written_the_way_it_is_read(self):
        """One record a block, no byte that is not UTF-8, so that a change shows as a small difference."""
        text = references.PATH.read_text(encoding="utf-8")
        blocks = [json.dumps(record, ensure_ascii=False, indent=2) for record in RECORDS]
        assert text == "[\n" + ",\n".join(blocks) + "\n]\n"

    @pytest.mark.parametrize(
        ("part", "year"),
        [
            ("Attention Is All You Need", 2017),
            ("Decoupled Weight Decay Regularization", 2017),  # ICLR 2019
            ("Adam: A Method for Stochastic Optimization", 2014),  # ICLR 2015
            ("The Curious Case of Neural Text Degeneration", 2019),  # ICLR 2020
            ("The Verdict", 1908),
            ("Language Models are Unsupervised Multitask Learners", 2019),
            ("LoRA: Low-Rank Adaptation of Large Language Models", 2021),
        ],
    )
    def test_years_are_those_of_the_first_version(self, table, part, year):
        assert table.loc[table["title"] == part, "year"].tolist() == [year]

    def test_sections_and_exercises_in_the_notes_exist(self, table):
        """ "Section 4.6" is one of the course, "its section 3.2.1" one of the paper's."""
        cells = [cell for path in all_notebooks() for cell in nbformat.read(path, as_version=4).cells]
        prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        there = set(re.findall(r"^#+ ([1-7A-E](?:\.\d+)+) ", prose, re.MULTILINE))
        notes = "\n".join(table["why"])
        sections = set(re.findall(r"(?<![Ii]ts )section ([1-7A-E](?:\.\d+)+)", notes))
        exercises = set(re.findall(r"exercise (\w+\.\w+)", notes, re.IGNORECASE))
        assert len(sections) > 10 and sections <= there, sections - there
        assert len(exercises) > 2 and exercises <= set(EXERCISES), exercises - set(EXERCISES)

    def test_many_authors_are_cut_after_three(self, table):
        for authors in table["authors"]:
            names = re.split(r", | and (?!others$)", authors.removesuffix(" and others"))
            assert len(names) == 3 if authors.endswith(" and others") else len(names) <= 4, authors


def changed(number=0, **fields):
    """The records with some fields of one changed."""
    records = copy.deepcopy(RECORDS)
    records[number] |= fields
    return records


def number_of(text):
    """The number of the record whose link or title holds a text."""
    (number,) = [at for at, record in enumerate(RECORDS) if text in record["link"] or text == record["title"]]
    return number


def one_problem(records):
    (problem,) = find_problems(records)
    return problem


GPT3 = number_of("2005.14165")


class TestProblems:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"link": "http://arxiv.org/abs/2005.14165"}, "not a well-formed https address"),
            ({"link": "https://arxiv.org/abs/2005.14165 "}, "needless spaces"),
            ({"link": "https://arxiv.org/a b"}, "not a well-formed https address"),
            ({"link": "https://localhost/paper"}, "not a well-formed https address"),
            ({"link": "arxiv.org/abs/2005.14165"}, "not a well-formed https address"),
            ({"link": "https://arxiv.org/pdf/2005.14165"}, "not of the form"),
            ({"link": "https://arxiv.org/abs/2005.14165v4"}, "not of the form"),
            ({"link": "https://arxiv.org/abs/2005.1416"}, "not of the form"),
            ({"link": "https://arxiv.org/abs/2013.14165"}, "not of the form"),
            ({"link": "https://arxiv.org/abs/1905.99999"}, "the arXiv id is from 2019"),
            ({"year": 2019}, "the arXiv id is from 2020"),
            ({"year": "2020"}, "is not a year"),
            ({"year": 1820}, "is not a year"),
            ({"year": 2031}, "is not a year"),
            ({"kind": "article"}, "is not one of paper, book, code, data, post"),
            ({"chapters": []}, "chapters=[] is not a list of some of 1, 2"),
            ({"chapters": ["8"]}, "is not a list of some of"),
            ({"chapters": ["bonus-planned"]}, "is not a list of some of"),
            ({"chapters": "1"}, "is not a list of some of"),
            ({"chapters": ["5", "1"]}, "in the order of the course"),
            ({"chapters": ["1", "1"]}, "in the order of the course"),
            ({"title": ""}, "needless spaces"),
            ({"title": "Language  Models"}, "needless spaces"),
            ({"title": None}, "must be non-empty texts"),
            ({"authors": "TODO"}, "'TODO' looks like a placeholder"),
            ({"authors": "Tom Brown et al."}, "looks like a placeholder"),
            ({"why": "Worth it."}, "has 9 characters"),
            ({"why": "long " * 40 + "enough."}, "characters; 40 to 160 are expected"),
            ({"why": "This one sentence is long enough but has no end"}, "end like a sentence"),
            ({"why": "Fill in what there is to say about this one here ... later."}, "looks like a placeholder"),
        ],
    )
    def test_a_bad_field_is_found(self, fields, message):
        first, *others = find_problems(changed(GPT3, **fields))
        assert message in first
        assert all(problem.startswith(f"record {GPT3 + 1} (") for problem in (first, *others))
        assert len(others) == ("is not a year" in message)  # such a year does not agree with the arXiv id either

    @pytest.mark.parametrize("field", ["title", "link", "why"])
    def test_nothing_twice(self, field):
        """Neighbours of the same year, so that the order stays right; case and punctuation make no difference."""
        a, b = number_of("1409.0473"), number_of("1409.3215")
        twin = RECORDS[a][field].upper().replace("HTTPS://ARXIV.ORG/ABS", "https://arxiv.org/abs")
        assert "occurs 2 times" in "\n".join(find_problems(changed(b, **{field: twin})))

    def test_order(self):
        records = copy.deepcopy(RECORDS)
        records[3], records[4] = records[4], records[3]
        assert "not sorted" in one_problem(records)

    @pytest.mark.parametrize("field", references.FIELDS)
    def test_a_missing_field(self, field):
        records = copy.deepcopy(RECORDS)
        del records[GPT3][field]
        assert "the fields must be" in one_problem(records)

    def test_loading_says_it_all(self, tmp_path):
        path = tmp_path / "list.json"
        records = changed(GPT3, year=1820)
        records[0]["kind"] = "film"
        path.write_text(json.dumps(records), encoding="utf-8")
        with pytest.raises(ValueError, match=r"(?s)list\.json is not in order.*film.*1820"):
            load_references(path)


class TestSelect:
    def test_everything(self, table):
        assert len(select(table)) == len(select(table, None, None, "")) == len(table)

    def test_chapter(self, table):
        found = select(table, chapter="C")
        assert set(found["chapters"]) == {("C",)}
        assert "Attention Is All You Need" in set(select(table, chapter="4")["title"])  # first listed under chapter 1

    def test_kind_and_word_act_together(self, table):
        assert select(table, kind="code", word="karpathy")["title"].tolist() == ["nanoGPT", "micrograd", "minbpe"]
        assert select(table, "5", "code", "karpathy")["title"].tolist() == ["nanoGPT"]

    @pytest.mark.parametrize("word", ["bahdanau", "BAHDANAU", "  Bahdanau ", "jointly learning"])
    def test_case_and_spaces(self, table, word):
        assert select(table, word=word)["title"].tolist() == [RECORDS[number_of("1409.0473")]["title"]]

    def test_the_word_is_no_pattern(self, table):
        assert len(select(table, word="(gelus)")) == 1
        assert len(select(table, word="[")) == len(select(table, word=".*")) == 0

    def test_unknown(self, table):
        with pytest.raises(ValueError, match="chapter='8' is unknown; expected one of 1, 2"):
            select(table, chapter="8")
        with pytest.raises(ValueError, match="kind='film' is unknown; expected one of paper"):
            select(table, kind="film")


class Reader(HTMLParser):
    """Links and headings of a piece of HTML; raises AssertionError if its tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.links, self.words, self.open = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag == "a":
            self.links.append(dict(attributes)["href"])
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


class TestHtml:
    @pytest.mark.parametrize("grouped", [True, False])
    def test_is_complete(self, table, grouped):
        page = Reader(to_html(table, grouped))
        assert page.links == table["link"].tolist()
        text = " ".join(page.words)
        for record in RECORDS:
            assert all(record[field] in text for field in ("title", "authors", "why"))
        groups = [CHAPTERS[chapter] for chapter in dict.fromkeys(chapters[0] for chapters in table["chapters"])]
        assert [word for word in page.words if word in CHAPTERS.values()] == (groups if grouped else [])

    def test_one_and_none(self, table):
        assert "<p>1 reference</p>" in to_html(select(table, word="tiktoken"))
        assert Reader(to_html(select(table, word="no such thing"))).links == []

    def test_escapes(self, table):
        row = table.iloc[[0]].assign(title="<script>", authors="A & B", why='"quoted" <i>', link="https://x.org/?a&b")
        text = to_html(row)
        assert "<script>" not in text
        assert "A &amp; B" in text
        assert Reader(text).links == ["https://x.org/?a&b"]

    def test_other_chapters_are_named(self, table):
        row = table[table["title"] == "Attention Is All You Need"]
        assert "also for chapter 3, chapter 4<" in to_html(row)
        assert ">for chapter 1, chapter 3, chapter 4<" in to_html(row, grouped=False)

        row = table[table["title"] == "Direct Preference Optimization: Your Language Model is Secretly a Reward Model"]
        assert "also for bonus &quot;Preference tuning with DPO&quot;<" in to_html(row)


class TestFigures:
    def test_ideas_come_from_the_list_and_time_runs_down(self, table):
        from helpers.course.figures import appendix_b as figures

        years = dict(zip(table["title"], table["year"], strict=True))
        when = {name: years[title] for name, (_, title) in figures.IDEAS.items()}
        assert {lane for lane, _ in figures.IDEAS.values()} == set(figures.LANES)
        assert {name for arrow in figures.ARROWS for name in arrow[:2]} == set(figures.IDEAS)
        assert all(when[source] < when[target] for source, target, _ in figures.ARROWS)
        spots = [(lane, when[name]) for name, (lane, _) in figures.IDEAS.items()]
        assert len(spots) == len(set(spots)), "two boxes in one place"
        plt.close(figures.ideas(table))

    def test_timeline_has_a_dot_for_each(self, table):
        from helpers.course.figures import appendix_b as figures

        fig = figures.timeline(table)
        dots = [line for line in fig.axes[0].lines if line.get_marker() == "o"]
        points = {(x, y) for line in dots for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}
        assert sum(len(line.get_xdata()) for line in dots) == len(points) == len(table)
        labels = [label.get_text() for label in fig.axes[0].get_yticklabels()]
        main = [notebook for notebook in NOTEBOOKS if notebook.kind != "bonus"]
        assert labels == [*(f"{notebook.number}. {notebook.title}" for notebook in main), "bonus notebooks"]
        first_of_bonus = [chapters[0] for chapters in table["chapters"] if len(chapters[0]) > 1]
        assert sum(y > len(main) - 0.5 for _, y in points) == len(first_of_bonus)
        plt.close(fig)


class TestNotebook:
    def test_links_in_prose_are_in_the_list(self, table):
        cells = nbformat.read(NOTEBOOK, as_version=4).cells
        prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        found = set(re.findall(r"\]\((https://[^)\s]+)\)", prose))
        found = {link for link in found if "colab.research.google.com" not in link}
        assert len(found) > 50
        assert found <= set(table["link"])

    def test_the_whole_table_is_on_the_page(self, table):
        cells = nbformat.read(NOTEBOOK, as_version=4).cells
        found = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
        assert [data["text/html"] for data in found if "<table" in data.get("text/html", "")] == [to_html(table)]


def test_pandas_loads_on_use():
    code = "import sys, helpers; before = set(sys.modules); import helpers.course.references; "
    code += "print('pandas' in set(sys.modules) - before)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert (result.stdout.strip(), result.stderr) == ("False", "")
