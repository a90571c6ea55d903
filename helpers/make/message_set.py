"""The embedded spam messages: makes assets/spam/messages.tsv from the texts in assets/spam/source.

    python -m helpers.make.message_set

Most messages are written by hand, one per line, in the files `ham_*.txt` and `spam_*.txt`. What must not be real, or
must not differ between the classes, stands there as a slot: "{bank}", "{link}", "{mobile}". The rest of the ham comes
from frames, lines with choices in them, `{like|such as} {this|these}`, each used several times; a draw that resembles
an earlier message is thrown away. Every message has a random generator of its own, seeded by its line, so a changed
line changes that message only, and the file comes out the same, byte for byte, on every machine.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from ..texts import EMBEDDED_MESSAGES

SPAM_FILE = EMBEDDED_MESSAGES["messages"]
SPAM_DIR = SPAM_FILE.parent

# Two messages are near-duplicates when they share this part of their words, or of their runs of 5 characters.
MAX_SHARED_WORDS, MAX_SHARED_RUNS = 0.6, 0.5
_FRESH = 0.7  # messages made from frames must stay this much further apart

_FRAMES = {"frames_ham.txt": 6, "frames_notices.txt": 4, "frames_spam.txt": 4}  # at most so many messages from a line
_TRIES = 15  # draws for one message before the frame is given up

# Slots that keep their value all through a message, and how hurried people write some words.
_FIXED = {"bank", "courier", "telco", "shop", "stream", "energy", "name", "kid", "city"}
_SHORTHAND = {"you": "u", "are": "r", "your": "ur", "and": "n", "for": "4", "with": "wiv", "what": "wot"}
_SHORTHAND |= {"please": "pls", "thanks": "thx", "great": "gr8", "because": "cos", "about": "bout"}
_SHORTHAND |= {"tomorrow": "2moro", "tonight": "2nite"}


def build_messages() -> list[tuple[str, str]]:
    """All messages as (label, text) in the order of the file; label is "ham" or "spam".

    Raises ValueError if two hand-written lines are near-duplicates, or a slot is unknown.
    """
    slots = _read_slots()
    messages, sketches = [], []
    source = SPAM_DIR / "source"
    for path in sorted([*source.glob("ham_*.txt"), *source.glob("spam_*.txt")]):
        for line in _lines(path):
            text = _Filler(line, 0, slots).fill()
            sketch = _sketch(text)
            if twin := _find_twin(sketch, sketches, 1.0):
                raise ValueError(f"{path.name}: {text!r} is too close to {messages[twin - 1][1]!r}")
            messages.append((path.name.split("_")[0], text))
            sketches.append(sketch)
    for name, uses in _FRAMES.items():
        label = "spam" if name == "frames_spam.txt" else "ham"
        roughen = _roughen if name == "frames_ham.txt" else None
        for line in _lines(source / name):
            for use in range(uses):
                for attempt in range(_TRIES):
                    text = _Filler(line, use * _TRIES + attempt, slots).fill(roughen)
                    sketch = _sketch(text)
                    if not _find_twin(sketch, sketches, _FRESH):
                        messages.append((label, text))
                        sketches.append(sketch)
                        break
    return _shuffled(messages)


def near_duplicates(texts: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs of texts that share too many of their words or runs of characters (see MAX_SHARED_WORDS)."""
    pairs, seen, sketches = [], [], []
    for text in texts:
        sketch = _sketch(text)
        if twin := _find_twin(sketch, sketches, 1.0):
            pairs.append((seen[twin - 1], text))
        seen.append(text)
        sketches.append(sketch)
    return pairs


def main() -> None:
    """Write the file and say how many messages of each class it holds."""
    messages = build_messages()
    SPAM_FILE.write_bytes("".join(f"{label}\t{text}\n" for label, text in messages).encode("utf-8"))
    spam = sum(label == "spam" for label, _ in messages)
    print(f"{len(messages)} messages, {spam} of them spam, in {SPAM_FILE}")


class _Filler:
    """Draws one message from a line; `number` tells the draws from the same line apart."""

    def __init__(self, line: str, number: int, slots: dict[str, list[str]]):
        self.line, self.slots = line, slots
        self.random = random.Random(f"{number} {line}").random  # `random()` alone is the same in every Python
        self.used: set[str] = set()
        self.fixed: dict[str, str] = {}

    def fill(self, change: Callable[[str, _Filler], str] | None = None) -> str:
        text = self._expand(self.line)
        text = re.sub(r" +([,?!]|\.(?!\.))", r"\1", re.sub(r"  +", " ", text)).strip()
        return change(text, self) if change else text

    def pick(self, items: list[str]) -> str:
        return items[int(self.random() * len(items))]

    def digits(self, count: int) -> str:
        return "".join(self.pick(list("0123456789")) for _ in range(count))

    def _expand(self, text: str) -> str:
        """`text` with its outermost {groups} replaced, inner ones only in the branch that is chosen."""
        out, depth, start = [], 0, 0
        for position, character in enumerate(text):
            if character == "{":
                if depth == 0:
                    start = position + 1
                depth += 1
            elif character == "}":
                depth -= 1
                if depth == 0:
                    branches = _split(text[start:position])
                    out.append(self._expand(self.pick(branches)) if len(branches) > 1 else self._slot(branches[0]))
            elif depth == 0:
                out.append(character)
            if depth < 0:
                break
        if depth != 0:
            raise ValueError(f"braces do not match: {self.line}")
        return "".join(out)

    def _slot(self, name: str) -> str:
        if name.startswith("{"):  # a group that holds nothing but a group
            return self._expand(name)
        if name.endswith(".slug"):
            return self._slot(name[:-5]).lower().replace(" ", "-").replace("-&-", "-")
        if name in _NUMBERS:
            return _NUMBERS[name](self)
        if name in self.fixed:
            return self.fixed[name]
        kind = name.rstrip("2")
        if kind not in self.slots:
            raise ValueError(f"{{{name}}} is not a slot: {self.line}")
        value = self.pick([item for item in self.slots[kind] if item not in self.used] or self.slots[kind])
        self.used.add(value)
        if kind in _FIXED:
            self.fixed[name] = value
        return value


def _link(filler: _Filler) -> str:
    path = "".join(filler.pick(list("abcdefghkmnprstuvwxyz23456789")) for _ in range(4 + int(filler.random() * 4)))
    return filler.pick(["", "", "http://", "https://"]) + filler.pick(filler.slots["host"]) + "/" + path


def _mobile(filler: _Filler) -> str:
    last = filler.digits(3)
    return filler.pick([f"07700900{last}", f"07700 900{last}", f"07700 900 {last}"])


def _landline(filler: _Filler) -> str:
    area = filler.pick(["020 7946", "0113 496", "0161 496", "0117 496", "0141 496"])
    number = f"{area} 0{filler.digits(3)}"
    return filler.pick([number, number, number.replace(" ", "")])


# Numbers that nobody has: the ranges that Ofcom and the North American plan keep for drama and fiction. Short codes
# have four digits where real ones have five or more; every link ends in .example, which RFC 2606 reserves.
_NUMBERS: dict[str, Callable[[_Filler], str]] = {
    "link": _link,
    "mobile": _mobile,
    "land": _landline,
    "free": lambda filler: filler.pick(["08081570", "0808 1570", "08081 570"]) + filler.digits(3),
    "prem": lambda filler: filler.pick(["09098790", "0909 8790", "0909 879 0"]) + filler.digits(3),
    "us": lambda filler: filler.pick(["212", "(312)", "415", "617"]) + " 555-01" + filler.digits(2),
    "short": lambda filler: "55" + filler.digits(2),
    "code": lambda filler: filler.digits(6),
    "code4": lambda filler: filler.digits(4),
    "ref": lambda filler: filler.pick(list("ABEHKLNPRX")) + filler.pick(list("CDFGJMQTVZ")) + filler.digits(6),
}


def _roughen(text: str, filler: _Filler) -> str:
    """The text as a hurried thumb types it: now and then lower case, shorthand, no apostrophes, a slip."""
    draw = filler.random()
    if draw < 0.12:
        text = re.sub(r"[A-Za-z]+", lambda word: _SHORTHAND.get(word[0].lower(), word[0]), text).lower()
    elif draw < 0.34:
        text = text.lower()
    elif draw < 0.42:
        text = text.replace("'", "")
    elif draw < 0.50:
        text = _slip(text, filler)
    return text


def _slip(text: str, filler: _Filler) -> str:
    """The text with two letters swapped, or one left out, inside one of its longer words."""
    words = list(re.finditer(r"[a-z]{5,}", text))
    if not words:
        return text
    word = words[int(filler.random() * len(words))]
    at = word.start() + 1 + int(filler.random() * (len(word[0]) - 3))
    if filler.random() < 0.6:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:at] + text[at + 1 :]


def _split(group: str) -> list[str]:
    """The branches of a group: its text cut at the bars that are not inside an inner group."""
    branches, depth = [""], 0
    for character in group:
        depth += (character == "{") - (character == "}")
        if character == "|" and depth == 0:
            branches.append("")
        else:
            branches[-1] += character
    return branches


def _sketch(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """What two texts are compared by: their words and their runs of five characters, all digits made 0."""
    plain = re.sub(r"\d", "0", text.lower())
    words = re.findall(r"[^\W_']+(?:'[^\W_]+)?", plain)
    joined = " ".join(words)
    return frozenset(words), frozenset(joined[i : i + 5] for i in range(max(1, len(joined) - 4)))


def _find_twin(sketch: tuple, others: list[tuple], strictness: float) -> int:
    """1 + the index of the first of `others` that is a near-duplicate, or 0."""
    words, runs = sketch
    for index, (other_words, other_runs) in enumerate(others):
        shared = len(words & other_words)
        if shared * 8 < len(words):  # hardly a word in common: no need to look closer
            continue
        if shared >= strictness * MAX_SHARED_WORDS * (len(words) + len(other_words) - shared):
            return index + 1
        shared = len(runs & other_runs)
        if shared >= strictness * MAX_SHARED_RUNS * (len(runs) + len(other_runs) - shared):
            return index + 1
    return 0


def _shuffled(messages: list[tuple[str, str]]) -> list[tuple[str, str]]:
    draw = random.Random("order").random
    order = sorted((draw(), index) for index in range(len(messages)))
    return [messages[index] for _, index in order]


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _read_slots() -> dict[str, list[str]]:
    entries = (line.split(": ", 1) for line in _lines(SPAM_DIR / "source" / "slots.txt"))
    return {name: [item.strip() for item in items.split(" | ")] for name, items in entries}


if __name__ == "__main__":
    main()
