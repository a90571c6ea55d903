"""Checkers for chapter 5."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils.data import DataLoader, TensorDataset

from ...checkpoints import save_checkpoint
from ...generation import generate
from ...gpt import GPT_CONFIG_124M, GPTModel, gpt_config
from ...guards import evaluation_mode
from ...training import calc_loss_batch, calc_loss_loader, training_steps
from ._core import (
    Hint,
    call,
    exercise,
    expect,
    expect_kind,
    explained,
    read_number,
    read_numbers,
    read_parts,
    read_share,
    read_tensor,
    same,
    self_test,
)

_CPU = torch.device("cpu")


class _Summing(torch.nn.Module):
    """A stand-in for a GPT whose predictions depend on every token that it is shown, and on how many there are."""

    def __init__(self, vocab_size: int, most: int):
        super().__init__()
        generator = torch.Generator().manual_seed(50)
        self.rows = torch.nn.Parameter(1.5 * torch.randn(37, vocab_size, generator=generator))
        self.most = most

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        expect(idx.dim() == 2, f"The model was given a tensor of shape {tuple(idx.shape)}; it reads (B, T).")
        expect(
            idx.shape[1] <= self.most, f"The model was given {idx.shape[1]} tokens; context={self.most} is the limit."
        )
        expect(idx.shape[1] > 0, "The model was given no token at all.")
        places = torch.arange(1, idx.shape[1] + 1)
        return self.rows[(idx.cumsum(dim=1) * 5 + 3 * places) % len(self.rows)]


def _windows(model: torch.nn.Module, ids: torch.Tensor, context: int, stride: int) -> list[tuple[int, torch.Tensor]]:
    """The start of each window and the losses (T,) of its targets: a window every `stride` tokens, up to the end."""
    windows, start = [], 0
    while True:
        targets = ids[start + 1 : start + context + 1]
        logits = model(ids[None, start : start + len(targets)])[0]
        windows.append((start, torch.nn.functional.cross_entropy(logits, targets, reduction="none")))
        if start + len(targets) == len(ids) - 1:
            return windows
        start += stride


@exercise("5.A", "text_perplexity(model, ids, context, stride)")
@torch.no_grad()
def exercise_5_a(answer: Callable) -> str:
    """`answer(model, ids, context, stride)` is the perplexity of a text, each token but the first scored once."""
    generator, case = torch.Generator().manual_seed(51), ""
    outcomes = []  # for each case, what was got and what the right way and each slip give
    for length, context, stride in ((30, 8, 4), (29, 8, 3), (17, 16, 16), (6, 10, 5), (33, 8, 8)):
        ids = torch.randint(0, 19, (length,), generator=generator)
        model = _Summing(19, context).eval()
        windows, new, end = _windows(model, ids, context, stride), [], 0
        for start, losses in windows:
            new.append(losses[end - start :])
            end = start + len(losses)
        full = [part for part, (_, losses) in zip(new, windows, strict=True) if len(losses) == context]
        means = torch.stack([part.mean() for part in new])
        given = ids.clone()
        got = read_number(answer(model, given, context, stride))
        expect(torch.equal(given, ids), "Your function has changed the ids that it was given; work on a copy.")
        right = torch.cat(new).mean().exp()
        if not case and not same(got, right, atol=0):
            case = f"Tried with {length} ids, context {context} and stride {stride}: there are {length - 1} targets."
        everything = torch.cat([losses for _, losses in windows])
        apart = torch.cat([losses for _, losses in _windows(model, ids, context, context)])
        cut = torch.cat(full).mean() if full else torch.tensor(math.nan)
        slips = {
            "That is the loss; the perplexity is its exponential.": right.log(),
            "Tokens in two windows are scored twice: a later window should score what is new.": everything.mean().exp(),
            "Your windows do not overlap: each should begin `stride` tokens after the one before.": apart.mean().exp(),
            "You average windows; one that scores few tokens then counts as much as a full one.": means.mean().exp(),
            "You average perplexities; average losses, with the exponential at the end.": means.exp().mean(),
            "The last tokens of the text, which do not fill a window, are left out.": cut.exp(),
            "The first window should score all of its targets, as no other scores the first ones.": (
                torch.cat([new[0][-stride:], *new[1:]]).mean().exp()
            ),
        }
        outcomes.append((got, slips))
    if not case:
        return (
            "Every token but the first is predicted once, and after the first window each has at least context − "
            "stride tokens before it. The smaller the stride, the fairer the number, and the longer it takes."
        )
    for hint in outcomes[0][1]:
        expect(not all(same(got, slips[hint], atol=0) or slips[hint].isnan() for got, slips in outcomes), hint)
    raise Hint(f"{case} Count how many of them each of your windows scores; the sum must be the same.")


class _Watch:
    """Notes how a model reads batches of each size: in training mode or not, and with gradients or not."""

    def __init__(self, model: torch.nn.Module):
        self.modes: dict[int, set[tuple[bool, bool]]] = {}
        model.register_forward_pre_hook(self.note)

    def note(self, model: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        self.modes.setdefault(len(given[0]), set()).add((model.training, torch.is_grad_enabled()))


def _overfitting(seed: int) -> tuple[GPTModel, DataLoader, DataLoader, torch.optim.Optimizer]:
    """A tiny model, texts of which it learns the training part by heart, and an optimizer."""
    torch.default_generator.manual_seed(seed)
    sizes = {"vocab_size": 12, "context_length": 6, "emb_dim": 16, "n_heads": 2, "n_layers": 1, "drop_rate": 0.1}
    model, generator = GPTModel(gpt_config("124M", **sizes)), torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 12, (14, 7), generator=generator)
    ids[:, 2::2] = (ids[:, 1:-1:2] * 5 + 1) % 12  # half of the text can be learned, the other half only by heart
    own = {"generator": torch.Generator()}  # iterating must not disturb the dropout of another way to write the loop
    train = DataLoader(TensorDataset(ids[:8, :-1], ids[:8, 1:]), batch_size=2, **own)
    val = DataLoader(TensorDataset(ids[8:, :-1], ids[8:, 1:]), batch_size=3, **own)
    return model, train, val, torch.optim.AdamW(model.parameters(), lr=0.02)


def _until_best(model, train, val, optimizer, max_epochs: int, patience: int) -> tuple[list[float], list[dict]]:
    """The validation losses of exercise 5.B, and the weights after each epoch."""
    losses, weights = [], []
    while len(losses) < max_epochs:
        model.train()
        for inputs, targets in train:
            optimizer.zero_grad()
            calc_loss_batch(inputs, targets, model, _CPU).backward()
            optimizer.step()
        with evaluation_mode(model), torch.no_grad():
            losses.append(calc_loss_loader(val, model, _CPU))
        weights.append({name: weight.clone() for name, weight in model.state_dict().items()})
        if len(losses) - 1 - losses.index(min(losses)) >= patience:
            break
    return losses, weights


@exercise("5.B", "train_until_best(model, train_loader, val_loader, optimizer, max_epochs, patience)")
def exercise_5_b(answer: Callable) -> str:
    """`answer(...)` trains with early stopping, returns the validation losses and leaves the best weights in model."""
    for seed, max_epochs, patience in ((5, 40, 2), (7, 40, 4), (5, 3, 5)):
        losses, weights = _until_best(*_overfitting(seed), max_epochs, patience)
        model, train, val, optimizer = _overfitting(seed)
        watch = _Watch(model)
        got = read_tensor(answer(model, train, val, optimizer, max_epochs, patience), "A list of losses").flatten()
        case = f"Tried with max_epochs={max_epochs} and patience={patience}."
        modes = watch.modes
        expect(2 in modes, f"{case} No batch of train_loader was read.")
        expect(3 in modes, f"{case} No batch of val_loader was read.")
        expect(
            not any(training for training, _ in modes[3]),
            f"{case} A batch of val_loader was read in training mode: dropout makes its loss larger and random.",
        )
        expect(
            (False, True) not in modes[2],  # without gradients it is the training loss that is evaluated
            f"{case} A batch of train_loader was read in evaluation mode, with gradients. Who puts the model back into "
            "training mode after an evaluation?",
        )
        shared = min(len(got), len(losses))
        expect(len(got) > 0, f"{case} The list of losses is empty.")
        first = next((n for n in range(shared) if not same(got[n], losses[n], rtol=1e-2)), None)
        expect(
            first is None,
            f"{case} The validation loss after epoch {(first or 0) + 1} is not as expected. Is it the mean over the "
            "whole val_loader, after a whole epoch of updates?",
        )
        expect(
            len(got) == len(losses),
            f"{case} Your run has {len(got)} epochs. Count those since the last new lowest loss: at which number "
            f"should it end?\nyour losses: {' '.join(f'{loss:.3f}' for loss in got[:12].tolist())}",
        )
        state, best = model.state_dict(), losses.index(min(losses))
        if not _close(state, weights[best]):
            last = _close(state, weights[-1])
            expect(
                not last,
                f"{case} The model has the weights of the last epoch, not those of the best. state_dict() hands out "
                "the model's own tensors, which go on changing: what you keep must be copies, and put back at the end.",
            )
            raise Hint(f"{case} The losses are right, but the model has other weights than after the best epoch.")
    return (
        "The run ends when nothing has improved for `patience` epochs, and what is kept is the model of the best "
        "moment. The validation text has now helped to choose the model, so an honest last score needs a third text."
    )


def _close(got: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> bool:
    return all(same(got[name], weight, atol=1e-3) for name, weight in expected.items())


def _average_count(logits: torch.Tensor, temperature: float, word: int, draws: int) -> float:
    return draws * torch.softmax(logits.double() / temperature, dim=0)[word].item()


@exercise("5.1", "temperature_for(logits, word, count, draws)")
def exercise_5_1(answer: Callable) -> str:
    """`answer(logits, word, count, draws)`: the temperature at which `word` is drawn `count` times on average."""
    generator = torch.Generator().manual_seed(51)
    toy = torch.tensor([4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79])
    cases = [(toy, 6, 32, 1000), (toy, 6, 80, 1000), (toy, 1, 100, 2000)]
    for size, share in ((5, 0.4), (12, 0.05), (7, 0.9)):  # of what the least probable word gets at most
        logits = 3 * torch.randn(size, generator=generator)
        cases.append((logits, int(logits.argmin()), 500 * share / size, 500))
    for logits, word, count, draws in cases:
        got, again = (read_number(answer(logits.clone(), word, count, draws), "A temperature") for _ in range(2))
        case = f"Tried with {len(logits)} logits, count {count:g} and {draws} draws."
        expect(got > 0 and math.isfinite(got), f"{case} You get {got:g}: a temperature is a number above 0.")
        average = _average_count(logits, got, word, draws)
        if math.isclose(average, count, rel_tol=0.01):
            continue
        expect(got == again, f"{case} Two calls gave two answers: are you drawing? An average needs no draws.")
        expect(
            not math.isclose(_average_count(logits, 1 / got, word, draws), count, rel_tol=0.01),
            f"{case} Your number is the inverse of the temperature: the logits are divided by it.",
        )
        scaled = _average_count(logits, 1.0, word, draws) / got
        expect(
            not math.isclose(scaled, count, rel_tol=0.01),
            f"{case} The temperature divides the logits, before the softmax, and not the probabilities.",
        )
        raise Hint(f"{case} At your temperature, {got:.4g}, the word is drawn {average:.1f} times on average.")
    return (
        "Probability times draws is the average count, and for a word less probable than most it grows steadily with "
        "the temperature. For pizza at temperature 5 it is 42.9 of 1,000; the 32 were one experiment's chance."
    )


@exercise("5.C", "nucleus(probabilities, p)")
def exercise_5_c(answer: Callable) -> str:
    """`answer(probabilities, p)` says which tokens top-p keeps, as truth values (V,)."""
    generator = torch.Generator().manual_seed(57)
    cases = [(torch.tensor([0.0625, 0.5, 0.25, 0.1875]), p) for p in (0.6, 0.9, 0.3, 0.5)]
    cases += [(torch.tensor([0.01, 0.97, 0.02]), 0.5), (torch.tensor([0.25, 0.5, 0.25]), 0.75)]
    cases += [(torch.softmax(2 * torch.randn(n, generator=generator), 0), p) for n, p in ((6, 0.8), (20, 0.9), (9, 1))]
    outcomes = []
    for probabilities, p in cases:
        given = probabilities.clone()
        got = answer(given, p)
        keep = read_tensor(got, "One truth value per token")
        expect(torch.equal(given, probabilities), "Your function has changed the probabilities; work on a copy.")
        expect(
            keep.shape == probabilities.shape,
            f"One truth value per token is expected, shape {tuple(probabilities.shape)}; yours is {tuple(keep.shape)}.",
        )
        kind = torch.as_tensor(got).dtype
        expect(kind == torch.bool, f"Truth values (torch.bool) are expected, not {kind}.")
        outcomes.append((keep.bool(), *_nucleus(probabilities, p)))
    if all(torch.equal(keep, right) for keep, right, _ in outcomes):
        return "The most probable tokens until their sum reaches p, the one that crosses the line included."
    for hint in outcomes[0][2]:
        expect(not all(torch.equal(keep, slips[hint]) for keep, _, slips in outcomes), hint)
    (probabilities, p), (keep, right, _) = next(
        pair for pair in zip(cases, outcomes, strict=True) if not torch.equal(*pair[1][:2])
    )
    shown = " ".join(f"{value:.3f}" for value in probabilities.tolist()[:6]) + (" …" if len(probabilities) > 6 else "")
    raise Hint(
        f"Tried with p = {p:g} and probabilities {shown}.\nexpected {right.tolist()[:6]}\ngot      {keep.tolist()[:6]}"
    )


def _nucleus(probabilities: torch.Tensor, p: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Which tokens top-p keeps (V,), and what known slips keep, by their hints."""
    ordered, order = probabilities.sort(descending=True)
    total = ordered.cumsum(0)
    inside = total - ordered < p

    def unsorted(decisions: torch.Tensor) -> torch.Tensor:
        result = torch.zeros(len(order), dtype=torch.bool)
        result[order] = decisions
        return result

    each = "You compare each probability with p; it is the sum of the most probable that must reach p."
    return unsorted(inside), {
        "Your decisions are in sorted order; bring them back to the order of the input.": inside,
        "Your decisions are brought back the wrong way: order[i] says where the i-th of the sorted stood.": inside[
            order
        ],
        "You drop the token that crosses the line; what is left then has less than p.": unsorted(total <= p),
        "You keep one token too many where the sum of the ones before it is exactly p.": unsorted(total - ordered <= p),
        "It is the other way round: true is for what is kept.": ~unsorted(inside),
        each: probabilities >= p,
        "You keep the most probable token only; others belong to it until the sum reaches p.": unsorted(
            torch.arange(len(order)) == 0
        ),
        "You add up in the order of the input: begin with the most probable token.": (
            probabilities.cumsum(0) - probabilities < p
        ),
    }


def _repeated(tokens: Sequence[int], n: int) -> float:
    """The share of the n-grams of a text that occur earlier in it; 0 for a text without n-grams."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@exercise("5.2")
def exercise_5_2(
    answer: Callable, lowest: float | None = None, samples: Mapping[float, Sequence[Sequence[int]]] | None = None
) -> str:
    """`answer(tokens, n)` is the share of repeated n-grams; `lowest` the lowest temperature with less than 10 %.

    `samples` has the token ids of some texts for each temperature.
    """
    expect(callable(answer), "Hand in the function repeated_share itself, then the temperature, then the samples.")
    cases = [([1, 2, 3, 1, 2, 3, 1, 2, 3], 3), ([4, 4, 4, 4, 4], 2), ([1, 2, 3, 4], 3), ([7, 8, 7, 8, 9, 7, 8], 2)]
    cases += [([5, 6, 5, 6, 5, 6, 1, 1], 1), ([5, 6], 3), ([], 1)]
    results = []
    for tokens, n in cases:
        case = f"Tried with the tokens {tokens} and n = {n}."
        if len(tokens) < n:
            hint = f"{case} A text shorter than n has no n-gram, and so no repeated one: the share is 0."
            with explained((ZeroDivisionError, IndexError, ValueError), hint):
                got = call(answer, list(tokens), n)
        else:
            got = call(answer, list(tokens), n)
        expect(got is not None, "Your function returned nothing: is there a return at its end?")
        results.append((read_share(got, case), _repeated(tokens, n), tokens, n))
    if not all(same(got, right) for got, right, _, _ in results):
        full = [
            (got, [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)], n) for got, _, tokens, n in results
        ]
        full = [(got, grams, n) for got, grams, n in full if grams]
        slips = {
            "That is the share of n-grams that are new; the repeated ones are the rest.": lambda grams, n: (
                len(set(grams)) / len(grams)
            ),
            "You count an n-gram's first occurrence as well; only the later ones repeat something.": lambda grams, n: (
                sum(grams.count(gram) > 1 for gram in grams) / len(grams)
            ),
            "You count kinds of n-grams; count places: what comes five times counts four times.": lambda grams, n: (
                sum(grams.count(gram) > 1 for gram in set(grams)) / len(set(grams))
            ),
            "You divide by the number of tokens; there are n − 1 fewer n-grams.": lambda grams, n: (
                (len(grams) - len(set(grams))) / (len(grams) + n - 1)
            ),
            "Your n-grams do not overlap: one begins at every token, not at every n-th.": lambda grams, n: (
                1 - len(set(grams[::n])) / len(grams[::n])
            ),
        }
        for hint, slip in slips.items():
            expect(not all(same(got, slip(grams, n)) for got, grams, n in full), hint)
        got, right, tokens, n = next(row for row in results if not same(*row[:2]))
        raise Hint(f"Tried with the tokens {tokens} and n = {n}.\nexpected {right:.4f}\ngot      {got:.4f}")
    expect(samples is not None, "Your function is right. Hand in the temperature and the samples as well.")
    temperature = read_number(lowest, "The temperature")
    means = {each: sum(_repeated(text, 3) for text in texts) / len(texts) for each, texts in samples.items()}
    expect(temperature in means, f"{temperature:g} is none of {', '.join(f'{each:g}' for each in means)}.")
    fitting = [each for each in sorted(means) if means[each] < 0.1]
    expect(
        temperature in fitting,
        f"Your function is right. At temperature {temperature:g} it gives {means[temperature]:.1%} on average over the "
        "samples, with n = 3.",
    )
    expect(temperature == fitting[0], f"At {temperature:g} less than 10 % is repeated, and at a lower one as well.")
    return (
        "A question, a form or a test has one right answer: temperature 0 or close to it, at the price of repetition. "
        "A story or a list of ideas needs temperature, and top-k or top-p against the tail that comes with it."
    )


class _EqualChances(torch.nn.Module):
    """A stand-in for a language model with GPT-2's vocabulary whose favourites are hardly more probable than others."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(53)
        vocab_size = GPT_CONFIG_124M["vocab_size"]
        self.table = torch.nn.Parameter(0.05 * torch.randn(8, vocab_size, generator=generator))

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        return self.table[idx % 8]


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
        why = "with so small a top_p the favourite alone fills it, even where all tokens are nearly alike"
    return f"Temperature 0 takes the largest logit and draws nothing; {why}."


def _tiny_run() -> tuple[GPTModel, torch.optim.Optimizer]:
    model = GPTModel(gpt_config("124M", vocab_size=40, context_length=8, emb_dim=16, n_heads=2, n_layers=1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)


def _equal(got: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(got[name], weight) for name, weight in expected.items())


@exercise("5.4", "one_more_epoch(path, model, optimizer, train_loader)")
def exercise_5_4(answer: Callable) -> str:
    """`answer(path, model, optimizer, train_loader)` loads a checkpoint and trains for one more epoch."""
    batches = 6
    ids = torch.randint(0, 40, (2 * batches, 9), generator=torch.Generator().manual_seed(54))
    loader = DataLoader(TensorDataset(ids[:, :-1], ids[:, 1:]), batch_size=2, shuffle=True)
    for epochs in (1, 3):
        quiet = mock.patch.dict(os.environ, TQDM_DISABLE="1")  # no progress bars in the learner's output
        with tempfile.TemporaryDirectory() as folder, quiet:
            path = Path(folder) / "run.pt"
            straight, straight_optimizer = _tiny_run()
            for progress in training_steps(straight, loader, straight_optimizer, _CPU, epochs + 1):
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
            "For this model the two parts are equals. The course model has read neither, so no gap has opened. Of a "
            "model whose training texts are not published one cannot tell: it may have read neither part, or both."
        )
    swapped = all(same(a, b, atol=0) for a, b in zip(got, right[::-1], strict=True))
    expect(not swapped, "The right two numbers in the wrong order: the training loss comes first.")
    exponentials = all(same(math.log(max(a, 1e-9)), b, rtol=1e-2, atol=0) for a, b in zip(got, right, strict=True))
    expect(not exponentials, "Those are perplexities; the losses are expected.")
    hints = [
        f"the {name} loss is off by {abs(a - b) / b:.1%}"
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


def _gpt2_params(vocab_size: int, context_length: int, emb_dim: int, n_layers: int) -> dict[str, Any]:
    """What `download_and_load_gpt2` returns as `params`, in shapes without numbers."""

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device="meta")

    def linear(d_in: int, d_out: int) -> dict[str, torch.Tensor]:
        return {"w": empty(d_in, d_out), "b": empty(d_out)}

    def norm() -> dict[str, torch.Tensor]:
        return {"g": empty(emb_dim), "b": empty(emb_dim)}

    blocks = [
        {
            "ln_1": norm(),
            "attn": {"c_attn": linear(emb_dim, 3 * emb_dim), "c_proj": linear(emb_dim, emb_dim)},
            "ln_2": norm(),
            "mlp": {"c_fc": linear(emb_dim, 4 * emb_dim), "c_proj": linear(4 * emb_dim, emb_dim)},
        }
        for _ in range(n_layers)
    ]
    tables = {"wte": empty(vocab_size, emb_dim), "wpe": empty(context_length, emb_dim)}
    return {"blocks": blocks, **norm(), **tables}


@exercise("5.6", "config_from(params)")
def exercise_5_6(answer: Callable) -> str:
    """`answer(params)` finds the configuration of `GPTModel` from the shapes of GPT-2's parameters."""
    published = [gpt_config(size, qkv_bias=True) for size in ("355M", "124M", "774M", "1558M")]
    other = gpt_config(vocab_size=300, context_length=20, emb_dim=192, n_heads=3, n_layers=5, qkv_bias=True)
    for right in (*published, other):
        sizes = [right[name] for name in ("vocab_size", "context_length", "emb_dim", "n_layers")]
        got = answer(_gpt2_params(*sizes))
        expect_kind(got, Mapping, "A dictionary")
        missing = sorted(set(right) - set(got))
        expect(not missing, f"The configuration lacks {', '.join(missing)}.")
        foreign = sorted(set(map(str, got)) - set(right))
        expect(not foreign, f"GPTModel knows no entry {', '.join(foreign)}: have GPT-2's names been left in?")
        expect(
            got["qkv_bias"] is True,
            "One entry says whether queries, keys and values have biases. What do you see in c_attn?",
        )
        case = f"With {right['n_layers']} blocks and {right['emb_dim']} numbers per token"
        for name in ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers"):
            number = read_number(got[name], name)
            expect(
                name != "n_heads" or number != right["n_layers"] or number == right[name],
                f"{case}, your n_heads is the number of blocks; each head has 64 numbers.",
            )
            expect(
                name != "emb_dim" or number != 3 * right["emb_dim"],
                f"{case}, your emb_dim is the width of c_attn, where queries, keys and values stand side by side.",
            )
            expect(number == right[name], f"{case}, your {name} is {got[name]}, which does not go with the shapes.")
        rate = got["drop_rate"]
        expect(isinstance(rate, int | float) and 0 <= rate < 1, f"drop_rate={rate!r} is not a dropout rate.")
        with torch.device("meta"):
            call(GPTModel, {**got, **{name: int(got[name]) for name in right if name not in ("drop_rate", "qkv_bias")}})
    return (
        "The shapes say all but one thing: the number of heads, which only cut what the matrices give. Here the rule "
        "of 64 numbers per head helps; in general a file needs its settings."
    )


self_test_5 = self_test("5", "ch05")
