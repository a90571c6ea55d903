"""The references of the course: read from one file, validated, filtered, and shown as a table with links.

`assets/references.json` holds one record for each reference, in the order of the notebooks and then of the years; its
`chapters` are numbers from `chapters.py`. The year is that of the first public version: what is cited as "Loshchilov
and Hutter, 2019", after the conference, is from 2017 here, as its arXiv id 1711.05101 says. A page of documentation
has the year in which what it describes was first released. pandas loads on use.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..files import read_json
from .chapters import NOTEBOOKS

if TYPE_CHECKING:
    import pandas as pd

PATH = Path(__file__).parents[1] / "assets" / "references.json"
FIELDS = ("chapters", "title", "authors", "year", "kind", "link", "why")
KINDS = ("paper", "book", "code", "data", "post")  # a post is an article, page of documentation or lecture on the web

# What a reference can belong to: each notebook's number and the first line of the notebook, in course order.
CHAPTERS = {notebook.number: notebook.heading for notebook in NOTEBOOKS}

EARLIEST, LATEST = 1900, 2026  # a year outside is taken for a typing error
SHORTEST, LONGEST = 40, 160  # characters of a note
_ARXIV = re.compile(r"https://arxiv\.org/abs/(\d{2})(0[1-9]|1[0-2])\.(\d{4,5})")
_LINK = re.compile(r"https://[a-z0-9.-]+\.[a-z]{2,}(/[\w.~:/()%?=&#-]*)?", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\b(TODO|TBD|FIXME|XXX|lorem|placeholder|unknown|et al)\b|\?\?|\.\.\.|…", re.IGNORECASE)


def load_references(path: Path = PATH) -> pd.DataFrame:
    """The references as a table with the columns FIELDS; `chapters` holds tuples such as ("1", "3").

    Raises ValueError, with all problems in its message, if the file is not in order.
    """
    import pandas as pd

    records = read_json(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{Path(path).name} is not a list of references")
    problems = list(find_problems(records))
    if problems:
        raise ValueError(f"{Path(path).name} is not in order:\n" + "\n".join(problems))
    table = pd.DataFrame(records, columns=list(FIELDS))
    table["chapters"] = table["chapters"].map(tuple)
    return table


def find_problems(records: Sequence[Mapping]) -> Iterator[str]:
    """What is wrong with a list of records, one line per problem. Does not visit the links."""
    well_formed = []
    for number, record in enumerate(records, start=1):
        name = f"record {number} ({str(record.get('title', 'without a title'))[:40]})"
        if tuple(record) != FIELDS:
            yield f"{name}: the fields must be {', '.join(FIELDS)}, in this order"
            continue
        found = list(_record_problems(record))
        yield from (f"{name}: {problem}" for problem in found)
        if not found:
            well_formed.append(record)
    for field in ("title", "link", "why"):
        counts = Counter(_plain(record[field]) for record in well_formed)
        yield from (f"the {field} {text!r} occurs {count} times" for text, count in counts.items() if count > 1)
    if [_place(record) for record in well_formed] != sorted(_place(record) for record in well_formed):
        yield "the records are not sorted by first chapter, year and title"


def _record_problems(record: Mapping) -> Iterator[str]:
    texts = [record[field] for field in ("title", "authors", "kind", "link", "why")]
    if not all(isinstance(text, str) and text and text == " ".join(text.split()) for text in texts):
        yield "title, authors, kind, link and why must be non-empty texts without needless spaces"
        return
    chapters, year = record["chapters"], record["year"]
    if not isinstance(chapters, list) or not chapters or not all(chapter in CHAPTERS for chapter in chapters):
        yield f"chapters={chapters!r} is not a list of some of {', '.join(CHAPTERS)}"
    elif chapters != [chapter for chapter in CHAPTERS if chapter in chapters]:
        yield f"chapters={chapters!r} must be in the order of the course, each once"
    if record["kind"] not in KINDS:
        yield f"kind={record['kind']!r} is not one of {', '.join(KINDS)}"
    if not isinstance(year, int) or not EARLIEST <= year <= LATEST:
        yield f"year={year!r} is not a year from {EARLIEST} to {LATEST}"
    if not _LINK.fullmatch(record["link"]):
        yield f"link={record['link']!r} is not a well-formed https address"
    elif urlsplit(record["link"]).hostname == "arxiv.org":
        arxiv = _ARXIV.fullmatch(record["link"])
        if not arxiv or (len(arxiv[3]) == 5) != (arxiv[1] >= "15"):  # five digits since January 2015
            yield f"link={record['link']!r} is not of the form https://arxiv.org/abs/1706.03762"
        elif 2000 + int(arxiv[1]) != year:
            yield f"year={year!r}, but the arXiv id is from 20{arxiv[1]}"
    if not SHORTEST <= len(record["why"]) <= LONGEST:
        yield f"why has {len(record['why'])} characters; {SHORTEST} to {LONGEST} are expected"
    if not record["why"].endswith((".", "?")):
        yield "why must end like a sentence"
    for text in texts:
        if match := _PLACEHOLDER.search(text):
            yield f"{match[0]!r} looks like a placeholder"


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def _place(record: Mapping) -> tuple[int, int, str]:
    return list(CHAPTERS).index(record["chapters"][0]), record["year"], record["title"].casefold()


def select(table: pd.DataFrame, chapter: str | None = None, kind: str | None = None, word: str = "") -> pd.DataFrame:
    """The rows that belong to a chapter (a key of CHAPTERS), are of a kind, and have `word` in title or authors.

    Upper and lower case do not matter in `word`; None and "" select everything. Raises ValueError for an unknown
    chapter or kind.
    """
    if chapter is not None and chapter not in CHAPTERS:
        raise ValueError(f"chapter={chapter!r} is unknown; expected one of {', '.join(CHAPTERS)}")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown; expected one of {', '.join(KINDS)}")
    wanted = " ".join(word.casefold().split())
    keep = (table["title"] + " " + table["authors"]).str.casefold().str.contains(wanted, regex=False)
    if chapter is not None:
        keep &= table["chapters"].map(lambda chapters: chapter in chapters)
    if kind is not None:
        keep &= table["kind"] == kind
    return table[keep]


def to_html(table: pd.DataFrame, grouped: bool = True) -> str:
    """The references as an HTML table with working links.

    With `grouped`, each stands once under the first of its chapters, and the others are named in its row; without,
    there are no such headings, and the row names all its chapters.
    """
    cell = 'style="text-align: left; vertical-align: top"'
    names = {notebook.number: notebook.name for notebook in NOTEBOOKS}
    rows, group = [], None
    for row in table.itertuples():
        if grouped and row.chapters[0] != group:
            group = row.chapters[0]
            rows.append(f'<tr><th colspan="3" {cell}>{html.escape(CHAPTERS[group])}</th></tr>')
        named = ", ".join(names[chapter] for chapter in (row.chapters[1:] if grouped else row.chapters))
        places = f"<br><i>{'also ' if grouped else ''}for {html.escape(named)}</i>" if named else ""
        link = f'<a href="{html.escape(row.link)}" target="_blank" rel="noopener">{html.escape(row.title)}</a>'
        rows.append(
            f"<tr><td {cell}>{link}<br>{html.escape(row.authors)}</td>"
            f"<td {cell}>{row.year}<br>{row.kind}</td><td {cell}>{html.escape(row.why)}{places}</td></tr>"
        )
    titles = ("title, authors", "year, kind", "why read it")
    head = "".join(f'<th scope="col" {cell}>{title}</th>' for title in titles)
    count = f"{len(table)} reference{'' if len(table) == 1 else 's'}"
    return f"<p>{count}</p><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
