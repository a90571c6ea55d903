"""Writing text, one token at a time: greedy (section 4.7), sampled (section 5.3), by beam search, as a stream.

Wherever `prompts` or `idx` is taken, it may be one row of token ids or several: an int64 tensor (T,) or (B, T), a list
of ids, or a list of rows of any lengths. The options of all functions have one order and are given by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from .guards import check_numbers, expects_numbers, guard
from .llama import LlamaCache, forward_last
from .speed.kv_cache import KVCache, forward_cached
from .speed.parts import is_course_gpt, is_course_llama

Row = torch.Tensor | Sequence[int]  # the token ids of one text
Prompts = Row | Sequence[Row]


def _check_simple(idx: torch.Tensor, max_new_tokens: int, context_size: int) -> None:
    shape = tuple(idx.shape) if isinstance(idx, torch.Tensor) else f"a {type(idx).__name__}"
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"idx must have the shape (B, T) with at least one token per row, got {shape}")
    _check_lengths(max_new_tokens, context_size)


@guard(_check_simple)
@expects_numbers
def generate_text_simple(
    model: torch.nn.Module, idx: torch.Tensor, max_new_tokens: int, context_size: int
) -> torch.Tensor:
    """Extend token ids greedily: each new token is the one with the highest logit.

    `idx` is int64 (B, T); returns (B, T + max_new_tokens). Only the last `context_size` tokens are fed to the model.
    The caller puts the model into evaluation mode; dropout would make the text vary.

    Raises ValueError if `idx` is not (B, T) or holds no token, or `max_new_tokens` or `context_size` is out of range.
    """
    for _ in range(max_new_tokens):
        with torch.no_grad():
            logits = model(idx[:, -context_size:])  # (B, T, vocab_size)
        next_id = logits[:, -1, :].argmax(dim=-1, keepdim=True)  # (B, 1)
        idx = torch.cat((idx, next_id), dim=1)  # (B, T + 1)
    return idx


def _check_choice(logits: torch.Tensor, temperature: float, top_k: int | None, top_p: float | None) -> None:
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
        given = tuple(logits.shape) if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
        raise ValueError(f"logits must have the shape (B, vocab_size), got {given}")
    _check_sampling(temperature, top_k, top_p)
    if top_k is not None and top_k > logits.shape[-1]:
        raise ValueError(f"top_k={top_k} is more than the {logits.shape[-1]} tokens of the vocabulary")
    highest = logits.amax(dim=-1)  # (B,); NaN where a row has one
    if highest.isfinite().all():
        return
    check_numbers(highest)
    if (highest == -torch.inf).any() or temperature > 0:
        raise ValueError("logits has a row whose highest entry is infinite: it gives no probabilities to choose by")


@guard(_check_choice)
def choose_next(
    logits: torch.Tensor,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """The next token of each row: logits (B, vocab_size) to int64 ids (B, 1).

    `top_k` keeps the k highest logits, `top_p` the smallest set of tokens whose probabilities reach p (Holtzman et
    al., 2020). Temperature 0 takes the highest; above, ids are drawn from softmax(logits / temperature), with
    torch's global random state unless a generator is given.

    Raises ValueError for a negative temperature, for `top_k` or `top_p` out of range, and for logits that are NaN.
    """
    if top_k is not None:
        lowest_kept = torch.topk(logits, top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < lowest_kept, -torch.inf)
    if temperature == 0.0:
        return logits.argmax(dim=-1, keepdim=True)
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    if top_p is not None:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered  # what the more likely tokens have together
        dropped = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
        probabilities = probabilities.masked_fill(dropped, 0.0)
    return torch.multinomial(probabilities, num_samples=1, generator=generator)


def generate(
    model: torch.nn.Module,
    idx: Prompts,
    max_new_tokens: int,
    context_size: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_id: int | None = None,
    seed: int | None = None,
    use_cache: bool = True,
) -> torch.Tensor:
    """Extend token ids by sampling: int64 (B, T) to (B, T + at most max_new_tokens) (section 5.3).

    One row (T,) gives (1, T + new). A row ends where `eos_id` would come; shorter rows are filled up with it. The
    model should be in evaluation mode. `seed` makes the draw repeatable without touching torch's global random state.
    See `choose_next` for temperature, `top_k` and `top_p`, and `generate_stream` for `use_cache`.

    Raises ValueError for an empty prompt, rows of different lengths, a negative temperature, or top_k, top_p,
    max_new_tokens, context_size out of range.
    """
    rows = token_rows(idx)
    if len({len(row) for row in rows}) > 1:
        raise ValueError("idx has rows of different lengths; generate_batch continues such prompts")
    start = torch.stack(rows).to(_device(model, rows))  # (B, T)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "eos_id": eos_id, "seed": seed}
    steps = generate_stream(model, rows, max_new_tokens, context_size, use_cache=use_cache, **options)
    columns = [torch.tensor(ids, device=start.device) for ids in steps]  # a row that has ended goes on with eos_id
    return torch.cat((start, torch.stack(columns, dim=1)), dim=1) if columns else start


def generate_batch(
    model: torch.nn.Module,
    prompts: Prompts,
    max_new_tokens: int,
    context_size: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_id: int | None = None,
    seed: int | None = None,
    use_cache: bool = True,
) -> list[list[int]]:
    """Continue prompts of different lengths together; returns the new tokens of each, without the end token.

    Greedily, every row gets the tokens that it would get alone. Options and errors are those of `generate_stream`.
    """
    rows = token_rows(prompts)
    answers: list[list[int]] = [[] for _ in rows]
    ended = [False] * len(rows)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "eos_id": eos_id, "seed": seed}
    for ids in generate_stream(model, rows, max_new_tokens, context_size, use_cache=use_cache, **options):
        for row, token in enumerate(ids):
            ended[row] = ended[row] or token == eos_id
            if not ended[row]:
                answers[row].append(token)
    return answers


def generate_stream(
    model: torch.nn.Module,
    prompts: Prompts,
    max_new_tokens: int,
    context_size: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_id: int | None = None,
    seed: int | None = None,
    use_cache: bool = True,
) -> Iterator[list[int]]:
    """Yield, step by step, one new token per prompt; a row that has ended goes on yielding `eos_id`.

    The stream ends after `max_new_tokens`, or when all rows have ended (that last step is not yielded). With
    `use_cache`, a `GPTModel` or a `LlamaModel` made of the course's own parts keeps keys and values between the steps.
    A model that you have changed, by a class of your own or a hook, computes every step by its own `forward`, and so
    does any model for a text that has outgrown the context. Raises ValueError, before the first step, as `generate`
    does.
    """
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "eos_id": eos_id, "seed": seed}
    steps = stream_with_logits(model, prompts, max_new_tokens, context_size, use_cache=use_cache, **options)
    return (ids for ids, _ in steps)


def stream_with_logits(
    model: torch.nn.Module,
    prompts: Prompts,
    max_new_tokens: int,
    context_size: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_id: int | None = None,
    seed: int | None = None,
    use_cache: bool = True,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """What `generate_stream` yields, each time with the logits (B, vocab_size) that the tokens were chosen from.

    The logits are the model's own: temperature, `top_k` and `top_p` have not been applied to them.
    """
    rows = token_rows(prompts)
    _check_lengths(max_new_tokens, context_size)
    _check_sampling(temperature, top_k, top_p)
    longest = context_length(model)
    most = min(context_size, max(map(len, rows)) + max_new_tokens)  # tokens that the model reads at once
    if longest is not None and most > longest:
        raise ValueError(f"context_size={context_size} exceeds the model's context_length of {longest}")
    _check_ids(model, rows)
    if seed is not None and not (hasattr(seed, "__index__") and -(2**63) <= int(seed) < 2**64):
        raise ValueError(f"seed={seed!r} must be a whole number of at most 64 bits, or None")
    if eos_id is not None and not hasattr(eos_id, "__index__"):
        raise ValueError(f"eos_id={eos_id!r} must be one token id, or None")
    device = _device(model, rows)
    generator = None if seed is None else torch.Generator(device).manual_seed(int(seed))
    choice = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "generator": generator}
    tokens, lengths = _pad([row.to(device) for row in rows])  # (B, longest), (B,)
    return _steps(model, tokens, lengths, max_new_tokens, context_size, eos_id, use_cache, choice)


@torch.no_grad()
def _steps(
    model: torch.nn.Module,
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    max_new_tokens: int,
    context_size: int,
    eos_id: int | None,
    use_cache: bool,
    choice: dict[str, Any],
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """The steps of `stream_with_logits`, for padded rows (B, longest) and their lengths (B,)."""
    longest = tokens.shape[1]
    rows = torch.arange(len(tokens), device=tokens.device)
    ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    # A cache repeats what the course's models do, without dropout: a model that differs computes by itself.
    llama = is_course_llama(model)
    cached = use_cache and (llama or is_course_gpt(model)) and not _drops(model)
    make_cache, forward = (LlamaCache, forward_last) if llama else (KVCache, forward_cached)
    cache = next_ids = None
    for step in range(max_new_tokens):
        if cached and longest + step <= context_size:
            if cache is None:
                cache = make_cache(model, len(tokens), min(context_size, longest + max_new_tokens))
                logits = forward(model, tokens[:, :longest], cache, lengths)
            else:
                logits = forward(model, next_ids, cache)
        else:
            ends = (lengths + step).tolist()
            windows = [row[max(0, end - context_size) : end] for row, end in zip(tokens, ends, strict=True)]
            logits = _last_logits(model, windows)  # (B, vocab_size)
        next_ids = choose_next(logits, **choice)  # (B, 1)
        if eos_id is not None:
            ended |= next_ids[:, 0] == eos_id
            next_ids[ended] = eos_id
            if ended.all():
                return
        if longest + step == tokens.shape[1]:
            tokens = F.pad(tokens, (0, 256))  # room for further tokens, each after its row's last
        tokens[rows, lengths + step] = next_ids[:, 0]
        yield next_ids[:, 0].tolist(), logits


def _last_logits(model: torch.nn.Module, windows: list[torch.Tensor]) -> torch.Tensor:
    """The logits (B, vocab_size) after rows of any lengths, by the model's own forward: each length for itself.

    Rows that were padded to one length would do only for a model that never looks ahead.
    """
    last: dict[int, torch.Tensor] = {}
    for length in sorted({len(window) for window in windows}):
        rows = [row for row, window in enumerate(windows) if len(window) == length]
        logits = model(torch.stack([windows[row] for row in rows]))
        if not isinstance(logits, torch.Tensor) or logits.dim() != 3:
            given = f"the shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ValueError(f"model(ids) must be a tensor of logits (B, T, vocab_size), and is of {given}")
        last |= dict(zip(rows, logits[:, -1], strict=True))
    return torch.stack([last[row] for row in range(len(windows))])


def _device(model: torch.nn.Module, rows: list[torch.Tensor]) -> torch.device:
    """The device that a model's parameters are on; that of the prompt for a model without any."""
    return next((parameter.device for parameter in model.parameters()), rows[0].device)


def _check_ids(model: torch.nn.Module, rows: list[torch.Tensor]) -> None:
    """Raise ValueError for ids that are not in the vocabulary, where a model's embedding says how many there are."""
    words = vocabulary_size(model)
    largest, smallest = max(int(row.max()) for row in rows), min(int(row.min()) for row in rows)
    if words is not None and not 0 <= smallest <= largest < words:
        wrong = smallest if smallest < 0 else largest
        raise ValueError(f"the prompt holds the token id {wrong}; the model's vocabulary has 0 to {words - 1}")


def vocabulary_size(model: torch.nn.Module) -> int | None:
    """How many tokens a model's embedding has; None for a model that does not say."""
    return _table_length(getattr(model, "tok_emb", None))


def _table_length(embedding: Any) -> int | None:
    """How many rows an embedding has; None for one of another kind."""
    weight = getattr(embedding, "weight", None)
    return len(weight) if isinstance(weight, torch.Tensor) and weight.dim() == 2 else None


def _drops(model: torch.nn.Module) -> bool:
    """Whether a model draws dropout masks. (Layers that were added to it later may be in training mode without any.)"""
    return any(isinstance(part, torch.nn.Dropout) and part.training and part.p > 0 for part in model.modules())


def context_length(model: torch.nn.Module) -> int | None:
    """How many tokens a `GPTModel` or a `LlamaModel` reads at once; None for a model that does not say."""
    positions = _table_length(getattr(model, "pos_emb", None))  # a GPTModel has a row for each position
    return getattr(model, "context_length", None) if positions is None else positions


def beam_search(
    model: torch.nn.Module, idx: Prompts, max_new_tokens: int, context_size: int, *, beams: int = 4
) -> torch.Tensor:
    """The most probable continuation that a search with `beams` candidates finds: int64 (1, T) to (1, T + new).

    After each token the `beams` best of all continuations stay, by their summed log-probabilities.
    Raises ValueError if `idx` is not one non-empty row, or a number is out of range.
    """
    rows = token_rows(idx)
    if len(rows) != 1 or beams < 1:
        raise ValueError(f"idx has {len(rows)} rows and beams={beams}: one row and at least one beam are expected")
    _check_lengths(max_new_tokens, context_size)
    _check_ids(model, rows)
    idx = rows[0][None].to(_device(model, rows))  # (1, T)
    scores = torch.zeros(1, device=idx.device)  # (beams,)
    for _ in range(max_new_tokens):
        with torch.no_grad():
            logits = check_numbers(model(idx[:, -context_size:])[:, -1])  # (beams, vocab_size)
        totals = scores[:, None] + torch.log_softmax(logits.float(), dim=-1)
        scores, best = totals.flatten().topk(min(beams, totals.numel()))
        parents, tokens = best // logits.shape[-1], best % logits.shape[-1]
        idx = torch.cat((idx[parents], tokens[:, None]), dim=1)
    return idx[:1]


def token_rows(prompts: Prompts) -> list[torch.Tensor]:
    """Prompts in any of the accepted forms as a list of int64 tensors (T,), one per row.

    Raises ValueError for anything else: no row, a row without tokens, more than two dimensions, fractions.
    """
    expected = "token ids are expected, of shape (T,) or (B, T), or as a list of such rows"
    if isinstance(prompts, torch.Tensor):
        if prompts.dim() not in (1, 2):
            raise ValueError(f"the prompt has shape {tuple(prompts.shape)}: {expected}")
        rows = list(prompts) if prompts.dim() == 2 else [prompts]
    else:
        try:
            rows = list(prompts) if not isinstance(prompts, str | bytes) else [prompts]
            one = all(not isinstance(row, str | bytes) and torch.as_tensor(row).dim() == 0 for row in rows)
            rows = [torch.as_tensor(row) for row in ([rows] if one and rows else rows)]
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"the prompt is {str(prompts)[:40]!r}, a {type(prompts).__name__}: {expected}") from None
    if not rows or any(row.dim() != 1 or len(row) == 0 for row in rows):
        raise ValueError(f"the prompt holds no token to continue from, or a row without tokens: {expected}")
    if any(row.is_floating_point() or row.is_complex() or row.dtype == torch.bool for row in rows):
        raise ValueError(f"the prompt holds numbers of type {rows[0].dtype}: {expected}")
    return [row.long() for row in rows]


def _pad(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of different lengths as one int64 tensor (B, longest), zeros at the right, and their lengths (B,)."""
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths


def _check_lengths(max_new_tokens: int, context_size: int) -> None:
    if not hasattr(max_new_tokens, "__index__") or not hasattr(context_size, "__index__"):
        raise ValueError(f"max_new_tokens={max_new_tokens!r} and context_size={context_size!r} must be whole numbers")
    if max_new_tokens < 0 or context_size < 1:
        raise ValueError(
            f"max_new_tokens={max_new_tokens} must be at least 0 and context_size={context_size} at least 1"
        )


def _check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    numbers = {"temperature": temperature, "top_k": top_k or 0, "top_p": top_p or 0}
    for name, value in numbers.items():
        if not hasattr(value, "__index__" if name == "top_k" else "__float__"):
            kind = "whole number" if name == "top_k" else "number"
            raise ValueError(f"{name}={value!r} must be a {kind}")
    if not temperature >= 0:  # NaN is neither above nor below
        raise ValueError(f"temperature={temperature} must not be negative (0 takes the most probable token)")
    if 0 < temperature < 1e-30 or temperature == math.inf:
        raise ValueError(f"temperature={temperature} cannot divide the logits; 0 takes the most probable token")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} must be at least 1, or None to keep all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be above 0 and at most 1")
