"""Producing text, one token at a time: greedy (section 4.7), sampled (section 5.3), by beam search, as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from .gpt import GPTModel
from .speed.kv_cache import KVCache, forward_cached


def generate_text_simple(
    model: torch.nn.Module, idx: torch.Tensor, max_new_tokens: int, context_size: int
) -> torch.Tensor:
    """Extend token ids greedily: each new token is the one with the highest logit.

    `idx` is int64 (B, T); returns (B, T + max_new_tokens). Only the last `context_size` tokens are fed to the model.
    The caller puts the model into evaluation mode; dropout would make the text vary.

    Raises ValueError if `idx` holds no token, or `max_new_tokens` or `context_size` is out of range.
    """
    if idx.shape[1] == 0:
        raise ValueError("idx holds no token to continue from")
    if max_new_tokens < 0 or context_size < 1:
        raise ValueError(
            f"max_new_tokens={max_new_tokens} must be at least 0 and context_size={context_size} at least 1"
        )
    for _ in range(max_new_tokens):
        with torch.no_grad():
            logits = model(idx[:, -context_size:])  # (B, T, vocab_size)
        next_id = logits[:, -1, :].argmax(dim=-1, keepdim=True)  # (B, 1)
        idx = torch.cat((idx, next_id), dim=1)  # (B, T + 1)
    return idx


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
    idx: torch.Tensor,
    max_new_tokens: int,
    context_size: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    eos_id: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    use_cache: bool = True,
) -> torch.Tensor:
    """Extend token ids by sampling: int64 (B, T) to (B, T + at most max_new_tokens) (section 5.3).

    A row ends where `eos_id` would come; shorter rows are filled up with it. The model should be in evaluation mode.
    `seed` makes the draw repeatable without touching torch's global random state. See `choose_next` for the rest.

    Raises ValueError for an empty prompt, a negative temperature, or top_k, top_p, max_new_tokens, context_size out
    of range.
    """
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed, "use_cache": use_cache}
    steps = generate_stream(model, list(idx), max_new_tokens, context_size, eos_id=eos_id, **options)
    columns = [torch.tensor(ids, device=idx.device) for ids in steps]
    if not columns:
        return idx
    new = torch.stack(columns, dim=1)  # (B, steps); None became eos_id
    return torch.cat((idx, new), dim=1)


def generate_batch(
    model: torch.nn.Module, prompts: Sequence[Sequence[int]], max_new_tokens: int, context_size: int, **options
) -> list[list[int]]:
    """Continue prompts of different lengths together; returns the new tokens of each, without the end token.

    Every row gets the tokens that it would get alone. Options as for `generate_stream`.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    eos_id = options.get("eos_id")
    rows = [torch.as_tensor(prompt, dtype=torch.long) for prompt in prompts]
    for ids in generate_stream(model, rows, max_new_tokens, context_size, **options):
        for row, token in enumerate(ids):
            ended[row] = ended[row] or token == eos_id
            if not ended[row]:
                answers[row].append(token)
    return answers


@torch.no_grad()
def generate_stream(
    model: torch.nn.Module,
    prompts: Sequence[torch.Tensor],
    max_new_tokens: int,
    context_size: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_id: int | None = None,
    seed: int | None = None,
    use_cache: bool = True,
) -> Iterator[list[int]]:
    """Yield, step by step, one new token per prompt; a row that has ended goes on yielding `eos_id`.

    `prompts` are int64 tensors (T,), of any lengths. The stream ends after `max_new_tokens`, or when all rows have
    ended (that last step is not yielded). A `GPTModel` uses a KV cache; others, and texts that have outgrown the
    context, are computed anew for each token. Raises ValueError as `generate` does.
    """
    _check_options(model, prompts, max_new_tokens, context_size, temperature, top_k, top_p)
    device = next(model.parameters()).device
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    tokens, lengths = _pad([prompt.to(device) for prompt in prompts])  # (B, longest), (B,)
    longest = tokens.shape[1]
    tokens = F.pad(tokens, (0, max_new_tokens))  # room for the new tokens, each behind its row's last
    rows = torch.arange(len(tokens), device=device)
    ended = torch.zeros(len(tokens), dtype=torch.bool, device=device)
    # A cache repeats what GPTModel.forward does, without dropout: other models are left to their own forward.
    cached = use_cache and not model.training and getattr(type(model), "forward", None) is GPTModel.forward
    cache = next_ids = None
    for step in range(max_new_tokens):
        if cached and longest + step <= context_size:
            if cache is None:
                cache = KVCache(model, len(tokens), min(context_size, longest + max_new_tokens))
                logits = forward_cached(model, tokens[:, :longest], cache, lengths)
            else:
                logits = forward_cached(model, next_ids, cache)
        else:
            ends = (lengths + step).tolist()
            windows, counts = _pad(
                [row[max(0, end - context_size) : end] for row, end in zip(tokens, ends, strict=True)]
            )
            logits = model(windows)[rows, counts - 1]  # (B, vocab_size)
        if top_k is not None and top_k > logits.shape[-1]:
            raise ValueError(f"top_k={top_k} is more than the {logits.shape[-1]} tokens of the vocabulary")
        next_ids = choose_next(logits, temperature, top_k, top_p, generator)  # (B, 1)
        if eos_id is not None:
            ended |= next_ids[:, 0] == eos_id
            next_ids[ended] = eos_id
            if ended.all():
                return
        tokens[rows, lengths + step] = next_ids[:, 0]
        yield next_ids[:, 0].tolist()


def beam_search(
    model: torch.nn.Module, idx: torch.Tensor, max_new_tokens: int, context_size: int, beams: int = 4
) -> torch.Tensor:
    """The most probable continuation that a search with `beams` candidates finds: int64 (1, T) to (1, T + new).

    After each token the `beams` best of all continuations stay, by their summed log-probabilities.
    Raises ValueError if `idx` is not one non-empty row, or a number is out of range.
    """
    if idx.shape[0] != 1 or idx.shape[1] == 0 or beams < 1:
        raise ValueError(f"idx of shape {tuple(idx.shape)} must be one non-empty row, and beams={beams} at least 1")
    if max_new_tokens < 0 or context_size < 1:
        raise ValueError(
            f"max_new_tokens={max_new_tokens} must be at least 0 and context_size={context_size} at least 1"
        )
    scores = torch.zeros(1, device=idx.device)  # (beams,)
    for _ in range(max_new_tokens):
        with torch.no_grad():
            logits = model(idx[:, -context_size:])[:, -1]  # (beams, vocab_size)
        totals = scores[:, None] + torch.log_softmax(logits.float(), dim=-1)
        scores, best = totals.flatten().topk(min(beams, totals.numel()))
        parents, tokens = best // logits.shape[-1], best % logits.shape[-1]
        idx = torch.cat((idx[parents], tokens[:, None]), dim=1)
    return idx[:1]


def _pad(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of different lengths as one int64 tensor (B, longest), zeros at the right, and their lengths (B,)."""
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths


def _check_options(model, prompts, max_new_tokens, context_size, temperature, top_k, top_p) -> None:
    if not prompts or any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("idx holds no token to continue from")
    if max_new_tokens < 0 or context_size < 1:
        raise ValueError(
            f"max_new_tokens={max_new_tokens} must be at least 0 and context_size={context_size} at least 1"
        )
    table = getattr(model, "pos_emb", None)  # a GPTModel has a row for each place
    most = min(context_size, max(map(len, prompts)) + max_new_tokens)  # tokens that it has to hold
    if table is not None and most > len(table.weight):
        raise ValueError(f"context_size={context_size} exceeds the model's context_length of {len(table.weight)}")
    if temperature < 0:
        raise ValueError(f"temperature={temperature} must not be negative (0 takes the most probable token)")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} must be at least 1, or None to keep all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be above 0 and at most 1")
