"""Train the course model, on a laptop's CPU in a few nights or on a GPU in minutes:

    python -m helpers.make.course_model prepare CORPUS_FOLDER MODERN_FOLDER tokens.npz
    python -m helpers.make.course_model train tokens.npz run.pt --updates 2000 \\
        --mix stories=33,dialogue=15,simple=37,general=15
    python -m helpers.make.course_model decay tokens.npz run.pt course_model.safetensors --updates 1000 \\
        --mix stories=45,dialogue=20,simple=30,general=5
    python -m helpers.make.course_model evaluate tokens.npz course_model.safetensors
    python -m helpers.make.course_model sample course_model.safetensors --count 20

`prepare` tokenizes the texts (see `helpers.make.corpus_tokens`). `train` goes on from run.pt if that exists; else it
begins with random weights, or with a course model (`--start FILE`). It makes `--updates` updates, counted from there,
at a constant learning rate, so a run can always be prolonged. `decay` goes on from run.pt, which it leaves as it is,
while the learning rate falls to zero, and writes the model. Both mix the sources by the weights given. On a GPU:
`--device cuda --batch 512`. In a log file: TQDM_DISABLE=1, for no progress bar.

Both save as they go: `train` to run.pt, `decay` to a .decay.pt beside the model until that is written. After an
interruption, both go on from the last save: the same `decay` makes the updates that are missing, `train` as many as
`--updates` says. On a CPU the result is that of a run that never stopped.

Two things save time. Tokens that never occur in the training text share one class, which counts with the number of its
members, so the probabilities are those of the full vocabulary. And the softmax is estimated: that class and the
frequent tokens are computed exactly, the rare ones from a random sample that stands for all of them (Jean et al.,
2015). `--exact` computes all, and so does the last tenth of `decay` in any case.

Where a text is short and read many times, `--dropout` and `--weight-decay` work against learning it by heart. With
`--teacher FILE`, given once or more, `train` and `decay` learn from course models instead of from the text: not which
token came next, but the probabilities that the teachers give on average. Several models know more together than each of
them, and a further one can learn that (Timiryasov and Tastet, 2023). Give the teachers to both commands:

    python -m helpers.make.course_model train tokens.npz run.pt --start second.safetensors --updates 100 --rate 0.4 \\
        --mix stories=48,dialogue=11,simple=28,general=13 --teacher first.safetensors --teacher second.safetensors
    python -m helpers.make.course_model decay tokens.npz run.pt course_model.safetensors --updates 1100 --rate 0.4 \\
        --mix stories=48,dialogue=11,simple=28,general=13 --teacher first.safetensors --teacher second.safetensors

The losses that are printed are always those of the text.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..checkpoints import load_checkpoint, read_checkpoint, save_checkpoint
from ..files import check_writable
from ..generation import generate
from ..gpt import GPTModel, gpt_config, hidden_states, model_config
from ..pretrained import load_course_model, save_course_model
from ..settings import bfloat16_is_native, get_device
from ..speed.fused import fuse
from ..speed.loss import SoftmaxLoss
from ..tokenizers import END_OF_TEXT, get_tokenizer
from ..training import Progress, evaluated_steps
from .commands import at_least_one, run
from .corpus_tokens import VOCABULARY, Classes, DrawnWindows, prepare, read_tokens, windows_in_order
from .distillation import DistillationLoss

CONFIG = gpt_config("124M", context_length=512, emb_dim=256, n_heads=4, n_layers=6, drop_rate=0.0, qkv_bias=True)
FREQUENT, SAMPLED = 4096, 1024  # tokens computed exactly, and drawn from the others, in the estimated softmax
PEAK_RATES = (0.02, 3e-3)  # learning rates of Muon and AdamW
WARM_UP = 100  # updates in which the learning rates rise from zero
EXACT_FROM = 0.9  # part of a decay after which the softmax is exact
EVALUATED = 8  # windows of each held-out text that are evaluated during a run
SAMPLE_TOKENS = 120  # length of a sample


def tied_model(cfg: dict[str, Any]) -> GPTModel:
    """A model whose output layer is its token embedding, with GPT-2's initial weights (section 2.3 of its paper).

    They are normal with standard deviation 0.02, smaller where a layer's output is added to a shortcut.
    """
    model = GPTModel(cfg)
    model.out_head.weight = model.tok_emb.weight
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
        elif parameter.dim() == 2:
            added = name.endswith(("out_proj.weight", "layers.2.weight"))
            torch.nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * cfg["n_layers"]) if added else 0.02)
    return model


def with_other_table(model: GPTModel, table: torch.Tensor) -> GPTModel:
    """A plain copy of a tied model on the CPU, in evaluation mode, with another token embedding (V, emb_dim)."""
    copy = tied_model({**model_config(model), "vocab_size": len(table), "drop_rate": 0.0})
    weights = {name: weight.cpu() for name, weight in model.state_dict().items()}
    copy.load_state_dict({**weights, "tok_emb.weight": table.cpu(), "out_head.weight": table.cpu()})
    return copy.eval()


def with_classes(full: GPTModel, classes: Classes) -> GPTModel:
    """A model of classes from one of the whole vocabulary: a class's row is the mean of its tokens' rows."""
    of_token, rows = torch.from_numpy(classes.of_token), full.tok_emb.weight.detach()
    sums = torch.zeros(classes.count, rows.shape[1], dtype=torch.float64).index_add_(0, of_token, rows.double())
    sizes = torch.bincount(of_token, minlength=classes.count).clamp(min=1)
    return with_other_table(full, (sums / sizes[:, None]).float())


def with_all_tokens(model: GPTModel, classes: Classes) -> GPTModel:
    """A model of the whole vocabulary from one of classes: the tokens of class 0 share a row."""
    return with_other_table(model, model.tok_emb.weight.detach().cpu()[torch.from_numpy(classes.of_token)])


def set_dropout(model: GPTModel, rate: float) -> None:
    """Drop so many of the embeddings and of what layers add to a shortcut; attention weights stay whole, for speed."""
    for place in (model.drop_emb, *(block.drop_shortcut for block in model.trf_blocks)):
        place.p = rate


class ClassLoss:
    """The loss of a batch of classes, for `training_steps`. In evaluation it is exact.

    In training the softmax is estimated, unless `exact` is set or the classes are few. If there are `teachers`, models
    of classes in evaluation mode, the loss in training is the divergence from the mean of their probabilities, and the
    targets only say which rare tokens are never left out of the estimate.
    """

    def __init__(self, classes: Classes, device: torch.device, exact: bool, teachers: Sequence[GPTModel] = ()):
        self.exact, self.teachers = exact, teachers
        self.log_weight = torch.zeros(classes.count, device=device)
        self.log_weight[0] = math.log(max(1, classes.unseen))
        self.dtype = torch.bfloat16 if bfloat16_is_native(device) else torch.float32
        self.chunk = 1024 if device.type == "cpu" else 8192

    def __call__(
        self, inputs: torch.Tensor, targets: torch.Tensor, model: GPTModel, device: torch.device
    ) -> torch.Tensor:
        inputs, labels = inputs.to(device), targets.to(device).flatten()
        teachers = self.teachers if model.training else ()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            hidden = hidden_states(model, inputs).flatten(0, 1)  # (B * T, C)
            with torch.no_grad():
                states = [hidden_states(teacher, inputs).flatten(0, 1) for teacher in teachers]
        columns, log_weight = None, self.log_weight
        if model.training and not self.exact:
            columns, log_weight = self._drawn(labels if teachers else labels[:0])
        table = model.tok_emb.weight
        if teachers:
            taught = [(x, teacher.tok_emb.weight.detach()) for x, teacher in zip(states, teachers, strict=True)]
            return DistillationLoss.apply(hidden, table, taught, columns, log_weight, self.chunk, self.dtype)
        return SoftmaxLoss.apply(hidden, table, labels, columns, log_weight, 1 + FREQUENT, self.chunk, self.dtype)

    def _drawn(self, wanted: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        """The classes that get a logit in an estimate, and what is added to their logits; None stands for all classes.

        These are the frequent classes, class 0 among them, since nothing else would hold down its probability; the rare
        ones that are `wanted`; and a random sample that stands for all the others.
        """
        frequent = 1 + FREQUENT
        wanted = wanted[wanted >= frequent].unique().cpu()
        others = frequent + torch.randperm(max(0, len(self.log_weight) - frequent))
        others = others[~torch.isin(others, wanted)]
        if len(others) <= SAMPLED:
            return None, self.log_weight
        columns = torch.cat((torch.arange(frequent), wanted, others[:SAMPLED])).to(self.log_weight.device)
        log_weight = self.log_weight[columns]
        log_weight[-SAMPLED:] = math.log(len(others) / SAMPLED)
        return columns, log_weight


class MuonAndAdamW:
    """Muon (Jordan et al., 2024) for the matrices of the blocks and AdamW for everything else, as one optimizer."""

    def __init__(self, model: GPTModel):
        if not hasattr(torch.optim, "Muon"):
            raise ImportError(f"torch.optim.Muon is in torch from 2.9 on, and this is torch {torch.__version__}")
        matrices = [parameter for parameter in model.trf_blocks.parameters() if parameter.dim() == 2]
        others = [parameter for parameter in model.parameters() if not any(parameter is matrix for matrix in matrices)]
        muon = torch.optim.Muon(matrices, weight_decay=0.01, momentum=0.95)
        self.parts = (muon, torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.01, fused=True))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        states = [part.state_dict() for part in self.parts]
        return {"parts": states, "param_groups": [group for state in states for group in state["param_groups"]]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)


class Run:
    """A model in training, with its texts and its optimizer: as `checkpoint` has it, or at its beginning."""

    def __init__(self, options: argparse.Namespace, checkpoint: Path):
        self.options, self.device, self.progress = options, get_device(options.device), Progress()
        training, self.held_out = read_tokens(options.tokens)
        self.classes = Classes(training)
        self.sources = {name: self.classes.of_token[ids].astype(np.int32) for name, ids in training.items()}
        state = read_checkpoint(checkpoint) if checkpoint.exists() else None
        self.seed = options.seed if state is None else state["extra"].get("seed")
        if state is not None and state["extra"].get("classes") != self.classes.checksum:
            raise ValueError(f"{checkpoint} is not a run on {options.tokens}: its classes are others")
        torch.manual_seed(self.seed)
        self.model = self._first_model() if state is None else tied_model({**state["config"], "drop_rate": 0.0})
        set_dropout(self.model, options.dropout)
        fuse(self.model).to(self.device)
        self.teachers = [self._teacher(file) for file in options.teacher]
        self.optimizer = MuonAndAdamW(self.model)
        if state is not None:
            saved, _ = load_checkpoint(checkpoint, self.model, self.optimizer)
            self.progress = Progress(step=saved.step, tokens_seen=saved.tokens_seen)
            print(f"going on from {checkpoint}: {saved.step} updates, {saved.tokens_seen / 1e6:.1f} million tokens")
        if options.weight_decay is not None:
            self.optimizer.parts[0].param_groups[0]["weight_decay"] = options.weight_decay

    def _first_model(self) -> GPTModel:
        if not self.options.start:
            changes = {**self.options.config, "vocab_size": self.classes.count}
            return tied_model(gpt_config("124M", **{**CONFIG, **changes}))
        return self._model_of_classes(self.options.start)

    def _model_of_classes(self, file: Path) -> GPTModel:
        full, cfg = load_course_model(file)
        if cfg["vocab_size"] != VOCABULARY:
            raise ValueError(f"{file} has {cfg['vocab_size']} tokens; GPT-2's {VOCABULARY} are expected")
        return with_classes(full, self.classes)

    def _teacher(self, file: Path) -> GPTModel:
        teacher, needed = self._model_of_classes(file), len(self.model.pos_emb.weight)
        if len(teacher.pos_emb.weight) < needed:
            has = len(teacher.pos_emb.weight)
            raise ValueError(f"--teacher {file} reads {has} tokens; {needed}, as many as the model, are needed")
        return fuse(teacher).to(self.device).eval()

    def go(
        self,
        updates: int,
        scale: Callable[[int], float],
        target: Path,
        exact_from: float = math.inf,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Make so many updates, number `step` at `scale(step)` of the peak rates, and save to `target` on the way.

        The softmax is exact from update `exact_from` on. `extra` is kept in the checkpoint.
        """
        options, first = self.options, self.progress.step
        last, context = first + updates, len(self.model.pos_emb.weight)
        windows = DrawnWindows(self.sources, options.mix, options.batch, context, self.seed, range(first, last))
        held_out = [windows_in_order(self.classes.of_token[ids], context)[:EVALUATED] for ids in self.held_out.values()]
        held_out = [(ids[:, :-1], ids[:, 1:]) for ids in held_out if len(ids)]
        loss = ClassLoss(self.classes, self.device, options.exact or first >= exact_from, self.teachers)

        def before_update(step: int) -> None:
            for group, peak in zip(self.optimizer.param_groups, PEAK_RATES, strict=True):
                group["lr"] = options.rate * peak * min(1.0, (step + 1) / WARM_UP) * scale(step)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)

        steps = evaluated_steps(
            self.model,
            windows,
            held_out,
            self.optimizer,
            self.device,
            num_epochs=1,
            eval_freq=options.eval_every,
            eval_iter=len(held_out),
            loss_function=loss,
            before_update=before_update,
            progress=self.progress,
        )
        for progress, _ in steps:
            loss.exact = options.exact or progress.step >= exact_from
            if progress.step % options.save_every == 0 or progress.step == last:
                kept = {"seed": self.seed, "classes": self.classes.checksum, **(extra or {})}
                save_checkpoint(target, self.model, self.optimizer, progress, **kept)


def train(options: argparse.Namespace) -> None:
    """Prolong a run at a constant learning rate, or begin it."""
    check_writable(options.checkpoint)  # now, not after the first hundred updates
    options.kept_in = options.checkpoint
    run = Run(options, options.checkpoint)
    run.go(options.updates, lambda step: 1.0, options.checkpoint)
    describe(with_all_tokens(run.model, run.classes), run.held_out, run.device)


def decay(options: argparse.Namespace) -> None:
    """End a run: let the learning rate fall to zero over `updates` updates, and write the model."""
    check_writable(options.model)  # now, not after the training
    own = options.kept_in = options.model.with_suffix(".decay.pt")
    begun = read_checkpoint(options.checkpoint)["progress"]["step"]
    names = ("updates", "mix", "batch", "rate", "exact", "dropout", "weight_decay")
    extra = {
        "begun": begun,
        "teacher": [*map(str, options.teacher)],
        **{name: getattr(options, name) for name in names},
    }
    kept = read_checkpoint(own)["extra"] if own.exists() else {}
    run = Run(options, own if {name: kept.get(name) for name in extra} == extra else options.checkpoint)
    last = begun + options.updates
    if run.progress.step < last:  # else the model's file is all that is missing
        exact_from = begun + EXACT_FROM * options.updates
        run.go(last - run.progress.step, lambda step: (last - step) / options.updates, own, exact_from, extra)
    model = with_all_tokens(run.model, run.classes)
    save_course_model(model, options.model)
    own.unlink(missing_ok=True)
    describe(model, run.held_out, run.device)


def describe(model: GPTModel, held_out: Mapping[str, np.ndarray], device: torch.device) -> None:
    """Print the perplexity of the first windows of each held-out text, and two samples."""
    perplexities(model, held_out, device, EVALUATED)
    print_samples(model.cpu(), "Once upon a time", 2, 0.7, SAMPLE_TOKENS)


@torch.no_grad()
def perplexities(
    model: GPTModel, texts: Mapping[str, np.ndarray], device: torch.device, limit: int | None = None
) -> dict[str, float]:
    """Print and return the perplexity of each text, in float32, over its windows of the context's length.

    The windows do not overlap; only the first `limit` are read, if given. A text shorter than one is left out.
    """
    context, found = len(model.pos_emb.weight), {}
    fuse(model).to(device).eval()
    for name, text in texts.items():
        windows = windows_in_order(text, context)[:limit].to(device)
        losses = [F.cross_entropy(model(ids[None, :-1])[0], ids[1:]).item() for ids in windows]
        if losses:
            found[name] = math.exp(sum(losses) / len(losses))
            print(f"perplexity {found[name]:8.2f}  {name}", flush=True)
    return found


def print_samples(model: GPTModel, prompt: str, count: int, temperature: float, tokens: int) -> None:
    """Print continuations of a prompt, with the seeds 1 to `count`."""
    tokenizer, context = get_tokenizer("gpt2"), len(model.pos_emb.weight)
    ids, options = torch.tensor([tokenizer.encode(prompt)]), {"temperature": temperature, "eos_id": END_OF_TEXT}
    for seed in range(1, count + 1):
        text = tokenizer.decode(generate(model, ids, tokens, context, seed=seed, **options)[0].tolist())
        print(f"sample {seed}: {text}\n", flush=True)


def assignments(text: str, number: type = float) -> dict[str, float]:
    """The dictionary of an option such as "stories=45,dialogue=20"."""
    try:
        found = {name: number(value) for name, value in (part.split("=") for part in text.split(","))}
    except ValueError:
        found = {"": 0}
    if min(found.values()) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=number,name=number, numbers above 0")
    return found


def checked_number(text: str, expected: str, holds: Callable[[float], bool]) -> float:
    """A number for which a condition holds, which `expected` says in words."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not holds(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number {expected}")
    return value


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    above_0 = partial(checked_number, expected="above 0", holds=lambda value: 0 < value < math.inf)
    from_0 = partial(checked_number, expected="from 0 on", holds=lambda value: 0 <= value < math.inf)
    share = partial(checked_number, expected="from 0 to below 1", holds=lambda value: 0 <= value < 1)
    add = {name: commands.add_parser(name).add_argument for name in ("prepare", "train", "decay", "evaluate", "sample")}
    for name in ("corpus", "modern", "tokens"):
        add["prepare"](name, type=Path)
    for command in ("train", "decay"):
        add[command]("tokens", type=Path, help="the file that `prepare` wrote")
        add[command]("checkpoint", type=Path, help="the file that `train` keeps the run in")
        add[command]("--updates", type=at_least_one, required=True)
        add[command]("--mix", type=assignments, required=True, help="weights of the sources: stories=45,dialogue=20")
        add[command]("--batch", type=at_least_one, default=12, help="windows per update (default 12)")
        add[command]("--rate", type=above_0, default=1.0, help="factor for both learning rates")
        add[command]("--dropout", type=share, default=0.0, help="of embeddings and of what layers add (default 0)")
        add[command]("--weight-decay", type=from_0, help="of the matrices (default: what it was, at first 0.01)")
        add[command]("--exact", action="store_true", help="never estimate the softmax")
        add[command](
            "--teacher", type=Path, action="append", default=[], help="a course model to learn from; repeatable"
        )
        add[command]("--save-every", type=at_least_one, default=200, metavar="UPDATES")
        add[command]("--eval-every", type=at_least_one, default=500, metavar="UPDATES")
        add[command]("--device", help="cpu, cuda or mps")
        add[command]("--keep-freed-memory", action="store_true", help="faster on Linux; see helpers.speed.memory")
    add["decay"]("model", type=Path, help="the file to write the model to")
    add["train"]("--start", type=Path, help="a course model to begin with, where there is no checkpoint yet")
    add["train"]("--config", type=partial(assignments, number=int), default={}, help="other sizes: n_layers=8")
    add["train"]("--seed", type=int, default=123)
    add["evaluate"]("tokens", type=Path, help="the file that `prepare` wrote")
    add["evaluate"]("model", type=Path, help="the file that `decay` wrote")
    add["evaluate"]("--windows", type=at_least_one, help="only the first windows of each text")
    add["evaluate"]("--device", help="cpu, cuda or mps")
    add["sample"]("model", type=Path, help="the file that `decay` wrote")
    add["sample"]("--prompt", default="Once upon a time")
    add["sample"]("--count", type=at_least_one, default=20)
    add["sample"]("--temperature", type=float, default=0.7)
    add["sample"]("--tokens", type=at_least_one, default=SAMPLE_TOKENS, help="length of a sample")
    return parser.parse_args(arguments)


def run_command(options: argparse.Namespace) -> None:
    """Run the command that the options name."""
    if options.command == "prepare":
        prepare(options.corpus, options.modern, options.tokens)
    elif options.command == "train":
        train(options)
    elif options.command == "decay":
        decay(options)
    elif options.command == "evaluate":
        model, _ = load_course_model(options.model)
        perplexities(model, read_tokens(options.tokens)[1], get_device(options.device), options.windows)
    else:
        model, _ = load_course_model(options.model)
        print_samples(model, options.prompt, options.count, options.temperature, options.tokens)


def main(arguments: list[str] | None = None) -> None:
    """Run one of the commands; what can go wrong becomes a sentence and a non-zero status."""
    run(run_command, read_options(arguments))


if __name__ == "__main__":
    main()
