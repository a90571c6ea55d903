"""Checkers for the bonus notebook on FLOPs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from ...gpt import gpt_config
from ...speed.flops import CHINCHILLA, REPLICATION, ScalingLaw, forward_flops
from ._core import Hint, all_agree, exercise, expect, read_integer, read_number, self_test


def _share(cfg: dict[str, Any], num_tokens: int, without: tuple[str, ...] = ()) -> float:
    """The share of the T × T products in a forward pass, of which some parts may be left out."""
    parts = forward_flops(cfg, num_tokens)
    products = parts["queries @ keys"] + parts["weights @ values"]
    return products / sum(flops for name, flops in parts.items() if name not in without)


def _first(holds: Callable[[int], bool]) -> int:
    """The smallest whole number from 1 on for which something holds that goes on holding."""
    high = 1
    while not holds(high):
        high *= 2
    low = high // 2  # does not hold there, or is 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@exercise("flops.1", "crossover(cfg, share)")
def exercise_flops_1(answer: Callable[[dict[str, Any], float], int]) -> str:
    """`crossover(cfg, share)`: from which length on the T × T products are a share of a forward pass."""
    rng = random.Random(141)
    cases = [(gpt_config("124M"), 0.5), (gpt_config("1558M"), 0.1), (gpt_config("124M"), 0.999)]
    cases.append((gpt_config("124M", n_layers=1, vocab_size=10), 1e-6))
    for _ in range(8):
        cfg = gpt_config(
            rng.choice(["124M", "355M", "774M", "1558M"]),
            n_layers=rng.randint(1, 60),
            vocab_size=rng.choice([50, 32_000, 50_257, 128_000]),
        )
        cases.append((cfg, rng.choice([0.053, 0.257, 0.331, 0.613, 0.897])))
    got, right = [], []
    slips: dict[str, list[int]] = {"output": [], "ratio": [], "before": []}
    for cfg, share in cases:
        what = (
            f"For emb_dim={cfg['emb_dim']}, n_layers={cfg['n_layers']}, vocab_size={cfg['vocab_size']:,} and "
            f"share={share} your result"
        )
        got.append(read_integer(answer(dict(cfg), share), what))
        right.append(_first(lambda n, cfg=cfg, share=share: _share(cfg, n) >= share))
        slips["output"].append(_first(lambda n, cfg=cfg, share=share: _share(cfg, n, ("output layer",)) >= share))
        of_all = share / (1 + share)  # where the products are `share` times the rest
        slips["ratio"].append(_first(lambda n, cfg=cfg, of_all=of_all: _share(cfg, n) >= of_all))
        slips["before"].append(right[-1] - 1)
    hints = {
        "output": "You leave the output layer out of all operations.",
        "ratio": "You compare the two products with everything else. A share is of all operations, also of their own.",
        "before": "You are one short: at your length the share is not reached yet.",
    }
    if not all_agree(got, right, [(slips[name], hint) for name, hint in hints.items()]):
        number = next(n for n, (a, b) in enumerate(zip(got, right, strict=True)) if a != b)
        cfg, share = cases[number]
        reached = _share(cfg, max(1, got[number]))
        raise Hint(
            f"For emb_dim={cfg['emb_dim']}, n_layers={cfg['n_layers']}, vocab_size={cfg['vocab_size']:,} and "
            f"share={share} you give {got[number]:,} tokens. There the share is {reached:.6f}, and the smallest number "
            f"of tokens that reaches it is {'smaller' if got[number] > right[number] else 'larger'}."
        )
    return (
        "The share grows with every token, so the first length that reaches it can be found by halving an interval, or "
        "by solving 4TCL ≥ share · (24C²L + 2CV + 4TCL) for T. The number of heads plays no part."
    )


@exercise("flops.2", "cheapest(law, loss, served)")
def exercise_flops_2(answer: Callable[[ScalingLaw, float, float], float]) -> str:
    """`cheapest(law, loss, served)`: the size that reaches a loss with the fewest operations, use included."""
    cases = [
        (CHINCHILLA, 2.5, 0.0),
        (CHINCHILLA, 2.5, 1e12),
        (CHINCHILLA, 2.2, 1e13),
        (CHINCHILLA, 3.0, 1e11),
        (REPLICATION, 2.4, 1e12),
        (REPLICATION, 2.1, 1e14),
        (REPLICATION, 2.8, 1e9),
        (ScalingLaw(1.5, 300.0, 900.0, 0.36, 0.33), 2.3, 3e12),
    ]
    got, right = [], []
    slips: dict[str, list[float]] = {"served": [], "triple": [], "smallest": []}
    for law, loss, served in cases:
        what = f"For a loss of {loss} and {served:,.0f} tokens served your result"
        size = read_number(answer(law, loss, served), what)
        expect(math.isfinite(size) and size > 0, f"{what} is {size}; a number of parameters is expected.")
        got.append(size)
        right.append(_cheapest(law, loss, served))
        slips["served"].append(_cheapest(law, loss, 0.0))
        slips["triple"].append(_cheapest(law, loss, 3 * served))
        slips["smallest"].append((law.A / (loss - law.E)) ** (1 / law.alpha))
    hints = {
        "served": "Your answer does not depend on the tokens served: that is the cheapest size to train.",
        "triple": "You count 6 operations per parameter for a token served. There is no backward pass in use.",
        "smallest": "Your model is the smallest that could ever reach the loss, and would need endless text for it.",
    }
    tolerance = {"rtol": 0.02, "atol": 0.0}
    if not all_agree(got, right, [(slips[name], hint) for name, hint in hints.items()], **tolerance):
        number = next(n for n, (a, b) in enumerate(zip(got, right, strict=True)) if abs(a - b) > 0.02 * b)
        law, loss, served = cases[number]
        least = (law.A / (loss - law.E)) ** (1 / law.alpha)
        said = f"For a loss of {loss} and {served:,.0f} tokens served you give {got[number]:,.0f} parameters. "
        if got[number] <= least:
            raise Hint(f"{said}So small a model cannot reach this loss with any amount of text.")
        yours, best = _operations(law, loss, served, got[number]), _operations(law, loss, served, right[number])
        raise Hint(f"{said}That costs {yours:.4g} operations, and {best:.4g} would do.")
    return (
        "With no use at all this is the split that the notebook finds for the budget; the more a model is used, the "
        "smaller it should be, and the more text it takes to bring it to the same loss. Sardana and others (2024) work "
        "this out for real demands."
    )


def _operations(law: ScalingLaw, loss: float, served: float, size: float) -> float:
    """What training to a loss and serving take for a model of this size; infinite where it cannot reach the loss."""
    left = loss - law.E - law.A / size**law.alpha
    return math.inf if left <= 0 else 6 * size * (law.B / left) ** (1 / law.beta) + 2 * size * served


def _cheapest(law: ScalingLaw, loss: float, served: float) -> float:
    """The minimum of `_operations`, which falls and then rises, by narrowing an interval of logarithms."""
    low, high = math.log((law.A / (loss - law.E)) ** (1 / law.alpha)), math.log(1e15)
    for _ in range(200):
        third = (high - low) / 3
        costs = [_operations(law, loss, served, math.exp(low + part * third)) for part in (1, 2)]
        low, high = (low, high - third) if costs[0] < costs[1] else (low + third, high)
    return math.exp((low + high) / 2)


@exercise("flops.3", "enough_rows(d_in, d_out, peak, bandwidth, size)", may_return_none=True)
def exercise_flops_3(answer: Callable[[int, int, float, float, int], int | None]) -> str:
    """`enough_rows(d_in, d_out, peak, bandwidth, size)`: from how many rows on a product is limited by arithmetic."""
    cases = [
        (768, 3072, 1e11, 2e10, 4),
        (4096, 4096, 1e15, 3e12, 2),
        (16, 16, 1e12, 1e11, 4),  # never
        (4096, 11_008, 1e13, 1e12, 1),
        (256, 50_257, 1e11, 2e10, 4),
        (64, 64, 64e9, 1e9, 2),  # exactly never
        (1000, 500, 1e9, 1e12, 4),  # with one row
    ]
    rng = random.Random(143)
    for _ in range(7):
        sizes = rng.choice([64, 256, 768, 1024, 4096]), rng.choice([64, 256, 768, 3072, 16_384])
        cases.append((*sizes, 10.0 ** rng.randint(10, 15), rng.choice([1e10, 5e10, 1e12, 3e12]), rng.choice([1, 2, 4])))
    got, right = [], []
    slips: dict[str, list[int | None]] = {"single": [], "matrix": [], "bytes": [], "result": []}
    for d_in, d_out, peak, bandwidth, size in cases:
        value = answer(d_in, d_out, peak, bandwidth, size)
        what = f"For d_in={d_in:,}, d_out={d_out:,}, peak={peak:g}, bandwidth={bandwidth:g} and size={size} your result"
        got.append(None if value is None else read_integer(value, what))
        right.append(_rows(d_in, d_out, peak, bandwidth, size))
        slips["single"].append(_rows(d_in, d_out, 2 * peak, bandwidth, size))
        slips["matrix"].append(max(1, math.ceil(size * peak / (2 * bandwidth))))
        slips["bytes"].append(_rows(d_in, d_out, peak, bandwidth, 1))
        slips["result"].append(_rows(d_in, 0, peak, bandwidth, size, of=d_out))
    if got == right:
        return (
            "Each row brings arithmetic in proportion to d_in · d_out, and traffic only in proportion to d_in + d_out; "
            "the matrix is moved once for all. If a row's own traffic takes longer than its arithmetic, as with small "
            "matrices, more rows do not help. Weights of fewer bytes need fewer rows."
        )
    hints = {
        "single": "You count one operation per weight and row; a multiplication and an addition are two.",
        "matrix": "You move the matrix alone. The batch and the result move as well.",
        "bytes": "You count numbers as if they were bytes.",
        "result": "You leave the result out of what is moved.",
    }
    for name, hint in hints.items():
        expect(got != slips[name], hint)
    number = next(n for n, (a, b) in enumerate(zip(got, right, strict=True)) if a != b)
    d_in, d_out, peak, bandwidth, size = cases[number]
    where = f"For d_in={d_in:,}, d_out={d_out:,}, peak={peak:g}, bandwidth={bandwidth:g} and size={size}"
    if right[number] is None:
        raise Hint(
            f"{where} you give {got[number]:,}, but no number of rows is enough: compare what one more row adds to "
            "either side."
        )
    if got[number] is None:
        raise Hint(f"{where} you give None, but a number of rows exists.")
    relation = "more than" if got[number] > right[number] else "fewer than"
    raise Hint(f"{where} you give {got[number]:,}, which is {relation} the smallest number of rows that is enough.")


def _rows(d_in: int, d_out: int, peak: float, bandwidth: float, size: int, of: int | None = None) -> int | None:
    """The smallest number of rows; `of` is the real d_out where the result, (rows, d_out), is not to be counted."""
    columns = d_out if of is None else of
    gain = 2 * d_in * columns * bandwidth - size * (d_in + d_out) * peak  # what one more row adds, in favour
    matrix = size * d_in * columns * peak
    return None if gain <= 0 else max(1, math.ceil(matrix / gain))


self_test_flops = self_test("flops", "flops")
