"""Checkers for appendix E."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch

from ._core import Hint, Question, exercise, expect, expect_close, expect_function, self_test

__all__ = ["exercise_e_1", "exercise_e_2", "exercise_e_3", "exercise_e_4", "self_test_e"]


def _whole(value: Any, what: str) -> int:
    """`value` as an integer; raises Hint unless it is a whole number."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    expect(isinstance(value, Real) and value == int(value), f"{what} must be a whole number, not {value!r}.")
    return int(value)


@exercise("E.1")
def exercise_e_1(answer: Sequence[int]) -> str:
    """Check (A and B beside 768 -> 3072 at rank 8, largest rank that saves at 768 x 768, one block at rank 16)."""
    expect(isinstance(answer, tuple | list) and len(answer) == 3, "Three numbers are wanted, as a tuple.")
    layer, rank, block = (_whole(value, "Each of the three") for value in answer)
    expect(layer != 8 * 768 * 3072, "First number: A is 768 × 8 and B is 8 × 3072. Count the two and add.")
    expect(layer != 768 + 3072, "First number: that is for rank 1.")
    expect(layer != 768 * 3072, "First number: that is W itself.")
    expect(layer == 8 * (768 + 3072), "First number: how many rows and columns have A and B?")
    expect(rank != 384, "Second number: at that rank A and B have as many numbers as W, and none is saved.")
    expect(rank == 383, "Second number: each step in rank costs 768 + 768 numbers. How many steps fit below 768 · 768?")
    attention, feed_forward = 4 * 16 * (768 + 768), 2 * 16 * (768 + 3072)
    expect(block != attention, "Third number: those are the four layers of attention. The feed-forward part has two.")
    expect(block != feed_forward, "Third number: those are the two feed-forward layers. Attention has four.")
    expect(block != 12 * (attention + feed_forward), "Third number: that is for all twelve blocks.")
    expect(
        block == attention + feed_forward,
        "Third number: four layers are 768 × 768, one is 768 × 3072 and one 3072 × 768, each with A and B of rank 16.",
    )
    return (
        "A layer costs rank · (inputs + outputs), so the rank at which nothing is saved is the product of the two "
        "sizes over their sum. Twelve such blocks, and A and B beside a head of two classes, make the published "
        "2,666,528."
    )


def _case(generator: torch.Generator, d_in: int, d_out: int, rank: int) -> tuple[torch.Tensor, ...]:
    shapes = ((d_out, d_in), (d_out,), (d_in, rank), (rank, d_out))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


_CASES = ((4, 4, 2, 8.0), (5, 3, 1, 0.5), (3, 6, 4, 2.0), (6, 6, 3, 3.0))


@exercise("E.2")
def exercise_e_2(answer: Callable[..., torch.Tensor]) -> str:
    """Check `lora_forward(x, weight, bias, A, B, alpha)`, with weight (d_out, d_in) as in `nn.Linear`."""
    expect_function(answer, "lora_forward(x, weight, bias, A, B, alpha)")
    generator = torch.Generator().manual_seed(5)
    for d_in, d_out, rank, alpha in _CASES:
        weight, bias, a, b = _case(generator, d_in, d_out, rank)
        x = torch.randn(2, 3, d_in, generator=generator)
        case = f"With d_in={d_in}, d_out={d_out}, rank={rank}, alpha={alpha:g}:"
        try:
            got = answer(x.clone(), weight.clone(), bias.clone(), a.clone(), b.clone(), alpha)
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            raise Hint(
                f"{case} the shapes do not go together ({first}). nn.Linear keeps its weight as (d_out, d_in)."
            ) from None
        plain, product = x @ weight.T + bias, x @ a @ b
        slips = {
            "the product is scaled by alpha alone. Divide it by the rank, too.": plain + alpha * product,
            "the product is not scaled.": plain + product,
            "the linear layer is missing: its output is added to the scaled product.": alpha / rank * product,
            "the bias is missing.": plain - bias + alpha / rank * product,
            "that is the linear layer's output alone.": plain,
            "alpha is divided by the number of inputs. The rank is the number of columns of A.": plain
            + alpha / d_in * product,
            "the output of the linear layer is scaled as well.": alpha / rank * (plain + product),
        }
        if d_in == d_out:
            wrong = x @ weight + bias + alpha / rank * product
            slips["weight lies the wrong way round: nn.Linear keeps it as (d_out, d_in)."] = wrong
        right = plain + alpha / rank * product
        _compare(got, right, slips, case)
    return (
        "Two paths from the same input, one through the frozen weight and its bias, one through r numbers, scaled by "
        "alpha / r. Whether the product is taken as (x A) B or as x (A B) is the same, but the first is less work."
    )


@exercise("E.3")
def exercise_e_3(answer: Callable[..., torch.Tensor]) -> str:
    """Check `merged_weight(weight, A, B, alpha)`, the (d_out, d_in) weight of one linear layer that does the same."""
    expect_function(answer, "merged_weight(weight, A, B, alpha)")
    generator = torch.Generator().manual_seed(6)
    for d_in, d_out, rank, alpha in _CASES:
        weight, _, a, b = _case(generator, d_in, d_out, rank)
        case = f"With d_in={d_in}, d_out={d_out}, rank={rank}, alpha={alpha:g}:"
        given = weight.clone()
        try:
            got = answer(given, a.clone(), b.clone(), alpha)
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            raise Hint(
                f"{case} the shapes do not go together ({first}). Compare the shape of A B with weight's."
            ) from None
        expect(torch.equal(given, weight), "The weight that was handed in has changed. Make a new one.")
        delta = a @ b
        slips = {
            "alpha is not divided by the rank.": weight + alpha * delta.T,
            "the product is not scaled.": weight + delta.T,
            "the product is subtracted, which is what unmerging does.": weight - alpha / rank * delta.T,
            "that is what has to be added, without the weight.": alpha / rank * delta.T,
        }
        if d_in == d_out:
            slips["the product lies the wrong way round. weight is (d_out, d_in), A B is (d_in, d_out)."] = (
                weight + alpha / rank * delta
            )
        if isinstance(got, torch.Tensor) and got.shape == (d_in, d_out) != (d_out, d_in):
            raise Hint(f"{case} the result is (d_in, d_out). nn.Linear keeps its weight as (d_out, d_in).")
        _compare(got, weight + alpha / rank * delta.T, slips, case)
    return (
        "The product becomes one matrix of the weight's shape and is added once and for all. The bias stays what it "
        "was, since LoRA adds nothing that does not depend on the input."
    )


def _compare(got: Any, right: torch.Tensor, slips: dict[str, torch.Tensor], case: str) -> None:
    """Raise Hint unless `got` is `right`, with the slip's own words if it is the result of one."""
    expect(isinstance(got, torch.Tensor), f"{case} a tensor is wanted, not {type(got).__name__}.")
    for words, wrong in slips.items():
        same = got.shape == wrong.shape and torch.allclose(got, wrong, rtol=1e-3, atol=1e-4)
        expect(not same or torch.allclose(wrong, right, rtol=1e-3, atol=1e-4), f"{case} {words}")
    expect_close(got, right, case)


@exercise("E.4")
def exercise_e_4(answer: Callable[[Sequence[tuple[int, int]], int], int]) -> str:
    """Check `largest_rank(shapes, budget)` with shapes a list of (d_in, d_out)."""
    expect_function(answer, "largest_rank(shapes, budget)")
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
        want = budget // per_rank
        got = answer(list(shapes), budget)
        expect(not isinstance(got, float), f"{case} a rank is a whole number; {got!r} is a float.")
        got = _whole(got, "The rank")
        if got == want:
            continue
        whole = sum(d_in * d_out for d_in, d_out in shapes)
        expect(got != budget // whole, f"{case} you counted the weights themselves. What do A and B have per rank?")
        expect(
            got != budget // (shapes[0][0] + shapes[0][1]),
            f"{case} that counts the first layer only; all have A and B.",
        )
        expect(not (want == 0 and got == 1), f"{case} not even rank 1 fits into the budget. Return 0.")
        expect(got != want + 1, f"{case} rank {got} has more numbers than the budget.")
        expect(
            got != want - 1 or got < 0,
            f"{case} rank {got} fits, and so does the next one. A budget may be used up to the last number.",
        )
        raise Hint(f"{case} rank {got} makes {got * per_rank:,} numbers. Is that the most that fits?")
    return (
        "All layers share one rank, so each step in rank costs the sum of all inputs and outputs, and the budget has "
        "room for so many whole steps. One number less than the published 2,666,528, and only rank 15 fits."
    )


_QUESTIONS = (
    Question(
        "Why does B begin at zero?",
        {
            "a": (False, "zeros are stored like all other numbers, four bytes each."),
            "b": (True, "with B = 0 the product is 0, so training begins at the pretrained model and not beside it."),
            "c": (False, "A does get no gradient in the first update, but B does, and from then on both are trained."),
        },
    ),
    Question(
        "You double the rank. What is alpha / rank good for?",
        {
            "a": (True, "twice as many terms are added up, and each is weighted half, so the size stays comparable."),
            "b": (False, "the number of trained numbers doubles with the rank, whatever alpha is."),
            "c": (False, "the scale is a constant of the layer; the optimizer's own settings are not touched."),
        },
    ),
    Question(
        "A linear layer takes 1,024 numbers and gives 4,096. How many numbers do A and B have at rank 8?",
        {
            "a": (False, "that would be eight whole matrices."),
            "b": (False, "that is for rank 1; each further step in rank costs as much again."),
            "c": (True, "A is 1,024 × 8 and B is 8 × 4,096; together 8 · 5,120."),
        },
    ),
    Question(
        "What does merging cost when the model is used?",
        {
            "a": (True, "the layers are plain linear layers of the former sizes; only their numbers are others."),
            "b": (False, "that is what an adapter costs before it is merged: two more products in each layer."),
            "c": (False, "no layer gets smaller; the thin matrices have gone into the large one."),
        },
    ),
    Question(
        "An adapter was trained on one model and is loaded onto another one of the same sizes. What happens?",
        {
            "a": (False, "the shapes agree, so there is nothing that could be noticed."),
            "b": (False, "nothing is trained when an adapter is loaded."),
            "c": (True, "A and B are a correction to certain weights, and added to others they correct nothing."),
        },
    ),
)

self_test_e = self_test("e", _QUESTIONS)
