"""Train the course assistant: an adapter (LoRA) that makes the course model follow instructions.

    python -m helpers.make.assistant train helpers/assets/course_model/assistant.safetensors
    python -m helpers.make.assistant evaluate --adapter helpers/assets/course_model/assistant.safetensors

It is chapter 7's recipe for 40 minutes instead of one: the same prompt style, the same loss on the answers only, but
`--entries` practice entries (see `helpers.make.instruction_set`), each seen `--epochs` times. Only an adapter is
trained, so that the result is a file of less than 3 MB beside the course model. The training saves as it goes, to a
.training.pt beside it; after an interruption, the same command goes on from the last save.

`evaluate` prints, by group of tasks, how many answers agree with the reference, and their token F1: for the test part
of the embedded set, and for requests made of words that no entry to train on has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from ..checkpoints import load_checkpoint, save_checkpoint
from ..files import check_writable
from ..instructions import (
    PHI3,
    Entry,
    InstructionDataset,
    answer_entries,
    calc_loss_batch_labels,
    check_entries,
    masked_collate_fn,
    split_entries,
)
from ..judges import exact_match, token_f1
from ..lora import replace_linear_with_lora, save_adapter
from ..pretrained import COURSE_MODEL_FILE, load_assistant, load_course_model
from ..settings import get_device
from ..texts import GROUPS
from ..tokenizers import get_tokenizer
from ..training import Progress, training_steps
from .commands import at_least_one, run
from .instruction_set import draw, kinds, make_entries, practice_entries

RANK, ALPHA, TARGETS = 48, 96, "trf_blocks"  # a file of 2.66 MB, in 16 bits
PEAK_RATE, WARM_UP, BATCH = 8e-4, 50, 32
HARD = {"choose from a few": 2.5, "copy and rearrange": 3.0}  # groups that are practised more than their share
ANSWER_TOKENS = 40
SAVE_EVERY = 200  # updates


def train(options: argparse.Namespace) -> None:
    """Train the adapter on practice entries and write it."""
    torch.manual_seed(options.seed)
    check_writable(options.adapter)  # now, not after the training
    device = get_device(options.device)
    checkpoint = options.kept_in = options.adapter.with_suffix(".training.pt")
    model, cfg = load_course_model(options.model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    replace_linear_with_lora(model, RANK, ALPHA, TARGETS)
    model.to(device)
    entries = practice_entries(options.entries, options.seed, HARD)
    loader = DataLoader(
        InstructionDataset(entries, get_tokenizer(), PHI3, with_prompt_lengths=True),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        collate_fn=partial(masked_collate_fn, allowed_max_length=cfg["context_length"], device=device),
    )
    if not loader:
        raise ValueError(f"--entries {options.entries} is less than a batch of {BATCH}")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=PEAK_RATE, weight_decay=0.01)
    progress, updates = Progress(), options.epochs * len(loader)
    if checkpoint.exists():
        progress, _ = load_checkpoint(checkpoint, model, optimizer)
        print(f"going on from {checkpoint}: {progress.step} of {updates} updates")

    def set_rate(step: int) -> None:
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * min((step + 1) / WARM_UP, 1 - step / updates)

    recipe = {"loss_function": calc_loss_batch_labels, "before_update": set_rate, "progress": progress, "fast": True}
    losses = []
    for progress in training_steps(model, loader, optimizer, device, options.epochs, **recipe):
        losses.append(progress.loss)
        if progress.step % SAVE_EVERY == 0:
            save_checkpoint(checkpoint, model, optimizer, progress)
            print(f"update {progress.step} of {updates}: loss {sum(losses) / len(losses):.3f}", flush=True)
            losses = []
    save_adapter(model.cpu().half(), options.adapter)
    checkpoint.unlink(missing_ok=True)
    print(f"{options.adapter}: {options.adapter.stat().st_size / 1e6:.2f} MB")


def evaluate(options: argparse.Namespace) -> None:
    """Print how good the answers are, by group of tasks."""
    given = options.adapter, options.model
    model, cfg = load_assistant(*given) if options.adapter else load_course_model(options.model)
    model.to(get_device(options.device))
    own = make_entries()
    start, end = (len(part) for part in split_entries(own)[:2])
    sets = {"the test part of the embedded set": (own[start : start + end], kinds()[start : start + end])}
    sets["unseen words"] = tuple(zip(*draw(options.unseen, options.seed, unseen=True), strict=True))[::-1]
    if options.data:
        data = json.loads(options.data.read_text(encoding="utf-8"))
        check_entries(data)
        sets[str(options.data)] = (split_entries(data)[1], None)
    for name, (entries, names) in sets.items():
        answers = answer_entries(model, entries, get_tokenizer(), cfg["context_length"], ANSWER_TOKENS, PHI3)
        print(f"{name}, {len(entries)} requests")
        print_scores(entries, answers, names)
        for entry, answer in list(zip(entries, answers, strict=True))[: options.show]:
            print(f"  {entry['instruction']} {entry['input']} -> {answer!r} (reference {entry['output']!r})")


def print_scores(entries: Sequence[Entry], answers: Sequence[str], names: Sequence[str] | None) -> None:
    """Print exact matches and mean token F1 (0 to 100), of all answers and by group of kinds."""
    rows: dict[str, list[tuple[float, float]]] = {"all": []}
    for number, (entry, answer) in enumerate(zip(entries, answers, strict=True)):
        score = exact_match(answer, entry["output"]), token_f1(answer, entry["output"])
        rows["all"].append(score)
        if names:
            group = next(group for group, kinds in GROUPS.items() if names[number] in kinds)
            rows.setdefault(group, []).append(score)
    for group, scores in rows.items():
        exact, f1 = (100 * sum(column) / len(scores) for column in zip(*scores, strict=True))
        print(f"  {group:20s} {len(scores):4d} requests, exact {exact:5.1f}, token F1 {f1:5.1f}", flush=True)


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "evaluate"):
        command = commands.add_parser(name)
        command.add_argument("--model", type=Path, default=COURSE_MODEL_FILE, help="the course model to begin with")
        command.add_argument("--seed", type=int, default=123)
        command.add_argument("--device", help="cpu, cuda or mps")
        if name == "train":
            command.add_argument("adapter", type=Path, help="the file to write")
            command.add_argument("--entries", type=at_least_one, default=160_000)
            command.add_argument("--epochs", type=at_least_one, default=2)
            command.add_argument("--keep-freed-memory", action="store_true", help="faster on Linux")
        else:
            command.add_argument("--adapter", type=Path, help="without one, the course model itself is asked")
            command.add_argument("--unseen", type=int, default=600, help="requests made of unseen words")
            command.add_argument("--data", type=Path, help="another set of instructions, whose test part is asked too")
            command.add_argument("--show", type=int, default=0, help="print so many answers of each set")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run one of the commands."""
    options = read_options(arguments)
    run({"train": train, "evaluate": evaluate}[options.command], options)


if __name__ == "__main__":
    main()
