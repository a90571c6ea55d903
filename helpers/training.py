"""Training a language model: losses, one loop for every kind of training, schedules (chapter 5, appendix D).

`training_steps` is the core. It yields after every update, and whoever iterates decides what to do in between:
evaluate, print, save, stop. The loops with the book's names are short functions around it.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from .files import progress_bar
from .generation import context_length, generate_text_simple, vocabulary_size
from .guards import adapt, evaluation_mode, guard, printable
from .speed.loss import speed_up
from .stop_button import interruptible
from .tokenizers import takes_tokenizer

LossFunction = Callable[[torch.Tensor, torch.Tensor, torch.nn.Module, torch.device], torch.Tensor]


@takes_tokenizer
def text_to_token_ids(text: str, tokenizer: Any) -> torch.Tensor:
    """Token ids of one text as a batch of one: int64 (1, T) (section 5.1)."""
    return torch.tensor([tokenizer.encode(text, allowed_special={"<|endoftext|>"})])


def _one_row(token_ids: torch.Tensor | Sequence[int]) -> torch.Tensor:
    ids = torch.as_tensor(token_ids)
    if ids.dim() > 1 and (ids.dim() > 2 or len(ids) != 1):
        raise ValueError(f"token_ids has the shape {tuple(ids.shape)}: one text, (T,) or (1, T), is expected")
    return ids.reshape(1, -1)


@adapt("token_ids", _one_row)
@takes_tokenizer
def token_ids_to_text(token_ids: torch.Tensor, tokenizer: Any) -> str:
    """The text of a batch of one, int64 (1, T) (section 5.1); a row (T,) or a list of ids will do.

    Raises ValueError for several rows.
    """
    return tokenizer.decode(token_ids.squeeze(0).tolist())


def _giving_logits(model: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    def checked(in_idx: torch.Tensor) -> torch.Tensor:
        logits = model(in_idx)
        if not isinstance(logits, torch.Tensor):
            raise ValueError(
                f"model(ids) is a {type(logits).__name__}: a tensor of logits (B, T, vocab_size) is expected; with a "
                "loss of its own, give training_steps a loss_function that returns it"
            )
        return logits

    return checked


@adapt("model", _giving_logits)
def calc_loss_batch(
    input_batch: torch.Tensor, target_batch: torch.Tensor, model: torch.nn.Module, device: torch.device
) -> torch.Tensor:
    """Mean cross-entropy of a batch, both int64 (B, T), as a scalar in nats per token (section 5.1).

    Raises ValueError for a model that returns anything but a tensor.
    """
    logits = model(input_batch.to(device))  # (B, T, vocab_size)
    return F.cross_entropy(logits.flatten(0, 1), target_batch.to(device).flatten())


def calc_loss_loader(
    data_loader: DataLoader,
    model: torch.nn.Module,
    device: torch.device,
    num_batches: int | None = None,
    loss_function: LossFunction = calc_loss_batch,
) -> float:
    """Mean of the batches' losses over the first `num_batches` (all, if None) (section 5.1).

    Raises ValueError if the loader has no batch, whose loss would be NaN.
    """
    count = len(data_loader) if num_batches is None else min(num_batches, len(data_loader))
    if count < 1:
        raise ValueError(
            f"data_loader has {len(data_loader)} batches and num_batches={num_batches}: nothing to average"
        )
    total = 0.0
    for _, (input_batch, target_batch) in zip(range(count), data_loader, strict=False):
        total += loss_function(input_batch, target_batch, model, device).item()
    return total / count


def evaluate_model(
    model: torch.nn.Module,
    train_loader: DataLoader,
    val_loader: DataLoader,
    device: torch.device,
    eval_iter: int | None,
    loss_function: LossFunction = calc_loss_batch,
) -> tuple[float, float]:
    """Training and validation loss, each over `eval_iter` batches, without dropout (section 5.2)."""
    with evaluation_mode(model), torch.no_grad():
        train_loss = calc_loss_loader(train_loader, model, device, eval_iter, loss_function)
        val_loss = calc_loss_loader(val_loader, model, device, eval_iter, loss_function)
    return train_loss, val_loss


class WithContext(torch.nn.Module):
    """A model of any kind as the notebooks read a `GPTModel`: `pos_emb.weight` has a row for each position.

    Calling it gives the model's logits. Raises ValueError where `pos_emb` is asked of a model that does not say its
    context length.
    """

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, in_idx: torch.Tensor) -> torch.Tensor:
        return self.model(in_idx)

    @property
    def pos_emb(self) -> SimpleNamespace:
        length = context_length(self.model)
        if length is None:
            raise ValueError("model does not say how many tokens it reads at once: set model.context_length to that")
        return SimpleNamespace(weight=torch.empty(length, 0))


@adapt("model", WithContext)
@printable
def generate_and_print_sample(model: torch.nn.Module, tokenizer: Any, device: torch.device, start_context: str) -> None:
    """Print a greedy continuation of `start_context` by 50 tokens, on one line (section 5.2)."""
    encoded = text_to_token_ids(start_context, tokenizer).to(device)
    with evaluation_mode(model):
        ids = generate_text_simple(model, encoded, max_new_tokens=50, context_size=model.pos_emb.weight.shape[0])
    print(token_ids_to_text(ids, tokenizer).replace("\n", " "))


@dataclass
class Progress:
    """Where a run is: epochs and batches begun, updates made, tokens and rows seen, and how to go on from here.

    `random_epoch` is torch's random state from before the epoch's batches were drawn, and `loader_epoch` those of the
    loader's own generators, so that a resumed run can draw the same batches again. After the last update of an epoch,
    `loader_epoch` is what the next epoch begins with. All entries are those of the last
    update: batches that were computed after it, for an update that was interrupted, are not counted.
    """

    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0  # updates made
    tokens_seen: int = 0
    loss: float = math.nan  # of the last update, a mean over its batches
    random_epoch: torch.Tensor | None = None
    loader_epoch: list[torch.Tensor] = field(default_factory=list)
    batches_per_epoch: int | None = None
    rows_seen: int = 0  # texts, of whatever length

    @property
    def epoch_of_update(self) -> int:
        """The epoch, counted from 1, that the last update belongs to."""
        return self.epoch + (self.batch > 0)  # after the last update of an epoch, `batch` is 0 again


def training_steps(
    model: torch.nn.Module,
    train_loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    num_epochs: int,
    loss_function: LossFunction = calc_loss_batch,
    before_update: Callable[[int], None] | None = None,
    progress: Progress | None = None,
    accumulate: int = 1,
    fast: bool = False,
) -> Iterator[Progress]:
    """Train, yielding the same `Progress` after each update (section 5.2).

    `before_update(step)` is called when gradients are ready: the place to clip them or to set the learning rate.
    With `accumulate`, gradients of that many batches are averaged into one update. A `progress` from a checkpoint
    goes on in the middle of its epoch, with the batches that were still to come.

    `fast` makes the model use fused kernels, from here on, and computes the loss in bfloat16 where the processor or
    GPU has it (see `helpers.speed`); numbers then differ in the third digit, and dropout draws other masks.

    A bar shows loss and tokens per second (TQDM_DISABLE=1 hides it). Raises ValueError, before the first update, for
    an empty loader, numbers out of range, an optimizer that has none of the model's trainable parameters, a `progress`
    that does not fit the loader, and a loss that is no tensor of one number; FloatingPointError as soon as a loss is
    not finite.
    """
    progress = progress or Progress()
    _check_steps(model, train_loader, optimizer, num_epochs, progress, accumulate)
    if fast:
        loss_function = speed_up(model, optimizer, device, loss_function, chunked=loss_function is calc_loss_batch)
    progress.batches_per_epoch = len(train_loader)
    return _steps(
        model, train_loader, optimizer, device, num_epochs, loss_function, before_update, progress, accumulate
    )


def _check_steps(model, train_loader, optimizer, num_epochs, progress: Progress, accumulate: int) -> None:
    if not hasattr(accumulate, "__index__") or not hasattr(num_epochs, "__index__"):
        raise ValueError(f"accumulate={accumulate!r} and num_epochs={num_epochs!r} must be whole numbers")
    if accumulate < 1 or num_epochs < 0:
        raise ValueError(f"accumulate={accumulate} must be at least 1 and num_epochs={num_epochs} at least 0")
    if len(train_loader) < accumulate:
        raise ValueError(f"train_loader has {len(train_loader)} batches, fewer than one update needs ({accumulate})")
    trainable = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trainable:
        raise ValueError("model has no parameter that requires a gradient: all of it is frozen, nothing can be trained")
    optimized = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [name for key, name in trainable.items() if key not in optimized]
    if len(missing) == len(trainable):
        raise ValueError(
            "optimizer has none of the model's trainable parameters: make it from model.parameters() of this model, "
            "after layers were added or replaced"
        )
    if missing:
        warnings.warn(
            f"{len(missing)} trainable parameters are not in the optimizer and stay as they are, {missing[0]} first: "
            "freeze them, or make the optimizer after layers were added or replaced",
            stacklevel=3,
        )
    differs = progress.batches_per_epoch not in (None, len(train_loader))
    if progress.batch and (differs or progress.batch >= len(train_loader)):
        was = f" of {progress.batches_per_epoch}" if progress.batches_per_epoch else ""
        raise ValueError(
            f"progress stands after batch {progress.batch}{was} of its epoch, and train_loader has {len(train_loader)} "
            "batches: go on with the same data and batch size, or begin the epoch again with progress.batch = 0"
        )
    if progress.batch and progress.random_epoch is None:
        raise ValueError(
            f"progress stands after batch {progress.batch} of its epoch, but has no random_epoch to draw the rest by: "
            "begin the epoch again with progress.batch = 0"
        )


def _steps(
    model: torch.nn.Module,
    train_loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    num_epochs: int,
    loss_function: LossFunction,
    before_update: Callable[[int], None] | None,
    progress: Progress,
    accumulate: int,
) -> Iterator[Progress]:
    """The updates of `training_steps`."""
    begin, tokens_before = time.perf_counter(), progress.tokens_seen
    generators = _generators(train_loader)
    with progress_bar(total=num_epochs * len(train_loader), leave=False, unit="batch") as bar:
        bar.update(progress.epoch * len(train_loader) + progress.batch)
        while progress.epoch < num_epochs:
            batches = _batches_left(train_loader, progress, generators)
            optimizer.zero_grad()
            losses, tokens, rows = [], 0, 0  # of the batches that will make one update
            for input_batch, target_batch in batches:
                model.train()
                loss = loss_function(input_batch, target_batch, model, device)
                _check_loss(loss)
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"the loss became {loss.item()} after {progress.step} updates")
                # The last update of an epoch may be left with fewer batches to average over.
                together = min(accumulate, len(train_loader) - progress.batch)
                (loss / together).backward()
                losses.append(loss.item())
                tokens, rows = tokens + input_batch.numel(), rows + len(input_batch)
                bar.update()
                rate = (progress.tokens_seen + tokens - tokens_before) / (time.perf_counter() - begin)
                bar.set_postfix_str(f"loss {losses[-1]:.3f}, {rate:,.0f} tokens/s", refresh=False)
                if len(losses) < together:
                    continue
                if before_update is not None:
                    before_update(progress.step)
                optimizer.step()
                optimizer.zero_grad()
                progress.step += 1
                progress.batch += together
                progress.tokens_seen += tokens
                progress.rows_seen += rows
                progress.loss = sum(losses) / together
                losses, tokens, rows = [], 0, 0
                if progress.batch == len(train_loader):
                    next(batches, None)  # some samplers draw once more at their end
                now = [generator.get_state() for generator in generators]
                if progress.batch == len(train_loader):
                    progress.epoch, progress.batch = progress.epoch + 1, 0
                    progress.random_epoch, progress.loader_epoch = None, now
                yield progress
                _set_states(generators, now)  # an evaluation may have drawn from the same loader


def _check_loss(loss: Any) -> None:
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise ValueError(f"loss_function returned {given}: a tensor of one number, the mean, is expected")


def _batches_left(train_loader: DataLoader, progress: Progress, generators: list[torch.Generator]) -> Iterator[Any]:
    """The batches of this epoch that are not done yet, in the order that the epoch began with."""
    _set_states(generators, progress.loader_epoch)  # none in a run that begins
    if progress.batch == 0:
        progress.random_epoch = torch.get_rng_state()
        progress.loader_epoch = [generator.get_state() for generator in generators]
        return iter(train_loader)
    now = torch.get_rng_state()
    torch.set_rng_state(progress.random_epoch)
    batches = iter(train_loader)
    for _ in range(progress.batch):
        next(batches)
    torch.set_rng_state(now)
    return batches


def _set_states(generators: list[torch.Generator], states: list[torch.Tensor]) -> None:
    for generator, state in zip(generators, states, strict=False):
        generator.set_state(state)


def _generators(train_loader: DataLoader) -> list[torch.Generator]:
    """The random generators of a loader's own, each once: those of the loader and of its samplers."""
    sampler = getattr(train_loader, "sampler", None)
    owners = (train_loader, sampler, getattr(getattr(train_loader, "batch_sampler", None), "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(generator): generator for generator in found if generator is not None}.values())


def evaluated_steps(
    model: torch.nn.Module,
    train_loader: DataLoader,
    val_loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    num_epochs: int,
    eval_freq: int,
    eval_iter: int | None,
    loss_function: LossFunction = calc_loss_batch,
    name: str = "Step",
    **options: Any,
) -> Iterator[tuple[Progress, tuple[float, float] | None]]:
    """`training_steps` with an evaluation, printed on a line, after the first update and every `eval_freq` updates.

    Yields after each update its progress and, where the model was evaluated, training and validation loss, else None.
    `name` is what the printed line calls an update, and `options` go to `training_steps`. Raises ValueError, before
    the first update, for an `eval_freq` or `eval_iter` below 1 and for an empty `val_loader`, and as `training_steps`.
    """
    if eval_freq < 1:
        raise ValueError(f"eval_freq={eval_freq} must be at least 1 update")
    if eval_iter is not None and eval_iter < 1:
        raise ValueError(f"eval_iter={eval_iter} must be at least 1 batch, or None for all")
    if len(val_loader) < 1:
        raise ValueError("val_loader has 0 batches: there is nothing to evaluate on")
    for progress in training_steps(model, train_loader, optimizer, device, num_epochs, loss_function, **options):
        losses, update = None, progress.step - 1  # the first update is number 0
        if update % eval_freq == 0:
            losses = evaluate_model(model, train_loader, val_loader, device, eval_iter, loss_function)
            place = f"Ep {progress.epoch_of_update} ({name} {update:06d})"
            print(f"{place}: Train loss {losses[0]:.3f}, Val loss {losses[1]:.3f}")
        yield progress, losses


def _check_sample(model: torch.nn.Module, start_context: str, tokenizer: Any) -> None:
    """Find out before the first update, not after an epoch, that no sample can be printed."""
    if not isinstance(start_context, str):
        raise ValueError(f"start_context is a {type(start_context).__name__}: a string is expected")
    ids, words = text_to_token_ids(start_context, tokenizer), vocabulary_size(model)
    token_ids_to_text(ids, tokenizer)
    _ = WithContext(model).pos_emb  # an error for a model that does not say its context length
    if ids.numel() == 0:
        raise ValueError(f"start_context={start_context!r} has no token to continue from")
    if words is not None and ids.max() >= words:
        raise ValueError(f"start_context has the token id {ids.max()}; the model's vocabulary has 0 to {words - 1}")


@guard(_check_sample)
def train_model_simple(
    model: torch.nn.Module,
    train_loader: DataLoader,
    val_loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    num_epochs: int,
    eval_freq: int,
    eval_iter: int | None,
    start_context: str,
    tokenizer: Any,
    **options: Any,
) -> tuple[list[float], list[float], list[int]]:
    """Train for some epochs, evaluating every `eval_freq` updates and printing a sample after each epoch (section 5.2).

    `options` go to `training_steps`, such as fast=True.

    Returns training losses, validation losses, and tokens seen, one entry per evaluation. Interrupting (Ctrl-C, the
    stop button) ends the training and returns the results so far; the model keeps what it has learned.
    """
    train_losses, val_losses, track_tokens_seen = [], [], []
    steps = evaluated_steps(
        model, train_loader, val_loader, optimizer, device, num_epochs, eval_freq, eval_iter, **options
    )
    with interruptible():
        for progress, losses in steps:
            if losses is not None:
                train_losses.append(losses[0])
                val_losses.append(losses[1])
                track_tokens_seen.append(progress.tokens_seen)
            if progress.batch == 0:  # an epoch has ended
                generate_and_print_sample(model, tokenizer, device, start_context)
    return train_losses, val_losses, track_tokens_seen


def learning_rate_at(
    step: int, total_steps: int, warmup_steps: int, peak_lr: float, initial_lr: float, min_lr: float
) -> float:
    """The learning rate of update number `step`, counted from 0 (sections D.1 and D.2).

    Linear from `initial_lr` over `warmup_steps` updates to `peak_lr`, then half a cosine down to `min_lr`.
    """
    if step < warmup_steps:
        return initial_lr + step * (peak_lr - initial_lr) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return min_lr + (peak_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def find_highest_gradient(model: torch.nn.Module) -> float | None:
    """The largest entry of any gradient in the model; None before the first backward pass (section D.3)."""
    largest = [parameter.grad.max() for parameter in model.parameters() if parameter.grad is not None]
    return torch.stack(largest).max().item() if largest else None  # NaN if any is NaN


def _check_schedule(optimizer: torch.optim.Optimizer, warmup_steps: int, options: dict[str, Any]) -> None:
    if not hasattr(warmup_steps, "__float__") or not warmup_steps >= 0:
        raise ValueError(f"warmup_steps={warmup_steps!r} must be a number of updates, at least 0")
    own = sorted({"before_update", "name"} & options.keys())
    if own:
        raise ValueError(f"{own[0]} is set by train_model itself; evaluated_steps takes one of yours")
    if not optimizer.param_groups[0]["lr"] > 0:
        raise ValueError(
            f"optimizer has the learning rate {optimizer.param_groups[0]['lr']} in its first group: the peak of the "
            "schedule must be positive"
        )


@guard(_check_schedule)
@guard(_check_sample)
def train_model(
    model: torch.nn.Module,
    train_loader: DataLoader,
    val_loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    n_epochs: int,
    eval_freq: int,
    eval_iter: int | None,
    start_context: str,
    tokenizer: Any,
    warmup_steps: int,
    initial_lr: float = 3e-05,
    min_lr: float = 1e-6,
    **options: Any,
) -> tuple[list[float], list[float], list[int], list[float]]:
    """`train_model_simple` with warm-up, cosine decay and clipping of gradients to norm 1 (section D.4).

    The optimizer's own learning rate is the peak; with several parameter groups, each group keeps its ratio to the
    first one, whose rates are returned. Clipping begins after the warm-up. Returns training losses,
    validation losses and tokens seen, one per evaluation, and the learning rate of every update.
    """
    train_losses, val_losses, track_tokens_seen, track_lrs = [], [], [], []
    peaks = [group["lr"] for group in optimizer.param_groups]
    peak_lr = peaks[0]
    total_steps = math.ceil(len(train_loader) / options.get("accumulate", 1)) * n_epochs

    def before_update(step: int) -> None:
        lr = learning_rate_at(step, total_steps, warmup_steps, peak_lr, initial_lr, min_lr)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = lr * (peak / peak_lr)
        track_lrs.append(lr)
        if step >= warmup_steps:
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)

    options |= {"before_update": before_update, "name": "Iter"}
    steps = evaluated_steps(
        model, train_loader, val_loader, optimizer, device, n_epochs, eval_freq, eval_iter, **options
    )
    try:
        with interruptible():
            for progress, losses in steps:
                if losses is not None:
                    train_losses.append(losses[0])
                    val_losses.append(losses[1])
                    track_tokens_seen.append(progress.tokens_seen)
                if progress.batch == 0:  # an epoch has ended
                    generate_and_print_sample(model, tokenizer, device, start_context)
    finally:
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak
    return train_losses, val_losses, track_tokens_seen, track_lrs
