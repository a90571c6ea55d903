"""Makes the embedded instruction set from its seeds: `python -m helpers.make.instruction_set` writes its files again.

Some kinds of task are written out in full, one entry per line (`seeds/written`). The others put material
(`seeds/material`, or random numbers) into the gaps of a number of phrasings (`seeds/phrasings`), where each phrasing
of a request comes with the form of its answer. All is drawn from seeded generators, one for each kind, so that the
files come out the same, byte for byte, on every machine: `instructions.json`, and `kinds.json` with the kind of task of
each entry, which `helpers.texts.kind_of` reads.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ..texts import EMBEDDED_INSTRUCTIONS, INSTRUCTION_KINDS

INSTRUCTIONS_FILE = EMBEDDED_INSTRUCTIONS["instructions"]
_SEEDS = INSTRUCTIONS_FILE.parent / "seeds"
_SEED = 123

Entry = dict[str, str]  # "instruction", "input" (may be empty) and "output"
_Filling = tuple[str, dict[str, str]]  # the name of a list of phrasings, and what fills the gaps of one of them

# Kinds whose material is a table: the phrasings have gaps named as its columns.
_TABLES = (
    "antonyms",
    "category",
    "opinion",
    "parts_of_speech",
    "passive",
    "past_tense",
    "plural",
    "repeat",
    "rhyme",
    "spelling",
    "swap",
    "synonyms",
    "tense",
)

# How many of the smaller unit make one of the larger.
UNITS = (
    ("centimeters", "meters", 100),
    ("millimeters", "centimeters", 10),
    ("meters", "kilometers", 1000),
    ("grams", "kilograms", 1000),
    ("milliliters", "liters", 1000),
    ("seconds", "minutes", 60),
    ("minutes", "hours", 60),
    ("hours", "days", 24),
    ("days", "weeks", 7),
    ("months", "years", 12),
    ("years", "centuries", 100),
    ("inches", "feet", 12),
    ("feet", "yards", 3),
    ("cents", "dollars", 100),
)


def make_entries() -> list[Entry]:
    """All entries in the order of the file; each is a dictionary of "instruction", "input" and "output"."""
    return [dict(entry) for _, entry in _in_order()]


def kinds() -> list[str]:
    """The kind of task of each entry, in the order of the file, such as "antonyms" or "arithmetic"."""
    return [kind for kind, _ in _in_order()]


def write_instructions(folder: Path | str = INSTRUCTIONS_FILE.parent) -> None:
    """Write `instructions.json`, formatted as the book's instruction set is, and `kinds.json` beside it."""
    folder = Path(folder)
    (folder / INSTRUCTIONS_FILE.name).write_bytes(json.dumps(make_entries(), indent=4).encode())
    (folder / INSTRUCTION_KINDS.name).write_bytes(json.dumps(kinds(), indent=0).encode())


@cache
def _in_order() -> list[tuple[str, Entry]]:
    """All kinds and entries, shuffled so that each stretch of the list holds its fair share of every kind.

    Entry i of the n of its kind gets a random place between i/n and (i + 1)/n of the whole way.
    """
    rng, placed = random.Random(f"{_SEED} order"), []
    for kind, entries in _by_kind().items():
        rng.shuffle(entries)
        placed += [((i + rng.random()) / len(entries), kind, entry) for i, entry in enumerate(entries)]
    placed.sort(key=lambda place: place[0])
    return [(kind, entry) for _, kind, entry in placed]


def _by_kind() -> dict[str, list[Entry]]:
    written = sorted((_SEEDS / "written").glob("*.txt"))
    entries = {path.stem: [_entry(line) for line in _lines(path)] for path in written}
    for kind in _TABLES:
        header, *rows = (line.split(" | ") for line in _lines(_SEEDS / "material" / f"{kind}.txt"))
        fillings = [(kind, dict(zip(header, row, strict=True))) for row in rows]
        entries[kind] = _phrased(kind, fillings)
    for fillings in (_arithmetic, _conversion, _counting, _letters, _ordering):
        kind = fillings.__name__.strip("_")
        entries[kind] = _phrased(kind, list(fillings(random.Random(f"{_SEED} {kind} material"))))
    return entries


def _arithmetic(rng: random.Random) -> Iterator[_Filling]:
    for a, b in _number_pairs(rng, 12, 2, 60):
        yield "addition", {"a": f"{a}", "b": f"{b}", "answer": f"{a + b}"}
    for a, b in _number_pairs(rng, 12, 2, 40):
        yield "subtraction", {"a": f"{a + b}", "b": f"{b}", "answer": f"{a}"}
    for a, b in _number_pairs(rng, 10, 2, 12):
        yield "multiplication", {"a": f"{a}", "b": f"{b}", "answer": f"{a * b}"}
    for a, b in _number_pairs(rng, 8, 2, 10):
        yield "division", {"a": f"{a * b}", "b": f"{b}", "answer": f"{a}"}


def _conversion(rng: random.Random) -> Iterator[_Filling]:
    for i, (small, large, factor) in enumerate(UNITS):
        many = rng.randint(2, 9)
        yield "conversion", {"a": f"{many}", "from": large, "to": small, "answer": f"{many * factor}"}
        if i < 12:
            many = rng.choice([number for number in range(2, 10) if number != many])
            yield "conversion", {"a": f"{many * factor}", "from": small, "to": large, "answer": f"{many}"}


def _counting(rng: random.Random) -> Iterator[_Filling]:
    words = rng.sample(_lines(_SEEDS / "material" / "words.txt")[1:], 14)
    for word in words[:8]:
        yield "count_letters", {"word": word, "answer": f"{len(word)}"}
    for word in words[8:]:
        letter = max(sorted(set(word)), key=word.count)
        times = {1: "once", 2: "twice", 3: "three times"}[word.count(letter)]
        yield "count_letter", {"word": word, "letter": letter, "times": times}
    for sentence in rng.sample(_lines(_SEEDS / "material" / "sentences.txt")[1:], 10):
        yield "count_words", {"sentence": sentence, "answer": f"{len(sentence.split())}"}


def _letters(rng: random.Random) -> Iterator[_Filling]:
    words = rng.sample(_lines(_SEEDS / "material" / "words.txt")[1:], 22)
    for word in words[:12]:
        yield "first_letter", {"word": word, "letter": word[0]}
    for word in words[12:]:
        yield "last_letter", {"word": word, "letter": word[-1]}


def _ordering(rng: random.Random) -> Iterator[_Filling]:
    words = _lines(_SEEDS / "material" / "words.txt")[1:]
    for name, choice in (("ascending", range(1, 100)), ("descending", range(1, 100)), ("alphabet", words)):
        for _ in range(8):
            right = sorted(rng.sample(choice, rng.randint(3, 4)), reverse=name == "descending")
            given = list(right)
            while given == right:
                rng.shuffle(given)
            yield name, {"items": _listed(given), "answer": _listed(right), "first": f"{right[0]}"}


def _number_pairs(rng: random.Random, count: int, low: int, high: int) -> list[tuple[int, int]]:
    """`count` different pairs of numbers from low to high, both included."""
    return rng.sample([(a, b) for a in range(low, high + 1) for b in range(low, high + 1)], count)


def _listed(items: list) -> str:
    return ", ".join(map(str, items))


def _phrased(kind: str, fillings: list[_Filling]) -> list[Entry]:
    """One entry for each filling. The phrasings take turns, so that none is used much more often than another."""
    rng, waiting, entries = random.Random(f"{_SEED} {kind} phrasings"), {}, []
    rng.shuffle(fillings)
    for name, values in fillings:
        if not waiting.get(name):
            waiting[name] = _lines(_SEEDS / "phrasings" / f"{name}.txt")
            rng.shuffle(waiting[name])
        values = dict(values)
        if kind == "spelling":
            wrong, right, sentence = values["wrong"], values["right"], values["sentence"]
            values["misspelled"] = sentence.replace(right, wrong).replace(_capital(right), _capital(wrong))
        values |= {f"a_{name}": _with_article(value) for name, value in values.items()}
        values |= {_capital(name): _capital(value) for name, value in values.items()}
        entries.append(_entry(waiting[name].pop().format_map(values)))
    return entries


def _entry(line: str) -> Entry:
    """The entry of a line "instruction | output" or "instruction | input | output"; \\n in it begins a new line."""
    instruction, *inputs, output = line.replace("\\n", "\n").split(" | ")
    return {"instruction": instruction, "input": "".join(inputs), "output": output}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _with_article(text: str) -> str:
    return ("an " if text[:1] in "aeiou" else "a ") + text


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    write_instructions()
    print(f"{INSTRUCTIONS_FILE}: {len(kinds())} entries of {len(set(kinds()))} kinds")
