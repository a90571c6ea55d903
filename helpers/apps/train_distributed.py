"""Train chapter 5's GPT with several processes: on the cores of one machine, on its GPUs, or on several machines.

    python -m helpers.apps.train_distributed                                               one process
    python -m helpers.apps.launch 2 helpers.apps.train_distributed                              two, on this machine
    python -m torch.distributed.run --nproc-per-node 2 -m helpers.apps.train_distributed   the same, by PyTorch alone

**What happens.** Every process holds the whole model and takes its share of each batch; the gradients are averaged
while the backward pass still runs (DistributedDataParallel), so all make the same update. `--batch-size` counts the
windows of one update over all processes: their number changes the speed, not the training, and without dropout the
losses agree to rounding. `--accumulate 4` computes a batch in four parts, one after the other, for less memory; only
the last part exchanges gradients. Each number, 2 processes and `--accumulate 4`, must divide the batch: 2 * 4 = 8.

**Text.** The embedded story, or `--text FOLDER`: its .txt files, tokenized once (see `helpers.apps.corpus`; a large
corpus is best prepared beforehand by `python -m helpers.apps.corpus FOLDER`). The last tenth of the windows is
held out.

**Model.** The one that chapter 5 trains, or `--size 124M` (355M, 774M, 1558M), with `--set emb_dim=256 n_layers=6` to
change entries of the configuration. `--bf16` computes in bfloat16 where the hardware does.

**Checkpoints.** With `--checkpoint run.pt` the state is kept every `--save-every` updates. Starting the same command
again goes on from there; on CPUs, with as many processes, the losses are those of a run that never stopped, bit for
bit. The file is a checkpoint as in chapter 5: `load_checkpoint("run.pt", model)` reads it into a GPTModel, and returns
the losses of all updates among the extras. If one process dies, all end; `torch.distributed.run --max-restarts 3`
starts them again.

**GPUs.** Process 0 takes the first visible GPU, process 1 the second, and they talk through NCCL; on CPUs through gloo.
CUDA_VISIBLE_DEVICES says which GPUs a program sees, and numbers those from 0: with CUDA_VISIBLE_DEVICES=2,3 and
`--nproc-per-node 2` the third and fourth GPU are used and called cuda:0 and cuda:1. COURSE_DEVICE=cpu uses none.

**Models that do not fit.** `--fsdp` gives each process only a part of the weights, gradients and optimizer states; each
block's weights are brought together when it computes (FSDP2). Each process still builds the model once in main
memory. The checkpoint is gathered: the same file, and a run may go on with or without `--fsdp`.

**Several machines.** Run the same command on each, with torchrun's own options; for two machines of 8 GPUs:
`python -m torch.distributed.run --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint FIRST:29500
--rdzv-id any-name -m helpers.apps.train_distributed ...`, FIRST being a name or address of the first machine that
the other can reach. Texts and checkpoint must lie where all machines read them. NCCL_SOCKET_IFNAME and
GLOO_SOCKET_IFNAME name the network card if the wrong one is chosen.

**When it does not start.** "Address already in use": another run has port 29500; add `--master-port 29501`, or use
`helpers.apps.launch`, which finds a free one. On Windows set USE_LIBUV=0 (`helpers.apps.launch` does).
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ..checkpoints import load_checkpoint
from ..files import check_writable, first_line
from ..gpt import GPT_CONFIG_124M, GPTModel, gpt_config
from ..settings import bfloat16_is_native, get_profile
from ..speed.fused import fuse
from ..texts import load_text
from ..tokenizers import get_tokenizer
from ..training import Progress, calc_loss_batch, calc_loss_loader, learning_rate_at, training_steps
from .corpus import TokenWindows, fingerprint, open_corpus
from .distributed import (
    gradient_exchange,
    join_processes,
    load_optimizer,
    make_loaders,
    mean_of_all,
    prepare_model,
    save_gathered,
)

VOCABULARY = GPT_CONFIG_124M["vocab_size"]


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, or a list of its words."""
    profile = get_profile()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--text", type=Path, metavar="FOLDER", help="train on its .txt files (the embedded story)")
    add("--tokens", type=Path, metavar="FILE", help="where their tokens are kept (FOLDER.tokens)")
    add("--size", help="a GPT-2 size: 124M, 355M, 774M or 1558M (chapter 5's small model)")
    add("--set", nargs="+", default=[], metavar="NAME=NUMBER", help="entries of the configuration to change")
    add("--epochs", type=int, default=profile.pretraining_epochs, help="passes over the text (%(default)s)")
    add("--batch-size", type=int, default=4, help="windows of one update, over all processes (%(default)s)")
    add("--accumulate", type=int, default=1, help="parts in which a batch is computed (%(default)s)")
    add("--lr", type=float, default=profile.pretraining_lr, help="highest learning rate (%(default)s)")
    add("--seed", type=int, default=123, help="of first weights, order and dropout (%(default)s)")
    add("--eval-every", type=int, default=profile.pretraining_eval_freq, help="updates between two lines (%(default)s)")
    add("--checkpoint", type=Path, metavar="FILE", help="keep the state here, and go on from it if it is there")
    add("--save-every", type=int, help="updates between two checkpoints (100)")
    add("--bf16", action="store_true", help="compute in bfloat16")
    add("--fsdp", action="store_true", help="share out the weights, for models that do not fit")
    options = parser.parse_args(arguments)
    if options.tokens is not None and options.text is None:
        parser.error("--tokens says where the tokens of --text are kept, and --text is missing")
    if options.save_every is not None and options.checkpoint is None:
        parser.error("--save-every is for --checkpoint, which is missing")
    options.save_every = 100 if options.save_every is None else options.save_every
    for name in ("epochs", "batch_size", "accumulate", "eval_every", "save_every"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    try:
        changes = dict(entry.split("=") for entry in options.set)
        options.set = {name: float(value) if name == "drop_rate" else int(value) for name, value in changes.items()}
    except ValueError:
        parser.error(f"--set {' '.join(options.set)}: give NAME=NUMBER, such as emb_dim=256")
    if options.set.get("vocab_size", VOCABULARY) < VOCABULARY:
        parser.error(f"--set vocab_size={options.set['vocab_size']}: GPT-2's tokens need {VOCABULARY}")
    return options


def token_ids(options: argparse.Namespace) -> np.ndarray:
    """The text as uint16 ids (N,). One process of each machine tokenizes; the others wait and read its file."""
    if options.text is None:
        story = load_text(get_profile().pretraining_text)
        return np.array(get_tokenizer().encode(story, allowed_special={"<|endoftext|>"}), dtype=np.uint16)
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    ids = open_corpus(options.text, options.tokens) if first else None
    dist.barrier()
    return ids if first else open_corpus(options.text, options.tokens)


def resume(
    path: Path | None, model: GPTModel, run: dict[str, Any], device: torch.device
) -> tuple[Progress, list[float]]:
    """Load the weights if the checkpoint is there; returns the progress and the losses so far.

    Raises ValueError for the checkpoint of another run, or if some processes see the file and others do not.
    """
    progress, losses = Progress(), []
    if path is not None and path.is_file():
        progress, extra = load_checkpoint(path, model)
        if "run" not in extra:
            raise ValueError(f"{path} was not written by helpers.apps.train_distributed")
        for name, value in run.items():
            if extra["run"].get(name) != value:
                raise ValueError(f"{path} is of a run with {name}={extra['run'].get(name)}, not {value}")
        losses = extra["losses"]
    if mean_of_all(progress.step, device) != progress.step:
        raise ValueError(f"{path} is not the same for all processes; put it where all machines read it")
    return progress, losses


def train(options: argparse.Namespace, device: torch.device) -> list[float]:
    """The whole run, in each of the processes; returns the loss of every update."""
    rank, processes, accumulate = dist.get_rank(), dist.get_world_size(), options.accumulate
    say = print if rank == 0 else lambda *_, **__: None
    if options.bf16 and not bfloat16_is_native(device):
        raise ValueError(f"--bf16: this {device.type} does not compute in bfloat16 itself; leave it out")
    if options.checkpoint is not None:
        check_writable(options.checkpoint)  # now, not after the training
    cfg = get_profile().pretraining_config if options.size is None else gpt_config(options.size)
    cfg = gpt_config(**{**cfg, **options.set})
    ids = token_ids(options)
    windows = TokenWindows(ids, cfg["context_length"])
    train_loader, held_out_loader = make_loaders(windows, options.batch_size, accumulate, options.seed)
    total = options.epochs * len(train_loader) // accumulate
    run = {name: getattr(options, name) for name in ("epochs", "batch_size", "accumulate", "lr", "seed")}
    run = {**cfg, "text": fingerprint(ids), **run}

    torch.manual_seed(options.seed)  # the same first weights everywhere
    model = fuse(GPTModel(cfg))
    size = sum(parameter.numel() for parameter in model.parameters())
    progress, losses = resume(options.checkpoint, model, run, device)
    model = prepare_model(model, device, options.fsdp)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.1)
    if progress.step:
        load_optimizer(options.checkpoint, model, optimizer)
    parts: list[float] = []  # this process's losses in this update

    def loss_function(inputs: Any, targets: Any, model: Any, device: torch.device) -> torch.Tensor:
        part = len(parts)
        # Each part of a batch has a random state of its own, so that a resumed run drops out the same.
        torch.manual_seed(((options.seed * total + progress.step) * accumulate + part) * processes + rank)
        bf16 = torch.autocast(device.type, torch.bfloat16, enabled=options.bf16)
        with gradient_exchange(model, part == accumulate - 1), bf16:
            loss = calc_loss_batch(inputs, targets, model, device)
        parts.append(loss.item())
        return loss

    def before_update(step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, total, total // 10, options.lr, options.lr / 10, options.lr / 10)
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)

    many = f"{processes} process{'es' * (processes > 1)}"
    say(f"{many} on {device.type}, {size:,} parameters, {total:,} updates", flush=True)
    if progress.step:
        say(f"going on from {options.checkpoint} after update {progress.step}", flush=True)
    begin, first = time.perf_counter(), progress.step
    train_loader.sampler.set_epoch(progress.epoch)  # which gives each epoch an order of its own
    for _ in training_steps(
        model, train_loader, optimizer, device, options.epochs, loss_function, before_update, progress, accumulate
    ):
        step = progress.step
        progress.tokens_seen = step * options.batch_size * windows.length  # by all processes
        losses.append(mean_of_all(math.fsum(parts) / accumulate, device))
        parts.clear()
        train_loader.sampler.set_epoch(progress.epoch)
        if step % options.eval_every == 0 or step == total:
            model.eval()
            with torch.no_grad():
                held_out = calc_loss_loader(held_out_loader, model, device, num_batches=10 * accumulate)
            held_out = mean_of_all(held_out, device)
            rate = (step - first) * options.batch_size * windows.length / (time.perf_counter() - begin)
            say(f"update {step}: loss {losses[-1]:.4f}, held out {held_out:.4f}, {rate:,.0f} tokens/s", flush=True)
        if options.checkpoint and (step % options.save_every == 0 or step == total):
            save_gathered(options.checkpoint, model, cfg, optimizer, progress, run=run, losses=losses)
    return losses


def main(arguments: list[str] | None = None) -> None:
    """Train, and turn what can go wrong into a sentence and a non-zero status."""
    options = read_options(arguments)
    os.environ["TQDM_DISABLE"] = "1"  # the first process prints lines, the others nothing
    rank = int(os.environ.get("RANK", 0))

    def ended(reason: str, detail: str = "") -> str:
        saved = options.checkpoint is not None and options.checkpoint.is_file()
        return reason + (f"; the same command goes on from {options.checkpoint}" if saved else "") + detail

    lost = f"process {rank} ends, because another process of the run has ended"
    if "RANK" in os.environ:  # torchrun ends the others with SIGTERM
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(ended(lost)))
    failure = None
    try:
        train(options, join_processes())
    except (ValueError, OSError, ArithmeticError) as error:
        failure = f"error: {error}"
        if rank:  # the first process is likely to say the same, and then all end
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(3)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        sys.exit(ended(lost, f" ({first_line(error)})"))
    except KeyboardInterrupt:
        sys.exit(ended("interrupted"))
    if dist.is_initialized():
        if not failure:
            dist.barrier()  # nobody leaves while another is still sending
            gc.collect()  # what DDP leaves behind holds on to the group, whose threads must end first
        dist.destroy_process_group()
    if failure:
        sys.exit(failure)


if __name__ == "__main__":
    main()
