"""Checkers for the bonus notebook on nine ways to compute attention."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch

from ._core import (
    Hint,
    all_agree,
    call,
    copies,
    exercise,
    expect,
    expect_kind,
    explained,
    read_integer,
    read_parts,
    read_tensor,
    same,
    self_test,
)


@exercise("attention.1", "to_stacked(rows, num_heads)")
def exercise_attention_1(answer: Callable[[torch.Tensor, int], torch.Tensor]) -> str:
    """`to_stacked(rows, num_heads)`: rows by head and then by query, key, value, sorted the other way round."""
    generator = torch.Generator().manual_seed(131)
    sizes = [(2, 3, (6,)), (4, 2, ()), (1, 4, (4,)), (5, 1, (2, 2)), (6, 4, (24,)), (2, 8, ())]  # heads, D, rest
    got, right, inverse, by_number, untouched = [], [], [], [], []
    for heads, dim, rest in sizes:
        rows = torch.randn(heads * 3 * dim, *rest, generator=generator)
        result = answer(*copies([rows]), heads)
        expect_kind(result, torch.Tensor, "A tensor")
        expect(
            result.shape == rows.shape,
            f"For rows of shape {tuple(rows.shape)} and num_heads={heads} your result has shape "
            f"{tuple(result.shape)}; no row is lost or added, so the shape stays.",
        )
        got.append(result)
        right.append(rows.view(heads, 3, dim, *rest).transpose(0, 1).reshape(rows.shape))
        inverse.append(rows.view(3, heads, dim, *rest).transpose(0, 1).reshape(rows.shape))
        by_number.append(rows.view(heads * dim, 3, *rest).transpose(0, 1).reshape(rows.shape))
        untouched.append(rows)
    slips = [
        (untouched, "Your result has the rows in the order in which they came."),
        (
            inverse,
            "You read the rows as if the queries of all heads came first, which is the order to be made, not the one "
            "that is given.",
        ),
        (by_number, "You take every third row. Given are D rows of queries on end, then D of keys, then D of values."),
    ]
    if not all_agree(got, right, slips):
        raise Hint(
            "The rows are not in the right order. For two heads with D = 1, rows named q1 k1 v1 q2 k2 v2 should become "
            "q1 q2 k1 k2 v1 v2. Number the rows of a small example and follow them."
        )
    return (
        "The rows have three indices, head, kind and number, of which the first two change places. Nothing about the "
        "rows themselves changes, so the same function serves for weight and bias."
    )


Mask = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@exercise("attention.2", "make_mask(documents, window)")
def exercise_attention_2(answer: Callable[[torch.Tensor, int], Mask]) -> str:
    """`make_mask(documents, window)`: a mask function for packed texts with a sliding window."""
    cases = [
        ([0, 0, 0, 0, 0, 0, 0, 0], 3),
        ([0, 0, 0, 1, 1, 1, 1, 2], 8),
        ([5, 5, 5, 5, 2, 2, 2, 9, 9, 9], 2),
        ([1, 1, 1, 1, 1, 1, 7, 7, 7, 7, 7, 7], 4),
        ([0, 0, 1, 1, 1, 1, 1], 1),
    ]
    got, wrong = [], {name: [] for name in ("right", "inverted", "future", "texts", "window", "short", "long")}
    for texts, window in cases:
        documents = torch.tensor(texts)
        mask = answer(documents.clone(), window)
        expect(callable(mask), f"make_mask must return a function; yours returns a {type(mask).__name__}.")
        got.append(_all_places(mask, len(texts)))
        place = torch.arange(len(texts))
        back = place[:, None] - place[None, :]  # how far behind the query the key is
        together = documents[:, None] == documents[None, :]
        wrong["right"].append((back >= 0) & (back < window) & together)
        wrong["inverted"].append(~wrong["right"][-1])
        wrong["future"].append((back.abs() < window) & together)
        wrong["texts"].append((back >= 0) & (back < window))
        wrong["window"].append((back >= 0) & together)
        wrong["short"].append((back >= 0) & (back < window - 1) & together)
        wrong["long"].append((back >= 0) & (back <= window) & together)
    hints = {
        "inverted": "Your mask is true where a token must not look. Here true means that it may.",
        "future": "In your mask a token may look at later tokens.",
        "texts": "In your mask a token looks into other texts.",
        "window": "Your mask lets a token look back as far as its text goes, whatever the window.",
        "short": "Your window is one too short: the token itself is one of its tokens.",
        "long": "Your window is one too long: the token itself is one of its tokens.",
    }
    slips = [(values, hints[name]) for name, values in wrong.items() if name in hints]
    right = wrong["right"]
    if not all_agree(got, right, slips):
        number = next(n for n, (a, b) in enumerate(zip(got, right, strict=True)) if not torch.equal(a, b))
        texts, window = cases[number]
        raise Hint(
            f"For documents {texts} and window {window}, a row per query:\nexpected {_drawn(right[number])}\n"
            f"got      {_drawn(got[number])}"
        )
    return (
        "Three conditions, joined with &: not later, near enough, of the same text. FlexAttention never makes the "
        "table of T times T; it asks your function block by block and leaves out blocks without a single true."
    )


def _all_places(mask: Mask, num_tokens: int) -> torch.Tensor:
    """What a mask function gives for every query and key, (T, T), called as FlexAttention calls it."""
    from torch.nn.attention.flex_attention import create_mask  # loads in a second that few checks need

    def asked(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        seen = call(mask, batch, head, query, key)
        expect(seen is not None, "Your mask function returned nothing: is there a return at its end?")
        expect_kind(seen, torch.Tensor, "From the mask function a tensor of true or false")
        expect(seen.dtype == torch.bool, f"Your mask function gives {seen.dtype}; true or false is expected.")
        return seen

    control_flow = (
        "It decides with `if`, `and`, `or` or `not`, which need one plain true or false. Here there are many."
    )
    with explained(RuntimeError, control_flow, "data-dependent control flow"):
        return create_mask(asked, 1, 1, num_tokens, num_tokens, device="cpu")[0, 0]


def _drawn(mask: torch.Tensor) -> str:
    return " / ".join("".join("·×"[seen] for seen in row) for row in mask.int().tolist())


Part = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@exercise("attention.3", "merge(first, second)")
def exercise_attention_3(answer: Callable[[Part, Part], Part]) -> str:
    """`merge(first, second)`: largest, total and mix of two parts of a softmax, together."""
    generator = torch.Generator().manual_seed(133)
    cases = [_parts(generator, *sizes) for sizes in ((3, 2, 4, 1.0), (5, 4, 2, 3.0), (1, 1, 3, 0.5), (4, 6, 2, 1.0))]
    cases.append(_parts(generator, 4, 3, 2, 400.0))
    first, second, both = _parts(generator, 4, 3, 2, 1.0, hidden=True)
    cases += [(first, second, both), (second, first, both)]
    got = []
    for first, second, _ in cases:
        result = answer(tuple(copies(first)), tuple(copies(second)))
        three = "The three tensors (largest, total, mix) are expected."
        expect(not isinstance(result, torch.Tensor), f"{three} Your function returns one.")
        result = read_parts(result, 3, three)
        got.append([read_tensor(part) for part in result])
        for name, part, given in zip(("largest", "total", "mix"), got[-1], first, strict=True):
            expect(
                part.shape == given.shape,
                f"Your {name} has shape {tuple(part.shape)}; for parts of that size it is {tuple(given.shape)}.",
            )

    def agrees(which: int, expected: list[torch.Tensor], until: int = len(cases)) -> bool:
        pairs = list(zip((parts[which] for parts in got), expected, strict=True))[:until]
        return all(same(result, value) for result, value in pairs)

    rights = [[both[which] for *_, both in cases] for which in range(3)]
    expect(agrees(0, rights[0]), "Your largest is not the larger of the two largest scores in every row.")
    unscaled = [first[1] + second[1] for first, second, _ in cases]
    expect(
        not agrees(1, unscaled, 4),
        "You add the totals as they are. Each is relative to the largest score of its own part.",
    )
    usual = [agrees(which, rights[which], 4) for which in (1, 2)]  # neither huge scores nor empty parts
    second_only = [first[1] + torch.exp(second[0] - first[0]) * second[1] for first, second, _ in cases]
    expect(
        not agrees(1, second_only, 4),
        "You always make the second part relative to the first. Where the second has the larger score, it is the first "
        "that has to shrink.",
    )
    if usual[0] and not usual[1]:
        unscaled = [first[2] + second[2] for first, second, _ in cases]
        divided = [both[2] / both[1] for *_, both in cases]
        expect(not agrees(2, unscaled, 4), "Your totals are right; the mixes need the same factors.")
        expect(not agrees(2, divided, 4), "Your mix is divided by the total already. That comes once, at the very end.")
        raise Hint("Your totals are right, your mix is not.")
    expect(all(usual), "Your totals are not those of all scores relative to the common largest one.")
    expect(
        agrees(1, rights[1], 5) and agrees(2, rights[2], 5),
        "Your function is right for small scores and fails where scores differ by hundreds: an exponential of a large "
        "positive number overflows. Take exponentials of differences that are never positive.",
    )
    expect(
        agrees(1, rights[1]) and agrees(2, rights[2]),
        "Your function is right, except where one part is empty and its largest score is −∞.",
    )
    return (
        "Both parts are made relative to the common largest score; one of the two factors is 1 in each row, the other "
        "at most 1, so nothing overflows. Merging is associative: parts may be joined in any grouping, also by many "
        "cores at once."
    )


def _parts(
    generator: torch.Generator, rows: int, keys: int, dim: int, size: float, hidden: bool = False
) -> tuple[Part, Part, Part]:
    """Two parts of random scores of some size, the first with empty rows if `hidden`, and both together."""
    scores = size * torch.randn(rows, 2 * keys, generator=generator)
    values = torch.randn(2 * keys, dim, generator=generator)
    if hidden:
        scores[: rows // 2, :keys] = -torch.inf
    return _part(scores[:, :keys], values[:keys]), _part(scores[:, keys:], values[keys:]), _part(scores, values)


def _part(scores: torch.Tensor, values: torch.Tensor) -> Part:
    largest = scores.amax(dim=1, keepdim=True)
    weights = torch.exp(scores - largest.clamp(min=-1e30))  # an empty row has weights of 0
    return largest, weights.sum(dim=1, keepdim=True), weights @ values


@exercise("attention.4", "numbers_moved(num_tokens, head_dim, block)")
def exercise_attention_4(answer: Callable[[int, int, int], int]) -> str:
    """`numbers_moved(num_tokens, head_dim, block)`: what tiled attention reads and writes, for one head."""
    rng = random.Random(134)
    cases = [(8, 4, 2), (10, 3, 4), (5, 2, 8), (1024, 64, 128)]
    cases += [(rng.randint(2, 300), rng.choice([8, 16, 64]), rng.randint(1, 90)) for _ in range(26)]
    got, right, slips = [], [], {name: [] for name in ("keys", "all", "once", "write", "twice", "down")}
    for num_tokens, head_dim, block in cases:
        what = f"For num_tokens={num_tokens}, head_dim={head_dim} and block={block} your result"
        got.append(read_integer(answer(num_tokens, head_dim, block), what))
        ends = [min(top + block, num_tokens) for top in range(0, num_tokens, block)]
        own, seen = num_tokens * head_dim, sum(ends) * head_dim  # of the queries; of the keys, over all blocks
        full = sum(block * (row + 1) for row in range(num_tokens // block)) * head_dim
        right.append(2 * own + 2 * seen)
        slips["keys"].append(2 * own + seen)
        slips["all"].append(2 * own + 2 * len(ends) * own)
        slips["once"].append(4 * own)
        slips["write"].append(own + 2 * seen)
        slips["twice"].append(own + 3 * seen)
        slips["down"].append(2 * own + 2 * full)
    hints = {
        "keys": "You count one tensor along the row of tiles; keys and values are both read.",
        "all": "You read all keys for each block of queries. The inner loop stops at the diagonal.",
        "once": "You read keys and values once in all. They are read anew for each block of queries.",
        "write": "The results have to be written, too.",
        "twice": "You read the queries for every tile. Each block of them is read once, before the inner loop.",
        "down": "You leave out the last block where it is shorter than the others, or its keys.",
    }
    if not all_agree(got, right, [(slips[name], hint) for name, hint in hints.items()]):
        number = next(n for n, (a, b) in enumerate(zip(got, right, strict=True)) if a != b)
        num_tokens, head_dim, block = cases[number]
        raise Hint(
            f"For num_tokens={num_tokens}, head_dim={head_dim} and block={block}:\nexpected {right[number]:,}\n"
            f"got      {got[number]:,}\nDraw the square of tiles for this case and write the reads beside each row."
        )
    return (
        "Queries and results move once, keys and values once per row of tiles. With 1,024 tokens and D = 64, blocks of "
        "16, 128 and 1,024 move 4,390,912, 720,896 and 262,144 numbers: doubling the block nearly halves the traffic, "
        "until a tile, with its queries, keys and values, no longer fits into the cache."
    )


self_test_attention = self_test("attention", "attention_implementations")
