"""Greedy generation with GPT-2 124M: cached and uncached, bfloat16, int8, several prompts, beside transformers."""

from __future__ import annotations

import copy
import math
import tempfile
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import _measure
from helpers import (
    calc_loss_loader,
    generate,
    generate_batch,
    generate_stream,
    generate_text_simple,
    get_tokenizer,
    load_course_model,
    load_text,
    pack_weights,
    quantize_int8,
    to_bfloat16,
)
from helpers.pretrained import read_gpt2
from helpers.texts import BOOK_FILES, find

PROMPT, NEW, UNCACHED = 32, 100, 20
LENGTHS = (32, 5, 20, 31, 8, 40, 12, 27)


def models(**changes: Any):
    """transformers' GPT-2 124M with random weights, and the course's model with the same ones.

    The weights are drawn three times as wide as usual: with the usual ones, a model only repeats its last token.
    `changes` are entries of transformers' configuration.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(123)
    theirs = GPT2LMHeadModel(GPT2Config(initializer_range=0.06, **changes)).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours, _ = read_gpt2(folder)
    return theirs, ours


def their_tokens(model, prompt: torch.Tensor, new: int = NEW, use_cache: bool = True) -> torch.Tensor:
    mask = torch.ones_like(prompt)
    options = {"max_new_tokens": new, "do_sample": False, "eos_token_id": None, "pad_token_id": 50256}
    return model.generate(prompt, attention_mask=mask, use_cache=use_cache, **options)


def perplexity(model, text: str, context: int) -> float:
    """exp of the mean loss per token, over windows of `context` tokens."""
    ids = torch.tensor(get_tokenizer("gpt2").encode(text))
    windows = ids[: (len(ids) - 1) // context * context + 1]
    inputs, targets = windows[:-1].view(-1, context), windows[1:].view(-1, context)
    with torch.no_grad():
        return math.exp(calc_loss_loader(DataLoader(TensorDataset(inputs, targets)), model, torch.device("cpu")))


def one_prompt(theirs, ours, rounds: int) -> str:
    prompt = torch.randint(0, 50257, (1, PROMPT))
    bf16, int8 = to_bfloat16(copy.deepcopy(ours)), quantize_int8(copy.deepcopy(ours))
    peer = "transformers `generate`, float32"
    tokens = {}

    def keep(name, run):
        return lambda: tokens.__setitem__(name, run())

    contenders = {peer: lambda: their_tokens(theirs, prompt)}
    for name, model in (("float32", ours), ("bfloat16", bf16), ("int8 weights", int8)):
        contenders[f"`generate`, {name}"] = lambda model=model: generate(model, prompt, NEW, 1024)
    seconds = _measure.race({name: keep(name, run) for name, run in contenders.items()}, rounds)
    slow = {
        "transformers, `use_cache=False`": lambda: their_tokens(theirs, prompt, UNCACHED, use_cache=False),
        "`generate_text_simple` (the book's loop)": lambda: generate_text_simple(ours, prompt, UNCACHED, 1024),
    }
    seconds |= _measure.race({name: keep(name, run) for name, run in slow.items()}, rounds=1, warm_up=False)
    count = {name: UNCACHED if name in slow else NEW for name in seconds}
    same = torch.equal(tokens[peer], tokens["`generate`, float32"])
    same = same and all(torch.equal(tokens[peer][:, : PROMPT + UNCACHED], tokens[name]) for name in slow)
    different = len(set(tokens[peer][0, PROMPT:].tolist()))
    return (
        f"### One prompt\n\nGreedy, {PROMPT} tokens of prompt and {NEW} new ones, {rounds} rounds; without a cache "
        f"{UNCACHED} new ones, one round. Targets, to transformers with its cache: 1 in float32 with the same tokens, "
        f"1.8 in bfloat16, 3 with int8 weights.\n\n{_measure.rates(seconds, count, peer)}\n\n"
        f"The tokens in float32 are {'the same' if same else 'NOT THE SAME'} in all four ways ({different} different "
        f"ones among the {NEW})."
    )


def several_prompts(ours, rounds: int) -> str:
    """Eight prompts of different lengths, one after the other and together."""
    prompts = [torch.randint(0, 50257, (length,)).tolist() for length in LENGTHS]
    packed, answers = pack_weights(copy.deepcopy(ours)), {}

    def one_by_one():
        answers["alone"] = [generate_batch(ours, [prompt], NEW, 1024)[0] for prompt in prompts]

    def together(model, name):
        answers[name] = generate_batch(model, prompts, NEW, 1024)

    peer = "one after the other"
    contenders = {
        peer: one_by_one,
        "eight together": lambda: together(ours, "plain"),
        "eight together, `pack_weights`": lambda: together(packed, "packed"),
    }
    seconds = _measure.race(contenders, rounds, warm_up=False)
    same = answers["alone"] == answers["plain"] == answers["packed"]
    return (
        f"### Eight prompts together\n\nPrompts of {', '.join(map(str, LENGTHS))} tokens, {NEW} new ones each, "
        f"float32; {rounds} rounds. Packed weights lie in the order in which oneDNN multiplies several rows, which is "
        f"slower for one. Target: 4 times the tokens per second.\n\n"
        f"{_measure.rates(seconds, NEW * len(prompts), peer)}\n\n"
        f"Each prompt gets {'the tokens' if same else 'OTHER TOKENS THAN THOSE'} that it gets alone."
    )


def along_the_text(ours) -> str:
    """Time per token near token 10, 400 and 900 of a text."""
    starts, new = (8, 400, 850), 52
    streams = {
        f"{start + 2}-{start + new}": generate_stream(ours, [torch.randint(0, 50257, (start,))], new, 1024)
        for start in starts
    }
    for stream in streams.values():
        next(stream)  # reads the prompt
    parts = _measure.race({name: partial(next, stream) for name, stream in streams.items()}, new - 2)
    first = parts["10-60"]
    rows = [
        (name, f"{1000 * _measure.middle(part):.1f}", f"{1000 * _measure.best(part):.1f}",
         f"{_measure.middle(part) / _measure.middle(first):.2f}", f"{_measure.best(part) / _measure.best(first):.2f}")
        for name, part in parts.items()
    ]  # fmt: skip
    header = ("tokens", "ms per token, median", "best", "ratio (median)", "ratio (best)")
    return (
        "### Along one text\n\nTime for each new token, float32, one prompt; the three texts take turns. Target: the "
        "ratios close to 1. Near 900, the kept keys and values are 66 MB to read beside 498 MB of weights.\n\n"
        + _measure.table(header, rows)
    )


def quality(characters: int | None = None) -> str:
    """What 16 and 8 bits cost: perplexity of the course model on the embedded story and, if at hand, "The Verdict"."""
    model, cfg = load_course_model()
    kinds = {"bfloat16": to_bfloat16(copy.deepcopy(model)), "int8 weights": quantize_int8(copy.deepcopy(model))}
    texts = {"the embedded story": load_text("story")}
    if find(BOOK_FILES["the-verdict"]) is not None:  # in COURSE_DATA_DIR, or downloaded before
        texts["The Verdict"] = load_text("the-verdict")
    rows = []
    for text_name, text in texts.items():
        text = text[:characters]
        before = perplexity(model, text, cfg["context_length"])
        for kind, small in kinds.items():
            after = perplexity(small, text, cfg["context_length"])
            rows.append((text_name, kind, f"{before:.2f}", f"{after:.2f}", f"{100 * (after / before - 1):+.2f} %"))
    header = ("text", "weights", "perplexity in float32", "with these", "change")
    about = "### What fewer bits cost\n\nPerplexity of the course model. Target for int8: within 1 %.\n\n"
    return about + _measure.table(header, rows)


def run(rounds: int = 5, characters: int | None = None, **changes: Any) -> str:
    """Measure, and return the section for RESULTS.md.

    For a short run, `changes` make the model smaller (entries of transformers' configuration of GPT-2 124M) and
    `characters` the texts on which perplexity is measured.
    """
    theirs, ours = models(**changes)
    parts = [
        one_prompt(theirs, ours, rounds),
        several_prompts(ours, max(2, rounds // 2)),
        along_the_text(ours),
        quality(characters),
    ]
    return "\n\n".join(["## Generation\n\nGPT-2 124M, random weights, the same in both.", *parts])


if __name__ == "__main__":
    print(_measure.machine(), run(), sep="\n\n")
