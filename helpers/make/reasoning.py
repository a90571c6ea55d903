"""Run the experiments of the bonus notebook on reasoning models with several seeds, and record their results.

    python -m helpers.make.reasoning ways --seed 123
    python -m helpers.make.reasoning ways --seed 124
    python -m helpers.make.reasoning ways --seed 125
    python -m helpers.make.reasoning lengths

`ways` trains a base model, improves copies of it and of a smaller student in all the ways that the notebook compares,
and tests them on the held-out questions. What follows the base gets the operations that the reinforcement learning
took. `lengths` trains models that answer in one way only, on sums of two to six digits, with three seeds. Each command
adds what it found to helpers/assets/reasoning.json, and takes a few minutes on one core.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from .. import reasoning
from ..files import read_json, write_text_whole
from ..reasoning import DIGITS, RECORD
from .commands import run

MAX_SAMPLES = 32
LENGTH_SEEDS = (123, 124, 125)
LENGTH_UPDATES = 400


def measure(model: torch.nn.Module, spent: float, samples: int = MAX_SAMPLES) -> dict[str, Any]:
    """What the table says of a model: accuracies on the held-out questions, tokens, and the operations of training."""
    questions = reasoning.held_out()
    greedy = reasoning.ask(model, questions)
    drawn = reasoning.ask(model, questions, samples, temperature=1.0, seed=1)
    right = reasoning.score(questions, drawn)  # (Q, S)
    texts = reasoning.to_texts(drawn)
    asked = [question for question in questions.tolist() for _ in range(samples)]
    verified = [reasoning.full_work(*pair) for pair in zip(asked, texts, strict=True)]
    row: dict[str, Any] = {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "training": spent,
        "greedy": reasoning.score(questions, greedy).mean().item(),
        "drawn": right.mean().item(),
        "any": right.amax(dim=1).mean().item(),
        "steps": sum(len(text) - 3 for text in reasoning.to_texts(greedy)) / len(greedy),
        "answer": reasoning.gflop(model, generated=DIGITS + 1 + sum(map(len, texts)) / len(texts)),
    }
    for name, weights in (("vote", [1.0] * len(texts)), ("verifier", verified)):
        hits = 0
        for place, question in enumerate(questions.tolist()):
            group = slice(place * samples, (place + 1) * samples)
            answers = [
                reasoning.read_answer(text) if weight else None
                for text, weight in zip(texts[group], weights[group], strict=True)
            ]
            hits += reasoning.majority(answers) == sum(question) % 10
        row[name] = hits / len(questions)
    return row


def supervised(model: torch.nn.Module, draw: Callable[[], torch.Tensor], budget: float, lr: float) -> int:
    """Fine-tune until the operations of `budget` (in GFLOP) are used up; returns the updates."""
    rows = draw()
    tokens = reasoning.is_written(rows[:, DIGITS + 1 :]).sum().item() + len(rows) * (DIGITS + 1)
    updates = max(1, round(budget / reasoning.gflop(model, trained=tokens)))
    reasoning.train_on(model, draw, updates, lr)
    return updates


def ways(options: argparse.Namespace) -> None:
    """All ways with one seed."""
    seed, start = options.seed, time.process_time()
    results: dict[str, Any] = {}

    def note(name: str, model: torch.nn.Module, spent: float) -> None:
        results[name] = measure(model, spent)
        shown = ", ".join(f"{key} {value:.3g}" for key, value in results[name].items())
        print(f"{time.process_time() - start:5.0f} s  {name}: {shown}", flush=True)

    base = reasoning.train_base(seed)
    note("base", base, 0.0)

    pure = copy.deepcopy(base)
    history = reasoning.train_grpo(pure, reasoning.RL_UPDATES, seed=seed)
    budget = reasoning.rl_gflop(pure, history)
    note("reinforcement", pure, budget)

    generator = torch.Generator().manual_seed(seed + 1000)
    longer = copy.deepcopy(base)
    supervised(longer, lambda: reasoning.people_write(reasoning.BATCH, generator), budget, reasoning.TUNING_RATE)
    note("more of the same text", longer, budget)

    cold = reasoning.cold_start(seed)
    tuned = copy.deepcopy(base)
    spent = reasoning.tune_on(tuned, cold, reasoning.COLD_UPDATES, seed)
    note("written solutions", tuned, spent)
    tuned_long = copy.deepcopy(base)
    draw = reasoning.drawing_from(cold, seed)
    supervised(tuned_long, draw, budget, reasoning.TUNING_RATE)
    note("written solutions, longer", tuned_long, budget)
    both = copy.deepcopy(tuned)
    one = reasoning.gflop(both, generated=1, trained=1) * 32 * 8 * reasoning.CONTEXT  # an update, all steps written
    history = reasoning.train_grpo(both, max(1, round((budget - spent) / one)), seed=seed)
    note("written solutions, then reinforcement", both, spent + reasoning.rl_gflop(both, history))

    student = reasoning.train_base(seed, **reasoning.STUDENT_SIZE)
    note("student", student, 0.0)
    lessons, writing = reasoning.lessons(both, seed)
    distilled = copy.deepcopy(student)
    supervised(distilled, reasoning.drawing_from(lessons, seed), budget - writing, reasoning.TUNING_RATE)
    note("student, distilled", distilled, budget)
    alone = copy.deepcopy(student)
    one = reasoning.gflop(student, generated=1, trained=1) * 32 * 8 * reasoning.CONTEXT
    history = reasoning.train_grpo(alone, max(1, round(budget / one)), seed=seed)
    note("student, reinforcement", alone, reasoning.rl_gflop(alone, history))
    save("ways", {str(seed): results})


def lengths(options: argparse.Namespace) -> None:
    """Models that only ever answer in one way, for sums of so many digits; the digits before them are 0."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, steps in (("without steps", 0), ("with steps", DIGITS - 1)):
        for digits in options.digits:
            right = [one_way(steps, digits, seed) for seed in LENGTH_SEEDS]
            found.setdefault(name, {})[str(digits)] = right
            print(f"{name}, {digits} digits: {right}", flush=True)
    save("lengths", found)


def one_way(steps: int, digits: int, seed: int) -> float:
    """How often a model is right that was trained on right answers with so many steps."""
    generator = torch.Generator().manual_seed(seed)

    def questions(count: int) -> torch.Tensor:
        drawn = reasoning.draw_questions(count, generator)
        drawn[:, : DIGITS - digits] = 0
        return drawn

    def draw() -> torch.Tensor:
        return reasoning.write_out(questions(reasoning.BATCH), torch.full((reasoning.BATCH,), steps))

    model = reasoning.new_model(seed)
    reasoning.train_on(model, draw, LENGTH_UPDATES, reasoning.BASE_RATE)
    asked = questions(1000)
    return round(reasoning.score(asked, reasoning.ask(model, asked)).mean().item(), 4)


def save(part: str, results: dict[str, dict[str, Any]]) -> None:
    """Add results, a table in each of a part's entries, to the record."""
    record = read_json(RECORD) if RECORD.exists() else {}
    for name, rows in results.items():
        entry = record.setdefault(part, {}).setdefault(name, {})
        entry.update(rows)
        if part == "lengths":  # which may have come in any order
            record[part][name] = dict(sorted(entry.items()))
    record[part] = dict(sorted(record[part].items(), reverse=part == "lengths"))
    write_text_whole(RECORD, json.dumps(dict(sorted(record.items())), indent=1) + "\n")
    print(f"written to {RECORD.name}")


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("ways").add_argument("--seed", type=int, default=123)
    digits = commands.add_parser("lengths")
    digits.add_argument("--digits", type=int, nargs="+", choices=range(2, DIGITS + 1), default=range(2, DIGITS + 1))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run one of the commands."""
    options = read_options(arguments)
    run({"ways": ways, "lengths": lengths}[options.command], options)


if __name__ == "__main__":
    main()
