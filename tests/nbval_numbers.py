"""A pytest plugin on top of nbval: numbers compared as numbers, figures as pictures, everything else to the letter.

Integers are exact. Numbers with a point or an exponent agree within 1e-3 relative plus 1e-4 absolute, or what the
tags `nbval-rtol=0.05` and `nbval-atol=0.01` say. What a model does that was trained in the notebook drifts from one
processor to another: in a cell tagged `nbval-share=0.2`, that share of a text's words and of a figure's area may
differ. In a cell tagged `nbval-machine`, measured times and sizes and version numbers are left out of the comparison;
without the tag nothing is left out. A cell tagged `needs:smollm2` is run everywhere and compared only where that file
is on the machine (see NEEDS). Tags of nbval keep their meaning.
"""

from __future__ import annotations

import base64
import contextlib
import difflib
import functools
import io
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import nbval.plugin
import numpy as np
import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell
from PIL import Image

from helpers import smollm2

RTOL, ATOL = 1e-3, 1e-4
_USUAL = {"rtol": RTOL, "atol": ATOL, "share": 0.0}

# What a measurement looks like, in cells tagged `nbval-machine`: a version, a number with a unit of time, of memory or
# of a rate, a ratio such as "3.2 times". Spaces around it are its padding in a column.
_MACHINE = [
    (re.compile(f" *(?:{pattern}) *"), f" {name} ")
    for pattern, name in (
        (r"\b\d+(?:\.\d+){2,}[\w.+-]*|\b\d+\.\d+(?:rc|a|b|\.dev|\.post|\+)\w+", "<version>"),
        (r"(?<![\w.])[\d,]*\d(?:\.\d+)?\s?(?:ns|[µu]s|ms|s|min|seconds?|minutes?)\b", "<time>"),
        (r"(?<![\w.])[\d,]*\d(?:\.\d+)?\s?[kMGTP]?(?:FLOP|B)/s\b", "<rate>"),
        (r"(?<![\w.])[\d,]*\d(?:\.\d+)?\s?(?:[kKMGT]i?B|bytes)\b", "<memory>"),
        (r"(?<![\w.])[\d,]*\d(?:\.\d+)?\stimes\b", "<ratio>"),
    )
]

# A number with a point or an exponent, nan or inf. Digits inside words (W_query2), versions (2.13.0) and everything
# that has neither point nor exponent are text, which must be equal: so integers are exact.
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]])[-+−])?(?<![\w.])"
    r"(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.(?:\d+|(?![\w.]))(?:[eE][-+]?\d+)?|[eE][-+]?\d+(?!\w))(?!\.?\d)"
    r"|(?:nan|NaN|inf)(?!\w))"
)
_TOKEN = re.compile(rf"(?P<gap>\s+)|(?P<number>{_NUMBER.pattern})|\d{{1,3}}(?:,\d{{3}})+(?!\w)|\w+|[^\w\s]")


class Token(NamedTuple):
    """A word, a punctuation mark or a number, with the white space before it."""

    text: str
    gap: str
    line: int
    value: float | None


def tokens(text: str) -> list[Token]:
    """The tokens of a text; the last one is empty and has the white space at the end."""
    found, gap, line = [], "", 1
    for match in _TOKEN.finditer(text):
        if match["gap"]:
            gap = match["gap"]
            line += gap.count("\n")
            continue
        number = match["number"]
        value = float(number.replace(",", "").replace("−", "-")) if number else None
        found.append(Token(match[0], gap, line, value))
        gap = ""
    return [*found, Token("", gap, line, None)]


def _number_problem(got: Token, expected: Token, rtol: float, atol: float) -> str | None:
    a, b = got.value, expected.value
    says = f"{got.text}, expected {expected.text}"
    if not (math.isfinite(a) and math.isfinite(b)):
        return None if a == b or (math.isnan(a) and math.isnan(b)) else says
    # "5145." is PyTorch's way to print a whole number, or the end of a sentence: as exact as an integer.
    whole = got.text.endswith(".") and expected.text.endswith(".")
    allowed = 0.0 if whole else atol + rtol * abs(b)
    if not abs(a - b) <= allowed:
        return f"number {says} (off by {abs(a - b):.3g}, allowed {allowed:.3g})"
    signs = {text[0] if text[0] in "+-−" else "" for text in (got.text, expected.text)}
    if signs in ({"-", "−"}, {"+", ""}):
        return f"number {says} (the sign is written differently)"
    return None


def _gap_problem(got: Token, expected: Token, depth: int, padded: bool) -> bool:
    """Whether white space differs other than by the padding of numbers, or by the wrapping of a bracketed list."""
    if got.gap == expected.gap:
        return False
    lines = got.gap.count("\n"), expected.gap.count("\n")
    number = got.value is not None
    if lines[0] == lines[1]:
        return not (padded and (number or (got.gap and expected.gap)))
    return not (padded and number and depth and got.gap and expected.gap and max(lines) == 1)


def text_problem(got: str, expected: str, rtol: float = RTOL, atol: float = ATOL, share: float = 0.0) -> str | None:
    """What differs between two printed texts, in a line, followed by the two lines; None if they agree.

    Where they do not agree, words, marks and numbers may differ in the given share of the longer text.
    """
    if got == expected:
        return None
    new, old = tokens(got), tokens(expected)
    problem = _first_problem(got, expected, new, old, rtol, atol)
    if problem is None or not share:
        return problem
    matcher = difflib.SequenceMatcher(None, [t.text for t in old], [t.text for t in new], autojunk=False)
    longer = max(len(old), len(new)) - 1  # the last token is empty
    differing = longer + 1 - sum(block.size for block in matcher.get_matching_blocks())
    return (
        f"{differing} of {longer} words differ (allowed {share:.0%}), {problem}" if differing > share * longer else None
    )


def _first_problem(got: str, expected: str, new: list[Token], old: list[Token], rtol: float, atol: float) -> str | None:
    """`text_problem` for texts that are taken apart."""
    # Padding may differ only where a number is printed wider or narrower: by its sign, or by a digit.
    numbers = [[token.text for token in side if token.value is not None] for side in (new, old)]
    padded = list(map(len, numbers[0])) != list(map(len, numbers[1]))
    depth = 0
    for a, b in itertools.zip_longest(new, old):
        a, b = a or new[-1], b or old[-1]
        if a.value is not None and b.value is not None:
            problem = _number_problem(a, b, rtol, atol)
        elif a.text == b.text:
            problem = None
        else:
            problem = f"{a.text!r} instead of {b.text!r}" if a.text and b.text else f"{a.text!r} was added"
            problem = problem if a.text else f"{b.text!r} is missing"
        if problem is None and _gap_problem(a, b, depth, padded):
            problem = f"white space {a.gap!r} instead of {b.gap!r} before {b.text!r}"
        if problem:
            lines = [(text.splitlines() or [""])[:line][-1][:160] for text, line in ((expected, b.line), (got, a.line))]
            return f"line {b.line}: {problem}\n    expected: {lines[0]}\n    got:      {lines[1]}"
        depth += (a.text in "([{") - (a.text in ")]}") if a.text else 0
    return None


# Figures: after blurring over 2 x 2 pixels, the mean absolute difference (0 to 255, the worst of red, green and blue)
# in each block of 8 x 8 pixels; the whole picture may be moved by a pixel, the best place counts for each block.
# Measured on figures of helpers.course.plots: drawn again, or all moved by a pixel, 0; another palette 3; curves whose
# values changed by 1e-3 8. Against that: a box in white instead of light grey 17, a thin dashed line 30, a letter 34,
# one digit in 7-point type 37 and in 10-point type 43, a bar 1 % longer 90, a curve left out over 100.
# Type moved by part of a pixel would give 30, but matplotlib places type on whole pixels.
BLOCK, BLUR, PICTURE_LIMIT = 8, 2, 12.0


def _pixels(png: str | bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(base64.b64decode(png) if isinstance(png, str) else png)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _blurred(picture: Image.Image) -> np.ndarray:
    values = np.asarray(picture, dtype=np.float32)
    height, width = (side - BLUR + 1 for side in values.shape[:2])
    return sum(values[y : y + height, x : x + width] for y in range(BLUR) for x in range(BLUR)) / BLUR**2


def _block_means(values: np.ndarray) -> np.ndarray:
    """Means over blocks that overlap by half, so that a thin line is well inside one of them."""
    half = BLOCK // 2
    high, wide = (-(-side // half) for side in values.shape[:2])
    padding = ((0, high * half - values.shape[0]), (0, wide * half - values.shape[1]), (0, 0))
    small = np.pad(values, padding).reshape(high, half, wide, half, 3).mean((1, 3)).max(-1)
    return (small[:-1, :-1] + small[1:, :-1] + small[:-1, 1:] + small[1:, 1:]) / 4


def picture_problem(got: str | bytes, expected: str | bytes, share: float = 0.0) -> str | None:
    """Where two PNG pictures (bytes, or base64 text) look different, and by how much; None if they look alike.

    They may look different in the given share of the blocks.
    """
    if got == expected:
        return None
    new, old = _pixels(got), _pixels(expected)
    if any(abs(a - b) > 0.02 * b for a, b in zip(new.size, old.size, strict=True)):
        return "the figure is {} x {} pixels, expected {} x {}".format(*new.size, *old.size)
    a, b = _blurred(new.resize(old.size) if new.size != old.size else new), _blurred(old)
    moves = itertools.product((-1, 0, 1), repeat=2)
    worst = np.min([_block_means(np.abs(np.roll(a, move, (0, 1)) - b)) for move in moves], axis=0)
    if (worst > PICTURE_LIMIT).mean() <= share:
        return None
    y, x = (int(place) * BLOCK // 2 for place in np.unravel_index(worst.argmax(), worst.shape))
    return (
        f"the figure looks different in {(worst > PICTURE_LIMIT).sum()} of {worst.size} blocks, most around pixel "
        f"({x}, {y}) from the upper left, by {worst.max():.0f} of 255 (allowed {PICTURE_LIMIT:.0f})"
    )


def merge_streams(outputs: Sequence[Any]) -> list[Any]:
    """Outputs with what was printed in one go as one output, and with lines that `\\r` overwrote left out."""
    merged: list[Any] = []
    for output in outputs:
        if output.output_type == "stream":
            if merged and merged[-1].output_type == "stream" and merged[-1].name == output.name:
                merged[-1].text += output.text
                continue
            output = output.copy()
        merged.append(output)
    for output in [output for output in merged if output.output_type == "stream"]:
        output.text = re.sub(r"^.*\r(?=[^\n])", "", output.text, flags=re.MULTILINE)
    return merged


WIDGET = "application/vnd.jupyter.widget-view+json"  # holds a random id; what shows instead of a widget is compared


def _parts(output: Any) -> dict[str, Any]:
    """What there is to compare in an output, by name: its printed text, its error, or its MIME types."""
    if output.output_type == "stream":
        return {output.name: output.text}
    if output.output_type == "error":
        return {"error": f"{output.ename}: {output.evalue}"}
    parts = {kind: value for kind, value in output.data.items() if kind != WIDGET}
    if found := IMAGE.fullmatch(as_text(parts.get("text/html", ""))):
        parts["image/png"] = found["png"]
        parts["text/html"] = found["before"] + found["after"]
    return parts


def as_text(value: Any) -> str:
    """Text of an output, which notebook files may hold as a list of lines."""
    return "".join(value) if isinstance(value, list) else str(value)


# A figure as helpers.course.plots.show displays it.
IMAGE = re.compile(
    r'(?P<before><img src="data:image/png;base64,)(?P<png>[\w+/=]+)(?P<after>" alt="(?P<alt>[^"]*)"[^>]*>)'
)

Difference = tuple[str, str | None, str | None]  # what differs and, of a figure, the new and the expected PNG


def outputs_problem(got: Sequence[Any], expected: Sequence[Any], tags: Sequence[str] = ()) -> Difference | None:
    """What differs between the outputs of a cell that has these tags; None if they agree."""
    tolerance = dict(tag[6:].split("=") for tag in tags if re.match(r"nbval-([ra]tol|share)=", tag))
    rtol, atol, share = (float(tolerance.get(name, usual)) for name, usual in _USUAL.items())

    def clean(text: Any) -> str:
        text = as_text(text)
        for pattern, replacement in _MACHINE if "nbval-machine" in tags else []:
            text = pattern.sub(replacement, text)
        return text

    new, old = ([parts for parts in map(_parts, merge_streams(side)) if parts] for side in (got, expected))
    for number, (a, b) in enumerate(itertools.zip_longest(new, old), start=1):
        if a is None or b is None:
            what, parts = ("is missing", b) if a is None else ("was added", a)
            shown = [clean(value)[:80] for kind, value in parts.items() if not kind.startswith("image/")]
            return f"output {number} ({', '.join(parts)}) {what}: {' '.join(shown)!r}", None, None
        if a.keys() != b.keys():
            return f"output {number} is {', '.join(a)}; expected {', '.join(b)}", None, None
        for kind in b:
            if kind in ("image/png", "image/jpeg"):
                if problem := picture_problem(a[kind], b[kind], share):
                    return f"output {number}: {problem}", a[kind], b[kind]
            elif problem := text_problem(clean(a[kind]), clean(b[kind]), rtol, atol, share):
                return f"output {number} ({kind}), {problem}", None, None
    return None


# What outputs may depend on besides the course itself, by the name in the tag: whether it is on this machine.
NEEDS: dict[str, Callable[[], bool]] = {"smollm2": lambda: smollm2.find_smollm2() is not None}


@functools.cache
def _is_here(name: str) -> bool:
    """Whether the notebooks' kernels find something (looked for once: a large file is read whole)."""
    with kernel_environment():
        return NEEDS[name]()


def missing_needs(tags: Sequence[str]) -> list[str]:
    """What the tags `needs:...` name and is not on this machine."""
    names = [tag.removeprefix("needs:") for tag in tags if tag.startswith("needs:")]
    return [name for name in names if not _is_here(name)]


class CourseCell(IPyNbCell):
    """A code cell under nbval, compared by this module."""

    def runtest(self) -> None:
        if self.cell.source.strip() and self.cell.execution_count is None and not self.options["skip"]:
            self.raise_cell_error("the committed cell was never executed (execution_count is null): run make refresh")
        super().runtest()

    def compare_outputs(self, test: Sequence[Any], ref: Sequence[Any], skip_compare: Any = None) -> bool:
        tags = self.cell.metadata.get("tags", [])
        found = None if missing_needs(tags) else outputs_problem(test, ref, tags)
        if found is None:
            return True
        message, new, old = found
        if new:  # nbval's items have no fixtures, so the session's folder is asked for directly
            folder = self.config._tmp_path_factory.mktemp(f"{self.path.stem}-cell{self.cell_num}-")
            for name, png in (("got.png", new), ("expected.png", old)):
                (folder / name).write_bytes(base64.b64decode(png))
            message += f"\n    see {folder / 'got.png'} and expected.png beside it"
        self.raise_cell_error(message)

    def repr_failure(self, excinfo: Any) -> str:
        error = excinfo.value
        if not isinstance(error, nbval.plugin.NbCellError) or error.inner_traceback:
            return super().repr_failure(excinfo)
        source = self.cell.source.strip().splitlines()
        return f"code cell {self.cell_num} of {self.path.name}, `{source[0] if source else ''}`: {error}"


# For the C library of a process that starts: keep freed blocks. On virtual machines, where the system is slow to hand
# out pages, training takes half the time. It changes no number.
KEEP_FREED_MEMORY = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(2**31 - 1))


@contextlib.contextmanager
def kernel_environment() -> Iterator[None]:
    """How notebooks run when outputs are made or compared: one thread, the quick profile, no progress bars."""
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TQDM_DISABLE="1", **KEEP_FREED_MEMORY):
        for name in ("COURSE_PROFILE", "COURSE_DATA_DIR"):
            os.environ.pop(name, None)
        yield


class CourseKernel(RunningKernel):
    """nbval's kernel, started in `kernel_environment`."""

    def __init__(self, *args: Any, **options: Any):
        with kernel_environment():
            super().__init__(*args, **options)


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "nbval", False):
        nbval.plugin.RunningKernel = CourseKernel
        nbval.plugin.coalesce_streams = merge_streams  # nbval's own loses the order of prints and figures


def pytest_itemcollected(item: pytest.Item) -> None:
    if type(item) is IPyNbCell:
        item.__class__ = CourseCell
