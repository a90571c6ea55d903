"""Checkers for the bonus notebook from GPT to Llama."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
import torch

from ...llama import rotary_tables, rotate
from ._core import Hint, all_agree, exercise, expect, expect_kind, read_parts, read_tensor, read_truth, same, self_test

Turn = Callable[[torch.Tensor, int], torch.Tensor]


def _turns() -> list[tuple[str, Turn, bool]]:
    """Ways to bring positions into a vector of 8 numbers, and whether only distances count in products."""
    cos, sin = rotary_tables(8, 600, 100.0)
    table = torch.randn(600, 8, generator=torch.Generator().manual_seed(5))
    speeds = torch.tensor([1.0, 0.3, 0.05, 0.01])

    def halves(x, position):
        return rotate(x, cos[position], sin[position])

    def pairs(x, position):
        even, odd = x[..., 0::2], x[..., 1::2]
        a = torch.as_tensor(position * speeds)
        return torch.stack((even * a.cos() - odd * a.sin(), even * a.sin() + odd * a.cos()), dim=-1).flatten(-2)

    def one_pair(x, position):
        a = torch.tensor(0.01 * position)
        turned = torch.stack((x[..., 0] * a.cos() - x[..., 1] * a.sin(), x[..., 0] * a.sin() + x[..., 1] * a.cos()), -1)
        return torch.cat((turned, x[..., 2:]), dim=-1)

    def squared(x, position):
        return rotate(x, *((0.001 * position**2 * speeds).cos(), (0.001 * position**2 * speeds).sin()))

    def late(x, position):
        """Right up to position 255: positions are counted modulo 256 in the second pair."""
        places = torch.tensor([float(position), position % 256, position, position])
        a = places * torch.tensor([0.5, 0.0123, 0.05, 0.01])
        return rotate(x, a.cos(), a.sin())

    def wrong_sign(x, position):
        first, second = x.chunk(2, dim=-1)
        c, s = cos[position], sin[position]
        return torch.cat((first * c - second * s, first * s - second * c), dim=-1)

    return [
        ("turns halves", halves, True),
        ("turns neighbours", pairs, True),
        ("turns one pair only", one_pair, True),
        ("leaves everything", lambda x, position: x, True),
        ("adds a table", lambda x, position: x + table[position], False),
        ("turns by the square of the position", squared, False),
        ("turns and stretches", lambda x, position: halves(x, position) * (1 + 0.01 * position), False),
        ("mirrors every three positions", lambda x, position: x * (-1.0) ** (position // 3), False),
        ("forgets the position after 255", late, False),
        ("has one sign wrong", wrong_sign, False),
    ]


@exercise("llama.1", "only_distance_counts(turn)")
def exercise_llama_1(answer: Callable[[Turn], bool]) -> str:
    """`only_distance_counts(turn)`: whether products of turned vectors depend on the distance of positions alone."""
    for name, turn, right in _turns():
        calls: list[int] = []

        def counted(x, position, turn=turn, calls=calls):
            expect_kind(position, Integral, "For turn(x, position), a whole number as the position")
            position = int(position)
            expect(0 <= position < 600, f"turn was called with the position {position}; it knows 0 to 599.")
            calls.append(position)
            return turn(x, position)

        if read_truth(answer(counted)) == right:
            continue
        if not calls:
            raise Hint("Your function decides without calling turn once.")
        if right:
            raise Hint(
                f"A function that {name} is taken for one where more than the distance counts. Rounding makes products "
                "differ in the last digits: compare with a tolerance. And compare pairs at one distance only."
            )
        hint = f"A function that {name} is taken for one where only the distance counts. "
        if max(calls) < 256 and name.startswith("forgets"):
            raise Hint(hint + f"The highest position that you tried is {max(calls)}; turn knows 0 to 599.")
        raise Hint(
            hint + "Try more pairs of positions at the same distance, far apart in the text, and random vectors."
        )
    return (
        "Shift both positions by the same amount and compare: what is a rotation by an angle in proportion to the "
        "position passes, whichever numbers make a pair, and so does no position at all. A table that is added does "
        "not, and neither does an angle that stops growing."
    )


@exercise("llama.2", "merge_heads(weight, heads, kv_heads)")
def exercise_llama_2(answer: Callable[[torch.Tensor, int, int], torch.Tensor]) -> str:
    """`merge_heads(weight, heads, kv_heads)`: keys for fewer heads, each the mean of its group's (Ainslie et al.)."""
    generator = torch.Generator().manual_seed(93)
    cases = [(6, 2, 4, 5), (4, 1, 2, 3), (4, 4, 3, 4), (9, 3, 4, 7), (8, 4, 2, 16)]
    got, expected, strided, summed, within = [], [], [], [], []
    for heads, kv_heads, head_dim, width in cases:
        weight = torch.randn(heads * head_dim, width, generator=generator)
        each = weight.view(heads, head_dim, width)
        expected.append(each.view(kv_heads, -1, head_dim, width).mean(1).reshape(-1, width))
        strided.append(each.view(-1, kv_heads, head_dim, width).mean(0).reshape(-1, width))
        summed.append(each.view(kv_heads, -1, head_dim, width).sum(1).reshape(-1, width))
        within.append(weight.view(kv_heads * head_dim, -1, width).mean(1))
        given = weight.clone()
        result = read_tensor(answer(given, heads, kv_heads), "A tensor")
        case = f"For {heads} heads of {head_dim} numbers, {kv_heads} heads of keys and an input of {width}: "
        shape = (kv_heads * head_dim, width)
        expect(tuple(result.shape) == shape, f"{case}your result has shape {tuple(result.shape)}; expected {shape}.")
        expect(torch.equal(given, weight), f"{case}your function changes the weight that it is given.")
        got.append(result)
    slips = [
        (
            strided,
            "you merge heads that are kv_heads apart (0, 2, 4, ...). Query heads 0, 1, 2, ... share the first one.",
        ),
        (summed, "you add the heads of a group; keys of that size would make the scores larger. Take their mean."),
        (within, "you merge neighbouring rows: these are numbers of one head. Split the rows into heads first."),
    ]
    expect(
        all_agree(got, expected, slips), "each head of keys is the mean of the heads in its group, number by number."
    )
    return (
        "Rows split into (kv_heads, group, D), the mean over the group. Ainslie and others (2023) turned models with "
        "many heads into grouped ones in this way and trained them a little further, with 5 % of the first training."
    )


@exercise("llama.3", "to_q8_0(values)")
def exercise_llama_3(answer: Callable[[torch.Tensor], tuple[float, Any]]) -> str:
    """`to_q8_0(values)`: the scale and the 32 whole numbers of a block, so that what is read is as near as can be."""
    generator = torch.Generator().manual_seed(94)
    blocks = [torch.randn(32, generator=generator) * size for size in (1.0, 0.02, 30.0, 1e-3)]
    blocks += [torch.rand(32, generator=generator) + 1, -torch.rand(32, generator=generator), torch.zeros(32)]
    blocks.append(torch.cat((torch.tensor([-5.0]), torch.rand(31, generator=generator))))
    for values in blocks:
        given = values.clone()
        parts = read_parts(_plain(answer(given)), 2, "Two results are expected: the scale and the 32 numbers.")
        expect(torch.equal(given, values), "Your function changes the values that it is given.")
        scale, numbers = read_tensor(parts[0], "A scale").reshape(-1), read_tensor(parts[1], "A tensor of 32 numbers")
        largest = values.abs().max().item()
        case = f"For 32 numbers, the largest {largest:.4g} in size: "
        expect(scale.numel() == 1, f"{case}one scale is expected, not {scale.numel()}.")
        expect(tuple(numbers.shape) == (32,), f"{case}32 numbers are expected, not a shape of {tuple(numbers.shape)}.")
        expect(not scale.isnan().any() and not numbers.isnan().any(), f"{case}there are NaNs. What if all are zero?")
        expect(torch.equal(numbers, numbers.round()), f"{case}whole numbers are expected; these have fractions.")
        low, high = numbers.min().item(), numbers.max().item()
        expect(
            low >= -128 and high <= 127, f"{case}yours go from {low:.0f} to {high:.0f}; a signed byte has -128 to 127."
        )
        best_scale = largest / 127
        expect(largest > 0 or not (scale * numbers).any(), f"{case}zeros must stay zeros.")
        error = (scale * numbers - values).abs().max().item()
        allowed = 0.57 * best_scale + 1e-12  # half a step, and what a scale in float16 is off by
        if error > allowed:
            floors = same(numbers, torch.floor(values.double() / best_scale)) if best_scale else False
            cuts = same(numbers, torch.trunc(values.double() / best_scale)) if best_scale else False
            expect(not floors and not cuts, f"{case}you cut fractions off. Rounding halves the largest error.")
            raise Hint(
                f"{case}the largest error is {error:.4g}; with a good scale it is half a step, {best_scale / 2:.4g}. "
                "The number that is largest in size should use the whole range, and nothing may be cut off at its ends."
            )
    return (
        "The largest size becomes 127 and gives the scale; everything else is divided by it and rounded, so no number "
        "is off by more than half of the scale. A single large number therefore costs all others in its block their "
        "precision, which is why blocks are short."
    )


def _plain(result: Any) -> Any:
    """A pair, or an array or tensor of bytes as they stand in a file."""
    if isinstance(result, bytes) and len(result) == 34:
        numbers = np.frombuffer(result, dtype=np.uint8)
        return numbers[:2].view(np.float16).astype(np.float32), numbers[2:].view(np.int8).copy()
    return result if not isinstance(result, list) else tuple(result)


self_test_llama = self_test("llama", "from_gpt_to_llama")
