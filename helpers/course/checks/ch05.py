"""Checkers for chapter 5."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from ...checkpoints import save_checkpoint
from ...generation import generate
from ...gpt import GPT_CONFIG_124M, GPT_SIZES, GPTModel, gpt_config
from ...guards import evaluation_mode
from ...training import calc_loss_loader, training_steps
from ._core import (
    Hint,
    call,
    exercise,
    expect,
    expect_close,
    expect_kind,
    read_number,
    read_numbers,
    read_parts,
    read_tensor,
    same,
    self_test,
)


@exercise("5.0", "perplexity(target_probabilities)")
def exercise_5_0(answer: Callable) -> str:
    """`answer(target_probabilities)` is the perplexity of a model that gave these to the right tokens."""
    generator = torch.Generator().manual_seed(50)
    for shape in ((2, 3), (5,), (1,), (4, 1000)):
        p = 0.001 + 0.3 * torch.rand(shape, generator=generator)
        got, loss = read_number(answer(p.clone())), -p.log().mean().item()
        slips = [
            (loss, "That is the loss; the perplexity is one step further."),
            (-loss, "That is the mean logarithm; what has to be done with its sign, and then?"),
            (math.exp(-loss), "Your number is below 1: has the sign of the mean logarithm been changed?"),
            (1 / p.mean(), "You averaged the probabilities; it is their logarithms that are averaged."),
            (math.exp(min(700.0, loss * p.numel())), "A sum over all tokens grows with the text: take the mean."),
            (2**loss, "The logarithm is the natural one, so its inverse is not a power of 2."),
        ]
        case = f"Tried with {p.numel()} probabilities."
        expect(math.isfinite(got) and got != 0, f"{case} You get {got}: a product of so many probabilities vanishes.")
        expect_close(got, math.exp(loss), case, slips, atol=0)
    return "The exponential of the mean negative logarithm; a text of any length gives a number one can compare."


@exercise("5.1", "expected_draws(logits, temperature, draws)")
def exercise_5_1(answer: Callable) -> str:
    """`answer(logits, temperature, draws)` says how often each word is drawn on average."""
    generator = torch.Generator().manual_seed(51)
    toy = torch.tensor([4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79])
    cases = [(toy, 5.0, 1000), (toy, 1.0, 1000)]
    cases += [(3 * torch.randn(n, generator=generator), t, draws) for n, t, draws in ((4, 0.5, 200), (7, 2.0, 50))]
    for logits, temperature, draws in cases:
        shape = f"A tensor of {len(logits)} numbers"
        got, again = (read_tensor(answer(logits.clone(), temperature, draws), shape) for _ in range(2))
        right = draws * torch.softmax(logits / temperature, dim=0)
        if got.shape == right.shape:
            expect(
                torch.equal(got, again), "Two calls gave two answers: you are still drawing. What is known beforehand?"
            )
            expect(
                not same(got, got.round()) or same(right, right.round(), rtol=0, atol=1e-3),
                "Your numbers are whole. An average over many experiments need not be.",
            )
        slips = [
            (right / draws, "Those are probabilities: of how many draws?"),
            (draws * torch.softmax(logits, 0), "The temperature seems to have no effect."),
            (draws * torch.softmax(logits * temperature, 0), "A high temperature should flatten, not sharpen."),
            (draws * torch.softmax(logits, 0) / temperature, "The temperature belongs before the softmax."),
        ]
        case = f"Tried with temperature {temperature:g} and {draws} draws."
        expect_close(got, right, case, slips, otherwise="These are other numbers than expected.")
    return (
        "Probability times draws. For pizza at temperature 5 that is 42.9 of 1,000; the 32 that were counted are one "
        "experiment's chance deviation from it."
    )


_JOBS = {
    "contract": (
        {"A"},
        "a contract has one right date and one right amount",
        "two runs must not fill in two different amounts",
    ),
    "story": (
        {"B"},
        "some freedom, and no nonsense from the tail",
        "it should be new each night, and still hold together",
    ),
    "names": (
        {"C"},
        "variety is what counts, and a person throws the failures away",
        "two hundred suggestions should differ, and most of them may fail",
    ),
    "test": (
        {"A"},
        "the output must be the same on every run",
        "what is compared with a stored text must not depend on chance",
    ),
}


@exercise("5.2")
def exercise_5_2(answer: Mapping[str, str]) -> str:
    """`answer` maps each of the four jobs to the letter of a setting."""
    expect_kind(answer, Mapping, 'A dictionary such as {"contract": "B", "story": ..., ...}')
    given = {str(job).strip().lower(): str(letter).strip().upper() for job, letter in answer.items()}
    missing = [job for job in _JOBS if given.get(job) in (None, "NONE", "...")]
    expect(not missing, f"No setting yet for: {', '.join(missing)}.")
    unknown = sorted({letter for job, letter in given.items() if job in _JOBS} - {"A", "B", "C"})
    expect(not unknown, f"There are the settings A, B and C; not {', '.join(map(repr, unknown))}.")
    wrong = [job for job, (right, *_) in _JOBS.items() if given[job] not in right]
    if wrong:
        lines = [f"{job}: think again. In this job {_JOBS[job][2]}." for job in wrong]
        raise Hint(f"{len(_JOBS) - len(wrong)} of {len(_JOBS)} fit.\n" + "\n".join(lines))
    return "\n".join(f"{job}: {why}." for job, (_, why, _) in _JOBS.items())


class _EqualChances(torch.nn.Module):
    """A stand-in for a language model whose favourites are nearly as likely as all others."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(0.05 * torch.randn(24, 24, generator=torch.Generator().manual_seed(53)))

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        return self.table[idx]


@exercise("5.3")
def exercise_5_3(answer: Any) -> str:
    """`answer` is two dictionaries of options: one with temperature 0, one with temperature 1.0."""
    ways = read_parts(answer, 2, "Hand in two dictionaries of options, as a pair.")
    allowed = {"temperature", "top_k", "top_p", "seed"}
    for way in ways:
        expect_kind(way, Mapping, "A dictionary of options")
        unknown = sorted(set(map(str, way)) - allowed)
        expect(not unknown, f"{', '.join(unknown)}: use only temperature, top_k, top_p and seed.")
    temperatures = [read_number(way.get("temperature", 0.0), "A temperature") for way in ways]
    expect(temperatures[0] == 0.0, f"The first way should have temperature 0; yours has {temperatures[0]:g}.")
    expect(temperatures[1] == 1.0, f"The second way should have temperature 1.0; yours has {temperatures[1]:g}.")
    model = _EqualChances().eval()
    prompt = torch.tensor([[3, 1, 4]])
    for number, way in enumerate(ways, start=1):
        texts = {tuple(call(generate, model, prompt, 12, 16, **way)[0].tolist()) for _ in range(8)}
        expect(
            len(texts) == 1,
            f"With way {number}, eight calls gave {len(texts)} different texts. When is there nothing left to choose, "
            f"or nothing left to chance?",
        )
    second = ways[1]
    if second.get("top_k") == 1:
        why = "with top_k=1 a single token is left to draw from, so drawing finds the same one each time"
    elif second.get("seed") is not None:
        why = (
            "with a seed the draws are the same each time, so the text is repeatable, though it need not be the "
            "likeliest one"
        )
    else:
        why = "a nucleus this small holds one token"
    return f"Temperature 0 takes the largest logit and draws nothing; {why}."


def _tiny_run() -> tuple[GPTModel, torch.optim.Optimizer]:
    model = GPTModel(gpt_config("124M", vocab_size=40, context_length=8, emb_dim=16, n_heads=2, n_layers=1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)


def _equal(got: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(got[name], weight) for name, weight in expected.items())


@exercise("5.4", "one_more_epoch(path, model, optimizer, train_loader)")
def exercise_5_4(answer: Callable) -> str:
    """`answer(path, model, optimizer, train_loader)` loads a checkpoint and trains for one more epoch."""
    cpu, batches = torch.device("cpu"), 6
    ids = torch.randint(0, 40, (2 * batches, 9), generator=torch.Generator().manual_seed(54))
    loader = DataLoader(TensorDataset(ids[:, :-1], ids[:, 1:]), batch_size=2, shuffle=True)
    for epochs in (1, 3):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.pt"
            straight, straight_optimizer = _tiny_run()
            for progress in training_steps(straight, loader, straight_optimizer, cpu, epochs + 1):
                if progress.step == epochs * batches:
                    save_checkpoint(path, straight, straight_optimizer, progress)
                    saved = {name: weight.clone() for name, weight in straight.state_dict().items()}
            model, optimizer = _tiny_run()
            begun = {name: weight.clone() for name, weight in model.state_dict().items()}
            result = answer(path, model, optimizer, loader)
        expect(isinstance(result, torch.nn.Module), "Your function should return the model.")
        got = result.state_dict()
        expect(got.keys() == saved.keys(), "Your function should return the model that it was given.")
        steps = {int(state["step"]) for state in optimizer.state.values() if "step" in state}
        case = f"Tried with a run of {epochs} epoch{'s' if epochs > 1 else ''}."
        if _equal(got, straight.state_dict()):
            continue
        expect(not _equal(got, begun), f"{case} The model that you return is as it was handed to you.")
        expect(
            not _equal(got, saved),
            f"{case} The checkpoint is loaded, but no update was made. num_epochs counts from the very beginning of "
            f"the run, not from the checkpoint.",
        )
        expect(
            steps != {batches}, f"{case} The optimizer knows of {batches} updates only: its averages were not restored."
        )
        expect(
            not steps or max(steps) == (epochs + 1) * batches,
            f"{case} The optimizer has made {max(steps, default=0)} updates since the beginning of the run; with one "
            f"epoch more there should be {(epochs + 1) * batches}. Does training_steps know where the run was?",
        )
        raise Hint(
            f"{case} The number of updates is right, the weights are not those of a run that never stopped. Is the "
            f"progress handed on, and is nothing random drawn between loading and training?"
        )
    return "Weights, averages, shuffling and dropout were all restored: bit for bit the run that never stopped."


@exercise("5.5")
def exercise_5_5(answer: Any, model: torch.nn.Module, train_loader: DataLoader, val_loader: DataLoader) -> str:
    """`answer` is (training loss, validation loss) of `model` on the whole of the two loaders."""
    got = read_numbers(answer, 2, "Two numbers are expected: (training_loss, validation_loss).")
    right = call(_losses, model, (train_loader, val_loader))
    off = [not same(a, b, atol=0) for a, b in zip(got, right, strict=True)]
    if not any(off):
        return (
            "The two losses tell how hard each part of the text is for this model, and nothing about memorising: it "
            "was trained on neither. That is why no gap has opened between them."
        )
    swapped = all(same(a, b, atol=0) for a, b in zip(got, right[::-1], strict=True))
    expect(not swapped, "The right two numbers in the wrong order: the training loss comes first.")
    exponentials = all(same(math.log(max(a, 1e-9)), b, rtol=1e-2, atol=0) for a, b in zip(got, right, strict=True))
    expect(not exponentials, "Those are perplexities; the losses are expected.")
    hints = [
        f"the {name} loss is off by {abs(a - b) / b:.0%}"
        for name, a, b, wrong in zip(("training", "validation"), got, right, off, strict=True)
        if wrong
    ]
    raise Hint(
        f"Not these: {' and '.join(hints)}. Is it the right model, in evaluation mode, and did you use all batches?"
    )


def _losses(model: torch.nn.Module, loaders: Iterable[DataLoader]) -> list[float]:
    device = next(model.parameters()).device
    with torch.no_grad(), evaluation_mode(model):
        return [calc_loss_loader(loader, model, device) for loader in loaders]


@exercise("5.6", "config_from(settings)")
def exercise_5_6(answer: Callable) -> str:
    """`answer(settings)` turns GPT-2's settings into a configuration of `GPTModel`."""
    for size, sizes in GPT_SIZES.items():
        right = gpt_config(size, qkv_bias=True)
        settings = {"n_vocab": GPT_CONFIG_124M["vocab_size"], "n_ctx": 1024, "n_embd": sizes["emb_dim"]}
        settings |= {"n_head": sizes["n_heads"], "n_layer": sizes["n_layers"]}
        got = answer(dict(settings))
        expect_kind(got, Mapping, "A dictionary")
        missing = sorted(set(right) - set(got))
        expect(not missing, f"The configuration lacks {', '.join(missing)}.")
        foreign = sorted(set(map(str, got)) - set(right))
        expect(not foreign, f"GPTModel knows no entry {', '.join(foreign)}: have GPT-2's names been left in?")
        expect(
            got["qkv_bias"] is True,
            "One entry says whether queries, keys and values have biases. Which value does GPT-2 need?",
        )
        for name in ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers"):
            expect(
                got[name] == right[name],
                f"For GPT-2 {size} your {name} is {got[name]}, which does not go with its settings.",
            )
        rate = got["drop_rate"]
        expect(isinstance(rate, int | float) and 0 <= rate < 1, f"drop_rate={rate!r} is not a dropout rate.")
        with torch.device("meta"):
            call(GPTModel, dict(got))
    # Settings of no published size: the numbers must come from the settings, not from a table of sizes.
    other = answer({"n_vocab": 300, "n_ctx": 20, "n_embd": 12, "n_head": 3, "n_layer": 5})
    expect_kind(other, Mapping, "A dictionary")
    sizes = [other.get(name) for name in ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers")]
    expect(sizes == [300, 20, 12, 3, 5], "A GPT-2 of no published size comes out wrong: take every size from settings.")
    return "Five numbers under other names, and biases for queries, keys and values: all four sizes can be loaded."


@exercise("5.7", "nucleus(probabilities, p)")
def exercise_5_7(answer: Callable) -> str:
    """`answer(probabilities, p)` says which tokens top-p keeps, as truth values (V,)."""
    generator = torch.Generator().manual_seed(57)
    cases = [(torch.tensor([0.0625, 0.5, 0.25, 0.1875]), p) for p in (0.6, 0.9, 0.3)]
    cases += [(torch.tensor([0.01, 0.97, 0.02]), 0.5)]
    cases += [(torch.softmax(2 * torch.randn(n, generator=generator), 0), p) for n, p in ((6, 0.8), (20, 0.9), (9, 1))]
    for probabilities, p in cases:
        ordered, order = probabilities.sort(descending=True)
        inside = ordered.cumsum(0) - ordered < p
        expected = torch.zeros(len(order), dtype=torch.bool)
        expected[order] = inside
        got = answer(probabilities.clone(), p)
        keep = read_tensor(got, "One truth value per token")
        expect(
            keep.shape == expected.shape,
            f"One truth value per token is expected, shape {tuple(expected.shape)}; yours is {tuple(keep.shape)}.",
        )
        got = torch.as_tensor(got)
        expect(got.dtype == torch.bool, f"Truth values (torch.bool) are expected, not {got.dtype}.")
        shown = " ".join(f"{value:.3f}" for value in probabilities.tolist()[:6])
        case = f"Tried with p = {p:g} and probabilities {shown}{' …' if len(probabilities) > 6 else ''}."
        within = torch.zeros(len(order), dtype=torch.bool)
        within[order] = ordered.cumsum(0) <= p
        unsorted = probabilities.cumsum(0) - probabilities < p
        each = "You compare each probability with p; it is the sum of the likeliest that must reach p."
        slips = [
            (inside, "Your decisions are in sorted order; bring them back to the order of the input."),
            (within, "You drop the token that crosses the line; what is left then has less than p."),
            (~expected, "It is the other way round: true is for what is kept."),
            (probabilities >= p, each),
            (probabilities > p, each),
            (unsorted, "You add up in the order of the input: begin with the likeliest token."),
        ]
        sides = f"Expected {expected.tolist()[:6]}, got {got.tolist()[:6]}."
        expect_close(got, expected, case, slips, otherwise=sides)
    return "The likeliest tokens until their sum reaches p, the one that crosses the line included."


self_test_5 = self_test("5", "ch05")
