"""Train the course model, on a laptop's CPU overnight or on a GPU in minutes:

    python -m helpers.make.course_model prepare CORPUS_FOLDER tokens.npz
    python -m helpers.make.course_model train tokens.npz course_model.safetensors --minutes 120
    python -m helpers.make.course_model evaluate tokens.npz course_model.safetensors

CORPUS_FOLDER holds .txt files in `simple/` and `general/`, UTF-8, stories separated by a line `<|endoftext|>`. Whole
files, and the last twentieth of the collections, are held out and never trained on.

Two things save time. Tokens that never occur in the training text share one class, which counts with the number of
its members, so the probabilities are those of the full vocabulary. And the softmax is estimated: the frequent tokens
are computed exactly, the rare ones from a random sample that stands for all of them (Jean et al., 2015), until the
last part of the run, which uses all.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..files import write_whole
from ..gpt import GPTModel, gpt_config, hidden_states
from ..pretrained import load_course_model, save_course_model
from ..speed.fused import fuse
from ..speed.loss import SoftmaxLoss
from ..tokenizers import END_OF_TEXT, get_tokenizer

HELD_OUT = (
    "simple/peter-pan-j-m-barrie.txt",
    "simple/the-sea-fairies-l-frank-baum.txt",
    "general/the-thirty-nine-steps-john-buchan.txt",
    "general/the-country-of-the-pointed-firs-sarah-orne-jewett.txt",
)
# Collections of short modern stories: their last twentieth is held out, and they are seen more often than the rest.
COLLECTIONS = {
    "simple/tinystories-first-2-mb-of-the-training-split.txt": 3,
    "simple/african-storybook-stories-english.txt": 3,
    "simple/pratham-books-storyweaver-stories-english.txt": 3,
}
VOCABULARY = 50257
CONFIG = gpt_config("124M", context_length=512, emb_dim=256, n_heads=4, n_layers=6, drop_rate=0.0, qkv_bias=True)
FREQUENT, SAMPLED = 8192, 2048  # classes computed exactly, and drawn from the rest, in the estimated softmax
BATCH = 12  # windows of CONFIG["context_length"] tokens
PEAK_MATRICES, PEAK_OTHERS = 0.02, 3e-3  # learning rates of Muon and AdamW
DECAY_FROM = 0.65  # part of the run after which the learning rates fall to zero
EXACT_FROM = 0.98  # part of the run after which the softmax is exact


def prepare(corpus: Path, target: Path) -> None:
    """Tokenize the corpus into training text and held-out texts, as one .npz of uint16 ids."""
    tokenizer = get_tokenizer("gpt2")
    training, held_out = [], {}
    for path in sorted(corpus.glob("*/*.txt")):
        name = f"{path.parent.name}/{path.name}"
        ids = tokenizer.encode(path.read_text(encoding="utf-8"), allowed_special={"<|endoftext|>"})
        ids = np.array([*ids, END_OF_TEXT], dtype=np.uint16)
        if name in HELD_OUT:
            held_out[name] = ids
        elif name in COLLECTIONS:
            cut = int(np.flatnonzero(ids[: int(0.95 * len(ids))] == END_OF_TEXT)[-1]) + 1
            training += [ids[:cut]] * COLLECTIONS[name]
            held_out[name] = ids[cut:]
        else:
            training.append(ids)
    np.savez_compressed(target, training=np.concatenate(training), **held_out)
    print(f"{sum(map(len, training)):,} training tokens, {sum(map(len, held_out.values())):,} held out")


def read_tokens(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Training ids, and held-out ids by file."""
    arrays = dict(np.load(path))  # numpy refuses pickled content unless asked
    return arrays.pop("training"), arrays


def initialize(model: GPTModel) -> None:
    """GPT-2's initial weights: normal with standard deviation 0.02, smaller where a shortcut adds up (section 2.3)."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
        elif parameter.dim() == 2:
            residual = name.endswith(("out_proj.weight", "layers.2.weight"))
            torch.nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * CONFIG["n_layers"]) if residual else 0.02)


def train(tokens: Path, target: Path, minutes: float, seed: int) -> None:
    """Train for so many minutes and save the model; goes on from TARGET.resume if that is there."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    training, held_out = read_tokens(tokens)
    counts = np.bincount(training, minlength=VOCABULARY)
    by_frequency = np.argsort(-counts, kind="stable")
    known = int((counts > 0).sum())
    class_of = np.empty(VOCABULARY, dtype=np.int64)
    class_of[by_frequency] = np.minimum(np.arange(VOCABULARY), known)  # class `known`: all that never occur
    never = torch.zeros(known + 1, device=device)
    never[known] = math.log(VOCABULARY - known)

    model = GPTModel({**CONFIG, "vocab_size": known + 1})
    initialize(model)
    model.out_head.weight = model.tok_emb.weight
    fuse(model).to(device)
    matrices = [p for p in model.trf_blocks.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    muon = torch.optim.Muon(matrices, lr=PEAK_MATRICES, weight_decay=0.01, momentum=0.95)
    adam = torch.optim.AdamW(others, lr=PEAK_OTHERS, betas=(0.9, 0.95), weight_decay=0.01, fused=True)

    step, used, seen = 0, 0.0, 0
    resume = target.with_suffix(".resume")
    if resume.exists():
        state = torch.load(resume, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        step, used, seen = state["step"], state["seconds"], state["seen"]
    stream = torch.from_numpy(class_of[training].astype(np.int32)).to(device)
    context = CONFIG["context_length"]
    window = torch.arange(context + 1, device=device)
    random = torch.Generator().manual_seed(seed + step)
    mean, last_saved = None, used
    while used < 60 * minutes:
        begin = time.perf_counter()
        part = used / (60 * minutes)
        scale = min(1.0, (step + 1) / 100) * min(1.0, max(0.0, (1 - part) / (1 - DECAY_FROM)))
        muon.param_groups[0]["lr"], adam.param_groups[0]["lr"] = PEAK_MATRICES * scale, PEAK_OTHERS * scale
        starts = torch.randint(len(stream) - context, (BATCH,), generator=random).to(device)
        ids = stream[starts[:, None] + window].long()  # (B, T + 1)
        if part < EXACT_FROM:
            exact = FREQUENT
            drawn = FREQUENT + torch.randperm(known - FREQUENT, generator=random)[:SAMPLED].to(device)
            columns = torch.cat([torch.arange(FREQUENT, device=device), drawn])
            log_weight = torch.zeros(len(columns), device=device)
            log_weight[FREQUENT:] = math.log((known - FREQUENT) / SAMPLED)
        else:
            exact, columns, log_weight = known + 1, torch.arange(known + 1, device=device), never
        with torch.autocast(device.type, dtype=torch.bfloat16):
            hidden = hidden_states(model, ids[:, :-1]).flatten(0, 1)
        loss = SoftmaxLoss.apply(hidden, model.tok_emb.weight, ids[:, 1:].flatten(), columns, log_weight, exact)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step()
        adam.step()
        muon.zero_grad(set_to_none=True)
        adam.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + BATCH * context
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        used += time.perf_counter() - begin
        if step % 50 == 0:
            print(f"step {step} {used / 60:.1f} min, {seen / 1e6:.1f}M tokens, loss {mean:.3f}", flush=True)
        if used - last_saved > 300 or used >= 60 * minutes:
            last_saved = used
            optimizers = {"muon": muon.state_dict(), "adam": adam.state_dict()}
            state = {"model": model.state_dict(), **optimizers, "step": step, "seconds": used, "seen": seen}
            write_whole(resume, partial(torch.save, state))
            save_full(model, class_of, target)
            report(model, {name: class_of[ids] for name, ids in held_out.items()}, never, limit=8)


def save_full(model: GPTModel, class_of: np.ndarray, target: Path) -> None:
    """Save with a row for each of GPT-2's tokens, those that never occur sharing theirs."""
    full = GPTModel({**CONFIG, "vocab_size": 1})
    weights = model.state_dict()
    table = weights["tok_emb.weight"][torch.from_numpy(class_of)]
    full.tok_emb.weight = full.out_head.weight = torch.nn.Parameter(table)
    full.load_state_dict({**weights, "tok_emb.weight": table, "out_head.weight": table})
    save_course_model(full, CONFIG, target)


@torch.no_grad()
def held_out_losses(model: GPTModel, texts: dict, extra: torch.Tensor | float = 0.0, limit: int | None = None) -> dict:
    """Mean cross-entropy per token of each text, in windows of the context's length that do not overlap."""
    device = model.tok_emb.weight.device
    context, losses = CONFIG["context_length"], {}
    for name, ids in texts.items():
        ids = torch.from_numpy(ids.astype(np.int64)).to(device)
        windows = ids[: (len(ids) - 1) // context * context + 1].unfold(0, context + 1, context)[:limit]
        totals = [
            F.cross_entropy(model(w[None, :-1])[0].float() + extra, w[1:], reduction="sum").item() for w in windows
        ]
        losses[name] = sum(totals) / (context * len(windows))
    return losses


def report(model: GPTModel, texts: dict, extra: torch.Tensor | float = 0.0, limit: int | None = None) -> None:
    """Print the perplexity of each text."""
    losses = held_out_losses(model, texts, extra, limit)
    print(json.dumps({name: round(math.exp(loss), 2) for name, loss in losses.items()}, indent=1), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["prepare", "train", "evaluate"])
    parser.add_argument("source", type=Path, help="the corpus folder for prepare, else the tokens file")
    parser.add_argument("target", type=Path, help="the tokens file for prepare, else the model file")
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seed", type=int, default=123)
    options = parser.parse_args()
    if options.command == "prepare":
        prepare(options.source, options.target)
    elif options.command == "train":
        train(options.source, options.target, options.minutes, options.seed)
    else:
        model, _ = load_course_model(options.target)
        report(fuse(model), read_tokens(options.source)[1])


if __name__ == "__main__":
    main()
