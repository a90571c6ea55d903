"""Checkers for the bonus notebook on the KV cache."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...gpt import GPTModel, gpt_config
from ._core import (
    Hint,
    all_agree,
    exercise,
    expect,
    expect_close,
    expect_tells_apart,
    explained,
    read_integer,
    read_truth,
    self_test,
)

# ---- kv.1: chunk_mask(before, new) ---------------------------------------------------------------------------------


def _read_mask(value: Any, case: str) -> torch.Tensor:
    """A boolean tensor, or an array or lists of booleans."""
    try:
        mask = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise Hint(f"{case} a tensor is expected, not {type(value).__name__}.") from None
    return mask


@exercise("kv.1", "chunk_mask(before, new)")
def exercise_kv_1(answer: Callable[[int, int], torch.Tensor]) -> str:
    """`chunk_mask(before, new)`: true where one of `new` tokens after `before` others must not look."""
    rng = random.Random(91)
    sizes = [(3, 2), (0, 1), (5, 1), (0, 4), (1, 3)] + [(rng.randint(0, 9), rng.randint(1, 9)) for _ in range(30)]
    masks = []
    for before, new in sizes:
        where = f"For before={before}, new={new}:"
        got = _read_mask(answer(before, new), where)
        shape = (new, before + new)
        expect(
            got.shape == shape,
            f"{where} your mask has shape {tuple(got.shape)}; a row for each new token and a column for every token "
            f"makes {shape}.",
        )
        expect(got.dtype == torch.bool, f"{where} your mask is {got.dtype}; true and false are expected.")
        masks.append(got.tolist())

    def everywhere(hidden: Callable[[int, int, int], bool]) -> list[list[list[bool]]]:
        """The masks of all sizes by a rule for row, column and the number of kept tokens."""
        return [[[hidden(i, j, before) for j in range(before + new)] for i in range(new)] for before, new in sizes]

    right = everywhere(lambda row, column, before: column > before + row)
    if masks == right:
        return (
            "Every new token sees all kept ones, itself, and the new ones before it: the last rows of the triangle "
            "that chapter 3 uses. For a single new token nothing is hidden, so decoding needs no mask."
        )
    number = next(number for number, (got, mask) in enumerate(zip(masks, right, strict=True)) if got != mask)
    slips = [
        (lambda row, column, before: column <= before + row, "You mark where a token may look; mark where it may not."),
        (lambda row, column, before: column > row, "You hide kept tokens. All of them are earlier than the new ones."),
        (
            lambda row, column, before: column >= before + row,
            "You hide each token from itself; it may look at itself.",
        ),
        (lambda row, column, before: False, "You hide nothing; a new token must not see the ones after it."),
        (
            lambda row, column, before: column >= before and column != before + row,
            "You hide all other new tokens; those before it are the past of a new token, like the kept ones.",
        ),
        (
            lambda row, column, before: column < before + row,
            "You hide the past, and leave what comes after a token visible.",
        ),
    ]
    rows = f"For before={sizes[number][0]}, new={sizes[number][1]}, a row per new token, × where it must not look:"
    rows = f"{rows}\nexpected {_drawn(right[number])}\ngot      {_drawn(masks[number])}"
    for rule, hint in slips:
        expect(masks != everywhere(rule), f"{hint} {rows}")
    raise Hint(rows)


def _drawn(mask: list[list[bool]]) -> str:
    return " / ".join("".join("×" if hidden else "·" for hidden in row) for row in mask)


# ---- kv.2: is_right(model, start) ----------------------------------------------------------------------------------

TINY = {"vocab_size": 40, "context_length": 12, "emb_dim": 16, "n_heads": 2, "n_layers": 2}

Read = Callable[[torch.Tensor], torch.Tensor]


class _Reader:
    """A GPT that reads a text piece by piece and keeps keys and values; the methods below have the mistakes."""

    def __init__(self, model: GPTModel):
        self.model, self.length, self.calls = model, 0, 0
        heads, width = model.trf_blocks[0].att.num_heads, model.trf_blocks[0].att.head_dim
        empty = torch.zeros(1, heads, 0, width, dtype=model.pos_emb.weight.dtype)
        self.kept = [(empty, empty) for _ in model.trf_blocks]  # keys and values (1, H, T, D) of each block

    def positions(self, count: int) -> torch.Tensor:
        return torch.arange(self.length, self.length + count)

    def hidden(self, count: int) -> torch.Tensor:
        """True where a new token must not look, (N, T)."""
        return torch.ones(count, self.length + count, dtype=torch.bool).triu(self.length + 1)

    def add(self, number: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values of a block, the new ones at the end."""
        old_keys, old_values = self.kept[number]
        self.kept[number] = torch.cat((old_keys, keys), dim=2), torch.cat((old_values, values), dim=2)
        return self.kept[number]

    def last(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, -1]

    @torch.no_grad()
    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """The logits (1, V) after the last of the new tokens `ids` (1, N)."""
        model, count = self.model, ids.shape[1]
        expect(
            ids.shape[0] == 1 and count > 0 and self.length + count <= TINY["context_length"],
            f"`read` takes ids of shape (1, N), at least one and at most {TINY['context_length']} in all of a text; "
            f"after {self.length} tokens yours have the shape {tuple(ids.shape)}.",
        )
        x = model.tok_emb(ids) + model.pos_emb(self.positions(count))
        hidden = self.hidden(count)
        for number, block in enumerate(model.trf_blocks):
            att, normed = block.att, block.norm1(x)
            split = (1, count, att.num_heads, att.head_dim)
            query, key, value = (
                layer(normed).view(split).transpose(1, 2) for layer in (att.W_query, att.W_key, att.W_value)
            )
            keys, values = self.add(number, key, value)
            scores = (query @ keys.transpose(2, 3)).masked_fill(hidden, -torch.inf) / att.head_dim**0.5
            x = x + att.out_proj((torch.softmax(scores, dim=-1) @ values).transpose(1, 2).flatten(2))
            x = x + block.ff(block.norm2(x))
        self.length, self.calls = self.length + count, self.calls + 1
        return model.out_head(model.final_norm(self.last(x))).float()


class _Again(_Reader):
    """No cache: all tokens so far, each time."""

    def __init__(self, model: GPTModel):
        super().__init__(model)
        self.ids = torch.zeros(1, 0, dtype=torch.long)

    @torch.no_grad()
    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        self.ids = torch.cat((self.ids, ids), dim=1)
        return self.model(self.ids)[:, -1]


class _FromZero(_Reader):
    def positions(self, count: int) -> torch.Tensor:
        return torch.arange(count)


class _OneLate(_Reader):
    def positions(self, count: int) -> torch.Tensor:
        return (super().positions(count) + (self.length > 0)).clamp(max=TINY["context_length"] - 1)


class _CountsCalls(_Reader):
    def positions(self, count: int) -> torch.Tensor:
        return torch.arange(count) + self.calls


class _AfterEight(_Reader):
    def positions(self, count: int) -> torch.Tensor:
        return super().positions(count) % 8


class _NoMaskLater(_Reader):
    def hidden(self, count: int) -> torch.Tensor:
        return super().hidden(count) & (self.length == 0)


class _NoMaskFirst(_Reader):
    def hidden(self, count: int) -> torch.Tensor:
        return super().hidden(count) & (self.length > 0)


class _Square(_Reader):
    def hidden(self, count: int) -> torch.Tensor:
        hidden = torch.ones(count, self.length + count, dtype=torch.bool).triu(1)
        return hidden if count > 1 else torch.zeros_like(hidden)


class _Overwrites(_Reader):
    def add(self, number: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        old_keys, old_values = (part.clone() for part in self.kept[number])
        if self.length:
            old_keys[:, :, -1], old_values[:, :, -1] = keys[:, :, 0], values[:, :, 0]
        self.kept[number] = old_keys, old_values
        return super().add(number, keys, values)


class _Forgets(_Reader):
    def hidden(self, count: int) -> torch.Tensor:
        size = self.length + count
        too_old = torch.ones(count, size, dtype=torch.bool).tril(self.length - 7)
        return super().hidden(count) | too_old


class _OneStore(_Reader):
    def add(self, number: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if number:
            return self.kept[0]
        return super().add(number, keys, values)


class _FirstOfChunk(_Reader):
    def last(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0] if self.length else x[:, -1]


class _Stale(_Reader):
    """Begins with up to three keys and values that a reader of an earlier text has left."""

    def __init__(self, model: GPTModel, earlier: _Reader | None):
        super().__init__(model)
        if earlier is not None:
            self.kept = [(keys[:, :, :3], values[:, :, :3]) for keys, values in earlier.kept]
        self.left = self.kept[0][0].shape[2]

    def hidden(self, count: int) -> torch.Tensor:
        return torch.cat((torch.zeros(count, self.left, dtype=torch.bool), super().hidden(count)), dim=1)


def _carrying_on(model: GPTModel) -> Callable[[], Read]:
    """A `start` whose texts leave something in the cache for the next one."""
    reader: _Reader | None = None

    def start() -> Read:
        nonlocal reader
        reader = _Stale(model, reader)
        return reader

    return start


_RIGHT_READERS: tuple[tuple[str, type[_Reader]], ...] = (("keeps keys and values", _Reader), ("has no cache", _Again))

# What a reader does wrong that the learner's test has accepted.
_FAULTY_READERS: tuple[tuple[str, type[_Reader]], ...] = (
    ("counts the positions of each piece from 0", _FromZero),
    ("puts every new token one place too late after the first piece", _OneLate),
    ("counts pieces in place of tokens for the position", _CountsCalls),
    ("counts positions from 0 again after eight tokens", _AfterEight),
    ("has no mask after the first piece, so that a new token sees the new ones after it", _NoMaskLater),
    ("has no mask in the first piece", _NoMaskFirst),
    ("has the mask of a square for a piece, which hides kept tokens", _Square),
    ("writes the first new key and value over the last kept ones", _Overwrites),
    ("forgets tokens that are more than six places back", _Forgets),
    ("keeps the keys and values of the first block for all blocks", _OneStore),
    ("gives the logits after the first token of a piece in place of the last", _FirstOfChunk),
)
_SHARED = "begins a second text with keys and values that are left in the cache from the first"


@exercise("kv.2", "is_right(model, start)")
def exercise_kv_2(answer: Callable[[GPTModel, Callable[[], Read]], bool]) -> str:
    """`is_right(model, start)`: a test that tells right caches from faulty ones, by the model without a cache."""
    shapes = (TypeError, IndexError, ValueError, RuntimeError, AttributeError)
    with explained(shapes, "`start()` begins a text and returns `read`; `read(ids)` takes int64 ids of shape (1, N)."):
        model = GPTModel({**TINY, "drop_rate": 0.0, "qkv_bias": False}).eval()
        exact = GPTModel({**TINY, "drop_rate": 0.0, "qkv_bias": False}).double().eval()
        exact.load_state_dict(model.state_dict())
        starts = [(f"one that {name}", lambda kind=kind: kind(model)) for name, kind in _RIGHT_READERS]
        starts.append(("one that computes in float64 and then rounds to float32", lambda: _Reader(exact)))
        right = [(name, read_truth(answer(model, start))) for name, start in starts]
        faulty = [(name, read_truth(answer(model, lambda kind=kind: kind(model)))) for name, kind in _FAULTY_READERS]
        faulty.append((_SHARED, read_truth(answer(model, _carrying_on(model)))))
    hints = {
        "all refused": "What do you compare its logits with?",
        "all accepted": "Compare its logits with those that the model gives for the whole text so far.",
        "exact": "logits",
        "missed": "Which pieces would show it?",
    }
    expect_tells_apart(right, faulty, "reader", hints)
    return (
        f"All {len(right)} right readers pass and all {len(faulty)} faulty ones are caught. A test of a cache needs a "
        "first piece of several tokens, single tokens and a later piece of several, a text up to the end of the "
        "context, and a second text."
    )


# ---- kv.3: enough_texts(weights, cfg, tokens, n_kv_heads, size) ----------------------------------------------------


def _heavier(weights: int, per_text: int) -> int:
    """The smallest number of texts that take more bytes than the weights."""
    return weights // per_text + 1


@exercise("kv.3", "enough_texts(weights, cfg, tokens, n_kv_heads, size)")
def exercise_kv_3(answer: Callable[[int, dict[str, Any], int, int, int], int]) -> str:
    """`enough_texts(weights, cfg, tokens, n_kv_heads, size)`: how many texts have a cache larger than the weights."""
    rng = random.Random(93)
    cases: list[tuple[int, dict[str, Any], int, int, int]] = [(354_823_168, gpt_config("355M"), 1024, 4, 1)]
    for _ in range(40):
        cfg = gpt_config(rng.choice(["355M", "124M", "774M", "1558M"]))
        shared = [number for number in range(1, cfg["n_heads"] + 1) if cfg["n_heads"] % number == 0]
        size = rng.choice([1, 2, 4])
        cases.append((rng.randint(1, 9) * 10**9, cfg, rng.randint(10, 1024), rng.choice(shared), size))
    width = cfg["emb_dim"] // cfg["n_heads"]  # 64 in all of them
    exact = 2 * 24 * 4 * width * 1000  # bytes of a text: here the caches are exactly as large as the weights, once
    cases += [(7 * exact, gpt_config("355M"), 1000, 4, 1), (exact - 1, gpt_config("355M"), 1000, 4, 1)]
    results, names = [], []
    for weights, cfg, tokens, heads, size in cases:
        names.append(
            f"For {weights:,} bytes of weights, {cfg['n_layers']} layers, emb_dim {cfg['emb_dim']}, "
            f"{cfg['n_heads']} heads, of which {heads} for keys and values, {tokens} tokens and {size} bytes per "
            "number:"
        )
        got = read_integer(answer(weights, dict(cfg), tokens, heads, size), f"{names[-1]} your result")
        results.append(got)

    def everywhere(rule: Callable[..., int]) -> list[int]:
        """The results by a rule for the bytes per text, from the layers, heads, head_dim and the other numbers."""
        found = []
        for weights, cfg, tokens, heads, size in cases:
            numbers = rule(cfg["n_layers"], heads, cfg["emb_dim"] // cfg["n_heads"], cfg)
            found.append(_heavier(weights, numbers * tokens * size))
        return found

    right = everywhere(lambda layers, heads, width, cfg: 2 * layers * heads * width)
    slips: Sequence[tuple[list[int], str]] = [
        (
            everywhere(lambda layers, heads, width, cfg: 2 * layers * cfg["emb_dim"]),
            "This is for one key and one value per query head; here several query heads share them.",
        ),
        (
            everywhere(lambda layers, heads, width, cfg: 2 * layers * heads * cfg["emb_dim"]),
            "A head is not emb_dim numbers wide: the query heads share those among them.",
        ),
        (everywhere(lambda layers, heads, width, cfg: layers * heads * width), "Each head keeps a key and a value."),
        (
            everywhere(lambda layers, heads, width, cfg: 2 * heads * width),
            "Every layer has keys and values of its own.",
        ),
        (
            [number - 1 for number in right],
            "With this many texts the weights still take as much as the cache or more; one text more is needed.",
        ),
        ([number + 1 for number in right], "One text fewer is enough."),
    ]
    by_rounding = [-(-weights // _per_text(case)) for weights, *case in cases]
    slips = [*slips, (by_rounding, "Where the cache takes exactly as much as the weights, it does not take more yet.")]
    if not all_agree(results, right, slips):
        for got, number, name in zip(results, right, names, strict=True):
            expect_close(got, number, name)
    return (
        "Per token and layer a key and a value for each of the heads that keep them, head_dim numbers each: with 4 of "
        "16 heads the cache is a quarter, and four times as many texts fit. In 8 bits the cache of one text is a "
        "quarter of that in float32; the weights in 8 bits are as well, so the number of texts stays the same."
    )


def _per_text(case: Sequence[Any]) -> int:
    cfg, tokens, heads, size = case
    return 2 * cfg["n_layers"] * heads * (cfg["emb_dim"] // cfg["n_heads"]) * tokens * size


self_test_kv = self_test("kv", "kv_cache")
