"""Makes the embedded instruction set from its seeds: `python -m helpers.make.instruction_set` writes its files again.

The kinds of task are in `instruction_kinds` and `instruction_facts`, the words in `instruction_words`, a small grammar
in `instruction_grammar`. All is drawn from seeded generators, so that the files come out the same, byte for byte, on
every machine: `instructions.json`, and `kinds.json` with the kind of task of each entry, which `helpers.texts.kind_of`
reads.

    python -m helpers.make.instruction_set --practice 20000 practice.json   # more entries to train on
    python -m helpers.make.instruction_set --unseen 300 unseen.json         # test requests of words set aside

Neither the training part of the 1,300 nor the practice entries share with the test requests what a kind's test is
about: for skills (grammar, choosing, copying) the words, for facts the phrasing of the fact.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache, partial
from itertools import islice
from pathlib import Path

from ..files import write_whole
from ..texts import EMBEDDED_INSTRUCTIONS, GROUPS, INSTRUCTION_KINDS
from .instruction_facts import FACTS, facts
from .instruction_grammar import capital, with_article
from .instruction_kinds import SKILLS
from .instruction_words import ASIDE, Words, draw_number, lines_of

INSTRUCTIONS_FILE = EMBEDDED_INSTRUCTIONS["instructions"]
_SEED = 123
_TRIES = 200  # a kind that gives no new request in so many draws has no more

Entry = dict[str, str]  # "instruction", "input" (may be empty) and "output"

# How many of the 1,300 entries are of each kind; the practice entries have the same shares.
COUNTS = {
    "plural": 34,
    "past_tense": 30,
    "tense": 55,
    "negative": 36,
    "question": 36,
    "passive": 34,
    "article": 28,
    "agreement": 36,
    "comparison": 26,
    "grammar": 36,
    "pick": 45,
    "category": 40,
    "odd_one_out": 36,
    "opinion": 45,
    "feelings": 25,
    "compare": 30,
    "reading": 45,
    "yes_no": 33,
    "repeat": 46,
    "first_and_last": 38,
    "swap": 32,
    "reverse": 26,
    "replace": 24,
    "punctuation": 20,
    "letters": 28,
    "ordering": 20,
    "antonyms": 45,
    "synonyms": 30,
    "rhyme": 25,
    "polite": 30,
    "animals": 38,
    "definitions": 32,
    "colors": 18,
    "calendar": 23,
    "jobs": 15,
    "uses": 15,
    "completion": 15,
    "arithmetic": 20,
    "counting": 16,
    "numbers": 16,
    "advice": 15,
    "creative": 15,
    "sentences": 18,
    "lists": 15,
    "similes": 15,
}
_TEST, _VALIDATION = 130, 65  # the parts that chapter 7 cuts off at the end


def make_entries() -> list[Entry]:
    """All entries in the order of the file; each is a dictionary of "instruction", "input" and "output"."""
    return [dict(entry) for _, entry in _in_order()]


def kinds() -> list[str]:
    """The kind of task of each entry, in the order of the file, such as "antonyms" or "arithmetic"."""
    return [kind for kind, _ in _in_order()]


def practice_entries(count: int, seed: int = _SEED, factors: Mapping[str, float] | None = None) -> list[Entry]:
    """`count` different entries to train on: what `draw` gives, without the kinds."""
    return [entry for _, entry in draw(count, seed, factors=factors)]


def unseen_entries(count: int, seed: int = _SEED) -> list[Entry]:
    """`count` different test requests of the skills, of words that no entry to train on uses in that kind.

    None of them is in the embedded set. Raises ValueError as `draw`.
    """
    return [entry for _, entry in draw(count, seed, unseen=True)]


def draw(
    count: int, seed: int = _SEED, unseen: bool = False, factors: Mapping[str, float] | None = None
) -> list[tuple[str, Entry]]:
    """`count` kinds and entries to practice with, or test requests of the skills (`unseen`); no request comes twice.

    The kinds have their shares of the embedded set as far as they have so many entries: facts and handwritten lines
    come to an end, skills go on. `factors` multiplies the shares of the kinds of some groups of `helpers.texts.GROUPS`.
    Raises ValueError if there are fewer than `count` different entries.
    """
    shares = COUNTS | {
        kind: COUNTS[kind] * factor for group, factor in (factors or {}).items() for kind in GROUPS[group]
    }
    rng, seed_text = random.Random(f"{seed} kinds {unseen}"), f"{seed} {unseen}"
    seen = {_request(entry) for entry in make_entries()} if unseen else set()
    kinds = SKILLS if unseen else COUNTS
    sources = {kind: _entries(kind, unseen, random.Random(f"{seed_text} {kind}"), seen) for kind in kinds}
    drawn: list[tuple[str, Entry]] = []
    while len(drawn) < count and sources:
        kind = rng.choices(list(sources), [shares[kind] for kind in sources])[0]
        entry = next(sources[kind], None)
        if entry is None:
            del sources[kind]
        else:
            drawn.append((kind, entry))
    if len(drawn) < count:
        raise ValueError(f"count={count}, but there are only {len(drawn)} different entries")
    return drawn


def write_instructions(folder: Path | str = INSTRUCTIONS_FILE.parent) -> None:
    """Write `instructions.json`, formatted as the book's instruction set is, and `kinds.json` beside it."""
    folder = Path(folder)
    (folder / INSTRUCTIONS_FILE.name).write_bytes(json.dumps(make_entries(), indent=4).encode())
    (folder / INSTRUCTION_KINDS.name).write_bytes(json.dumps(kinds(), indent=0).encode())


@cache
def _in_order() -> list[tuple[str, Entry]]:
    """All kinds and entries of the embedded set: those to train on, then test, then validation, each shuffled."""
    test, validation, seen = _parts(COUNTS, _TEST), _parts(COUNTS, _VALIDATION), set()
    parts: tuple[dict[str, list[Entry]], ...] = ({}, {}, {})
    for kind, count in COUNTS.items():
        counts = (count - test[kind] - validation[kind], test[kind], validation[kind])
        for part, entries in zip(parts, _shown(kind, counts, seen), strict=True):
            part[kind] = entries
    return [placed for number, part in enumerate(parts) for placed in _spread(part, number)]


def _shown(kind: str, counts: tuple[int, int, int], seen: set[str]) -> tuple[list[Entry], list[Entry], list[Entry]]:
    """The embedded entries of a kind: to train on, to test, to validate. Their requests are put into `seen`.

    Of facts only some are shown, each in two or three phrasings to train on; the test asks for the same ones.
    """
    train, test, validation = counts
    only = _first_facts(kind, round(train / 2.5)) if kind in FACTS else None
    entries = _entries(kind, False, random.Random(f"{_SEED} {kind}"), seen, only)
    held = _entries(kind, True, random.Random(f"{_SEED} {kind} aside"), seen, only)
    tested = _first(held, test + validation, kind)
    return _first(entries, train, kind), tested[:test], tested[test:]


def _first_facts(kind: str, count: int) -> set[str]:
    """The keys of `count` facts: of each table those that stand first, as the commonest words do."""
    places: dict[str, int] = {}
    used: Counter[str] = Counter()
    for task, key, _ in facts(kind):
        if key not in places:
            places[key] = used[task]
            used[task] += 1
    return set(sorted(places, key=places.__getitem__)[:count])


def _first(entries: Iterator[Entry], count: int, kind: str) -> list[Entry]:
    found = list(islice(entries, count))
    if len(found) < count:
        raise ValueError(f"the kind {kind} has only {len(found)} entries on one side, and {count} are needed")
    return found


def _parts(counts: dict[str, int], total: int) -> dict[str, int]:
    """`total` shared among the kinds as `counts` are, by the largest remainders."""
    whole = sum(counts.values())
    shares = {kind: count * total / whole for kind, count in counts.items()}
    parts = {kind: int(share) for kind, share in shares.items()}
    rest = sorted(shares, key=lambda kind: parts[kind] - shares[kind])[: total - sum(parts.values())]
    return {kind: part + (kind in rest) for kind, part in parts.items()}


def _spread(by_kind: dict[str, list[Entry]], part: int) -> list[tuple[str, Entry]]:
    """The kinds mixed so that each stretch has its fair share: entry i of n goes between i/n and (i + 1)/n."""
    rng, placed = random.Random(f"{_SEED} order {part}"), []
    for kind, entries in by_kind.items():
        placed += [((i + rng.random()) / len(entries), kind, entry) for i, entry in enumerate(entries)]
    placed.sort(key=lambda place: place[0])
    return [(kind, entry) for _, kind, entry in placed]


def _entries(
    kind: str, aside: bool, rng: random.Random, seen: set[str], only: set[str] | None = None
) -> Iterator[Entry]:
    """Entries of a kind from one side, in random order, until there are no more; of facts, `only` those with such keys.

    A request that is in `seen` is left out, and each new one is put into it.
    """
    if kind in SKILLS:
        words, turns, tries = Words(kind, aside), {}, 0
        while tries < _TRIES:
            task, values = SKILLS[kind](words, rng)
            if not turns.get(task):
                turns[task] = list(_phrasings(task))
                rng.shuffle(turns[task])
            entry, tries = _filled(turns[task].pop(), values), tries + 1
            if (request := _request(entry)) not in seen:
                seen.add(request)
                tries = 0
                yield entry
        return
    for entry in _in_turns(kind, aside, rng, only) if kind in FACTS else _written(kind, aside, rng):
        if (request := _request(entry)) not in seen:
            seen.add(request)
            yield entry


def _in_turns(kind: str, aside: bool, rng: random.Random, only: set[str] | None) -> list[Entry]:
    """The entries of all facts, or `only` of some: one of each fact, then a second one of each, and so on.

    Each fact begins with another of its phrasings, so that none is used much more often than another.
    """
    by_key: dict[str, list[Entry]] = {}
    for key, entry in _facts(kind, aside):
        if only is None or key in only:
            by_key.setdefault(key, []).append(entry)
    keys, turns = list(by_key), []
    rng.shuffle(keys)
    for first, key in enumerate(keys):
        entries = by_key[key]
        turns += [(turn, rng.random(), entries[(first + turn) % len(entries)]) for turn in range(len(entries))]
    return [entry for *_, entry in sorted(turns, key=lambda turn: turn[:2])]


def _facts(kind: str, aside: bool) -> list[tuple[str, Entry]]:
    """Each fact's key with each entry that asks for it in a phrasing of one side."""
    return [
        (key, _filled(phrasing, values))
        for task, key, values in facts(kind)
        for number, phrasing in enumerate(_phrasings(task))
        if (draw_number(kind, key, task, number) < ASIDE) == aside
    ]


def _written(kind: str, aside: bool, rng: random.Random) -> list[Entry]:
    lines = [line for line in lines_of(f"written/{kind}") if (draw_number(line) < ASIDE) == aside]
    return [_filled(_split(line), {}) for line in rng.sample(lines, len(lines))]


def _request(entry: Entry) -> str:
    """Instruction and input in small letters: what makes two entries the same request."""
    return f"{entry['instruction']} {entry['input']}".lower()


class _Values(dict):
    """What fills the gaps: {word}, and made from it {Word} with a capital, {a_word} with its article, {A_word}."""

    def __missing__(self, key: str) -> str:
        if key.startswith("a_"):
            return with_article(self[key[2:]])
        return capital(self[key[:1].lower() + key[1:]])


def _filled(phrasing: tuple[str, str, str], values: dict[str, str]) -> Entry:
    gaps = _Values(values)
    instruction, given, output = (text.format_map(gaps) for text in phrasing)
    return {"instruction": instruction, "input": given, "output": output}


@cache
def _phrasings(task: str) -> list[tuple[str, str, str]]:
    return [_split(line) for line in lines_of(f"phrasings/{task}")]


def _split(line: str) -> tuple[str, str, str]:
    """The three texts of a line "instruction | output" or "instruction | input | output"; \\n begins a new line."""
    instruction, *inputs, output = line.replace("\\n", "\n").split(" | ")
    return instruction, "".join(inputs), output


def _dump(entries: list[Entry], file: str) -> None:
    Path(file).write_text(json.dumps(entries, indent=4), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """The command line: writes the embedded files, or entries to practice with or to test with."""
    parser = argparse.ArgumentParser(prog="python -m helpers.make.instruction_set", description=main.__doc__)
    parser.add_argument("--practice", nargs=2, metavar=("COUNT", "FILE"), help="write COUNT entries to train on")
    parser.add_argument("--unseen", nargs=2, metavar=("COUNT", "FILE"), help="write COUNT test requests of new words")
    parser.add_argument("--seed", type=int, default=_SEED, help="of --practice and --unseen (default: %(default)s)")
    options = parser.parse_args(arguments)
    for wanted, make in ((options.practice, practice_entries), (options.unseen, unseen_entries)):
        if wanted:
            if not wanted[0].isdigit():
                parser.error(f"COUNT={wanted[0]!r} is not a whole number")
            entries = make(int(wanted[0]), options.seed)
            write_whole(Path(wanted[1]), partial(_dump, entries))
            print(f"{wanted[1]}: {len(entries):,} entries")
    if not (options.practice or options.unseen):
        write_instructions()
        print(f"{INSTRUCTIONS_FILE}: {len(kinds())} entries of {len(set(kinds()))} kinds")


if __name__ == "__main__":
    main()
