"""Checkers for appendix E."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ._core import exercise, expect, expect_close, expect_kind, explained, read_integer, read_numbers, self_test


@exercise("E.1")
def exercise_e_1(answer: Sequence[int]) -> str:
    """Check (A and B beside 768 -> 3072 at rank 8, largest rank that saves at 768 x 768, one block at rank 16)."""
    hint = "Three whole numbers are expected, as a tuple."
    numbers = read_numbers(answer, 3, hint)
    expect(all(number.is_integer() for number in numbers), hint)
    layer, rank, block = numbers
    emb, hidden = 768, 3072
    slips = [
        (8 * emb * hidden, "A is 768 × 8 and B is 8 × 3072. Count the two and add."),
        (emb + hidden, "that is for rank 1."),
        (emb * hidden, "that is W itself."),
    ]
    size = "how many rows and columns have A and B?"
    expect_close(layer, 8 * (emb + hidden), "First number:", slips, otherwise=size)
    as_many = emb * emb // (emb + emb)
    slips = [(as_many, "at that rank A and B have as many numbers as W, and none is saved.")]
    steps = "each step in rank costs 768 + 768 numbers. How many steps fit below 768 · 768?"
    expect_close(rank, as_many - 1, "Second number:", slips, otherwise=steps)
    attention, feed_forward = 4 * 16 * (emb + emb), 2 * 16 * (emb + hidden)
    slips = [
        (attention, "those are the four layers of attention. The feed-forward part has two."),
        (feed_forward, "those are the two feed-forward layers. Attention has four."),
        (12 * (attention + feed_forward), "that is for all twelve blocks."),
    ]
    layers = "four layers are 768 × 768, one is 768 × 3072 and one 3072 × 768, each with A and B of rank 16."
    expect_close(block, attention + feed_forward, "Third number:", slips, otherwise=layers)
    return (
        "A layer costs rank · (inputs + outputs), so the rank at which nothing is saved is the product of the two "
        "sizes over their sum. Twelve such blocks, and A and B beside a head of two classes, make the published "
        "2,666,528."
    )


def _case(generator: torch.Generator, d_in: int, d_out: int, rank: int) -> tuple[torch.Tensor, ...]:
    shapes = ((d_out, d_in), (d_out,), (d_in, rank), (rank, d_out))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


_CASES = ((4, 4, 2, 8.0), (5, 3, 1, 0.5), (3, 6, 4, 2.0), (6, 6, 3, 3.0))  # d_in, d_out, rank, alpha
_ABOUT_SHAPES = "shape|size"  # in PyTorch's messages


@exercise("E.2", "lora_forward(x, weight, bias, A, B, alpha)")
def exercise_e_2(answer: Callable[..., torch.Tensor]) -> str:
    """Check `lora_forward(x, weight, bias, A, B, alpha)`, with weight (d_out, d_in) as in `nn.Linear`."""
    generator = torch.Generator().manual_seed(5)
    for d_in, d_out, rank, alpha in _CASES:
        weight, bias, a, b = _case(generator, d_in, d_out, rank)
        x = torch.randn(2, 3, d_in, generator=generator)
        case = f"With d_in={d_in}, d_out={d_out}, rank={rank}, alpha={alpha:g}:"
        with explained(RuntimeError, f"{case} nn.Linear keeps its weight as (d_out, d_in).", _ABOUT_SHAPES):
            got = answer(x.clone(), weight.clone(), bias.clone(), a.clone(), b.clone(), alpha)
        expect_kind(got, torch.Tensor, f"{case} a tensor")
        plain, product = x @ weight.T + bias, x @ a @ b
        scaled = alpha / rank * product
        slips = [
            (plain + alpha * product, "the product is scaled by alpha alone. Divide it by the rank, too."),
            (plain + product, "the product is not scaled."),
            (scaled, "the linear layer is missing: its output is added to the scaled product."),
            (plain - bias + scaled, "the bias is missing."),
            (plain, "that is the linear layer's output alone."),
            (
                plain + alpha / d_in * product,
                "alpha is divided by the number of inputs. The rank is the number of columns of A.",
            ),
            (alpha / rank * (plain + product), "the output of the linear layer is scaled as well."),
        ]
        if d_in == d_out:
            hint = "weight lies the wrong way round: nn.Linear keeps it as (d_out, d_in)."
            slips.append((x @ weight + bias + scaled, hint))
        expect_close(got, plain + scaled, case, slips)
    return (
        "Two paths from the same input, one through the frozen weight and its bias, one through r numbers, scaled by "
        "alpha / r. Whether the product is taken as (x A) B or as x (A B) is the same, but the first is less work."
    )


@exercise("E.3", "merged_weight(weight, A, B, alpha)")
def exercise_e_3(answer: Callable[..., torch.Tensor]) -> str:
    """Check `merged_weight(weight, A, B, alpha)`, the (d_out, d_in) weight of one linear layer that does the same."""
    generator = torch.Generator().manual_seed(6)
    for d_in, d_out, rank, alpha in _CASES:
        weight, _, a, b = _case(generator, d_in, d_out, rank)
        case = f"With d_in={d_in}, d_out={d_out}, rank={rank}, alpha={alpha:g}:"
        given = weight.clone()
        with explained(RuntimeError, f"{case} compare the shape of A B with weight's.", _ABOUT_SHAPES):
            got = answer(given, a.clone(), b.clone(), alpha)
        expect(torch.equal(given, weight), "The weight that was handed in has changed. Make a new one.")
        expect_kind(got, torch.Tensor, f"{case} a tensor")
        delta = (a @ b).T
        scaled = alpha / rank * delta
        slips = [
            (weight + alpha * delta, "alpha is not divided by the rank."),
            (weight + delta, "the product is not scaled."),
            (weight - scaled, "the product is subtracted, which is what unmerging does."),
            (scaled, "that is what has to be added, without the weight."),
        ]
        if d_in == d_out:
            hint = "the product lies the wrong way round. weight is (d_out, d_in), A B is (d_in, d_out)."
            slips.append((weight + scaled.T, hint))
        expect(
            d_in == d_out or got.shape != (d_in, d_out),
            f"{case} the result is (d_in, d_out). nn.Linear keeps its weight as (d_out, d_in).",
        )
        expect_close(got, weight + scaled, case, slips)
    return (
        "The product becomes one matrix of the weight's shape and is added once and for all. The bias stays what it "
        "was, since LoRA adds nothing that does not depend on the input."
    )


@exercise("E.4", "largest_rank(shapes, budget)")
def exercise_e_4(answer: Callable[[Sequence[tuple[int, int]], int], int]) -> str:
    """Check `largest_rank(shapes, budget)` with shapes a list of (d_in, d_out)."""
    block = [(768, 768)] * 4 + [(768, 3072), (3072, 768)]
    for shapes, budget in (
        ([(10, 6)], 100),
        ([(10, 6)], 96),
        ([(256, 256), (256, 1024)], 20_000),
        (block * 12 + [(768, 2)], 2_666_528),
        (block * 12 + [(768, 2)], 2_666_527),
        ([(64, 64)] * 3, 127),
    ):
        case = f"With {len(shapes)} layers, the first {shapes[0]}, and budget={budget}:"
        per_rank = sum(d_in + d_out for d_in, d_out in shapes)
        largest = budget // per_rank
        got = answer(list(shapes), budget)
        expect(not isinstance(got, float), f"{case} a rank is a whole number; {got!r} is a float.")
        got = read_integer(got, "The rank")
        whole = sum(d_in * d_out for d_in, d_out in shapes)
        slips = [
            (budget // whole, "you counted the weights themselves. What do A and B have per rank?"),
            (budget // sum(shapes[0]), "that counts the first layer only; all have A and B."),
            (largest + 1, f"rank {got} has more numbers than the budget."),
        ]
        if largest > 0:
            slips.append((largest - 1, f"rank {got} fits, and so does the next one. Use the budget up."))
        else:
            slips.insert(0, (1, "not even rank 1 fits into the budget. Return 0."))
        most = f"rank {got} makes {got * per_rank:,} numbers. Is that the most that fits?"
        expect_close(got, largest, case, slips, otherwise=most)
    return (
        "All layers share one rank, so each step in rank costs the sum of all inputs and outputs, and the budget has "
        "room for so many whole steps. One number less than the published 2,666,528, and only rank 15 fits."
    )


self_test_e = self_test("e", "appendix_e")
