"""What tests/test_distributed.py runs as two processes: `helpers.apps.launch 2 tests/distributed_worker.py FOLDER`.

Starting a process costs seconds, so one start does everything; the first process writes the results to FOLDER. With
`dying` and the words of a command line, it is the program of several processes, of which the second one is killed.
"""

import contextlib
import gc
import io
import os
import shutil
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from helpers import GPTModel, calc_loss_batch
from helpers.apps import train_distributed
from helpers.apps.corpus import TokenWindows
from helpers.apps.distributed import gradient_exchange, join_processes, make_loaders, prepare_model
from helpers.apps.train_distributed import read_options, token_ids, train

SMALL = "--set emb_dim=32 n_heads=2 n_layers=2 context_length=16 drop_rate={} --batch-size 8 --epochs 1"
VOCABULARY = 97  # a small one makes tiny models fast


class Stop(Exception):
    pass


def small_ids(_=None, count=8 * 16 * 24 + 1):
    """Some of the story, its ids folded into a small vocabulary."""
    return token_ids(read_options([])).copy()[:count] % VOCABULARY


def options(*words, drop=0.0):
    """Those of a tiny run: 22 updates of 8 windows, 2 batches held out."""
    chosen = read_options([*SMALL.format(drop).split(), *map(str, words)])
    chosen.set["vocab_size"] = VOCABULARY
    return chosen


def tiny_train(device, *words, drop=0.0):
    train_distributed.token_ids = small_ids
    return train(options(*words, drop=drop), device)


def tiny_gpt():
    torch.manual_seed(5)
    sizes = {"context_length": 16, "emb_dim": 32, "n_heads": 2, "n_layers": 2, "drop_rate": 0.0, "qkv_bias": False}
    return GPTModel({"vocab_size": VOCABULARY, **sizes})


def batches_of(accumulate, epochs=(0,)):
    """The windows that all processes see, update by update: lists of input rows."""
    train_loader, held_out = make_loaders(TokenWindows(small_ids(), 16), 8, accumulate, seed=123)
    seen = []
    for epoch in epochs:
        train_loader.sampler.set_epoch(epoch)
        mine = [inputs.tolist() for inputs, _ in train_loader]
        everybody = [None] * dist.get_world_size()
        dist.all_gather_object(everybody, mine)
        for start in range(0, len(mine), accumulate):
            seen.append(sorted(row for rows in everybody for part in rows[start : start + accumulate] for row in part))
    return seen, len(held_out)


def gradients(device, fsdp, accumulate):
    """The gradients of the first update, and how often they were exchanged in each of its parts."""
    model = prepare_model(tiny_gpt(), device, fsdp)
    train_loader, _ = make_loaders(TokenWindows(small_ids(), 16), 8, accumulate, seed=123)
    exchanges, calls = [], [0]

    def counted(state, bucket):
        calls[0] += 1
        return allreduce_hook(state, bucket)

    if not fsdp:
        model.register_comm_hook(None, counted)
    for part, (inputs, targets) in zip(range(accumulate), train_loader, strict=False):
        with gradient_exchange(model, part == accumulate - 1):
            loss = calc_loss_batch(inputs, targets, model, device) / accumulate
        loss.backward()
        # FSDP keeps gradients that were not exchanged apart from those that were
        exchanges.append(calls[0] if not fsdp else int(all(p.grad is not None for p in model.parameters())))
    named = {name.removeprefix("module."): parameter.grad for name, parameter in model.named_parameters()}
    return {name: grad.full_tensor() if fsdp else grad for name, grad in named.items()}, exchanges


@contextlib.contextmanager
def seeds_of_all():
    """The seeds that each process gives to torch meanwhile."""
    everybody, mine, seed = [None] * dist.get_world_size(), [], torch.manual_seed
    torch.manual_seed = lambda value: (mine.append(value), seed(value))[1]
    yield everybody
    torch.manual_seed = seed
    dist.all_gather_object(everybody, mine)


def stop_after(updates, device, path, *words, drop):
    """A run that ends after its first checkpoint."""
    save = train_distributed.save_gathered

    def save_and_stop(*args, **extra):
        save(*args, **extra)
        dist.barrier()
        raise Stop

    train_distributed.save_gathered = save_and_stop
    try:
        tiny_train(device, "--checkpoint", path, "--save-every", updates, *words, drop=drop)
    except Stop:
        pass
    finally:
        train_distributed.save_gathered = save


def compute(folder, device, results):
    fsdp = ("--fsdp", "--accumulate", 2)
    for accumulate in (1, 2):
        results[f"windows {accumulate}"] = batches_of(accumulate, epochs=(0, 1))
        results[f"ddp gradients {accumulate}"] = gradients(device, False, accumulate)
    results["fsdp gradients 2"] = gradients(device, True, 2)
    results["ddp"] = tiny_train(device, "--checkpoint", folder / "ddp.pt")
    results["ddp accumulating"] = tiny_train(device, "--accumulate", 2)
    results["fsdp"] = tiny_train(device, "--checkpoint", folder / "fsdp.pt", *fsdp)
    with seeds_of_all() as results["seeds"]:
        results["ddp dropping"] = tiny_train(device, drop=0.2)
    stop_after(7, device, folder / "dropping.pt", drop=0.2)
    results["ddp dropping resumed"] = tiny_train(device, "--checkpoint", folder / "dropping.pt", drop=0.2)
    stop_after(7, device, folder / "half.pt", *fsdp, drop=0.0)
    if dist.get_rank() == 0:
        shutil.copy(folder / "half.pt", folder / "half2.pt")
    dist.barrier()
    results["fsdp resumed"] = tiny_train(device, "--checkpoint", folder / "half.pt", *fsdp)
    results["fsdp resumed by ddp"] = tiny_train(device, "--checkpoint", folder / "half2.pt", "--accumulate", 2)
    stop_after(18, device, folder / "half3.pt", "--accumulate", 2, drop=0.0)
    results["ddp resumed by fsdp"] = tiny_train(device, "--checkpoint", folder / "half3.pt", *fsdp)
    # The run that the test kills, here uninterrupted and with the real vocabulary.
    train_distributed.token_ids = token_ids
    words = (folder / "killed_options.txt").read_text(encoding="utf-8").split("\n")
    results["not killed"] = train(read_options(words), device)


def main(folder):
    device, results, said = join_processes(), {}, io.StringIO()
    results["said"] = [None] * dist.get_world_size()
    with contextlib.redirect_stdout(said):
        compute(folder, device, results)
    dist.all_gather_object(results["said"], said.getvalue())
    if dist.get_rank() == 0:
        torch.save(results, folder / "results.pt")
    dist.barrier()
    gc.collect()
    dist.destroy_process_group()


def die(words):
    """Run the program, and kill the second process once the checkpoint after update 4 is written."""
    save = train_distributed.save_gathered

    def save_and_die(path, model, cfg, optimizer, progress, **extra):
        save(path, model, cfg, optimizer, progress, **extra)
        dist.barrier()
        if progress.step == 4 and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    train_distributed.save_gathered = save_and_die
    train_distributed.main(words)


if __name__ == "__main__":
    die(sys.argv[2:]) if sys.argv[1] == "dying" else main(Path(sys.argv[1]))
