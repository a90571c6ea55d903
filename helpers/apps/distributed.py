"""What several processes need to train one model together, on PyTorch's own engine (torch.distributed).

`helpers.apps.launch` or torchrun starts the processes; `helpers.apps.train_distributed` is the program that uses these
pieces. Every function here is called by all processes alike.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Subset
from torch.utils.data.distributed import DistributedSampler

from ..checkpoints import read_checkpoint, write_checkpoint
from ..settings import get_device
from ..training import Progress


def join_processes() -> torch.device:
    """Meet the other processes, whose whereabouts torchrun has put into the environment; returns our device."""
    device, local_rank = get_device(), int(os.environ.get("LOCAL_RANK", 0))
    if device.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            count = f"{torch.cuda.device_count()} (CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')})"
            raise ValueError(f"process {local_rank} of this machine has no GPU: there are {count}")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise ValueError(f"COURSE_DEVICE={device.type!r}: several processes train on cpu or cuda")
    backend = "nccl" if device.type == "cuda" else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:  # started plainly: a group of one
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    return device


def make_loaders(windows: Dataset, batch_size: int, accumulate: int, seed: int) -> tuple[DataLoader, DataLoader]:
    """This process's share of the training windows (shuffled) and of those held out, in batches for one pass each.

    DistributedSampler deals out an order that all processes know: window 0 to process 0, window 1 to process 1, and
    so on. So any number of processes together see the same windows in the same update. Only whole batches are used.

    `batch_size` counts the windows of one update, over all processes and over `accumulate` parts. Raises ValueError if
    it cannot be divided so, or if there are fewer than two batches.
    """
    processes, batches = dist.get_world_size(), len(windows) // batch_size
    if batch_size % (processes * accumulate):
        what = f"processes={processes} * accumulate={accumulate}"
        raise ValueError(f"batch_size={batch_size} cannot be divided by {what}")
    if batches < 2:
        raise ValueError(
            f"the text gives {len(windows)} windows; batch_size={batch_size} needs at least {2 * batch_size}"
        )
    cut = batch_size * (batches - max(1, batches // 10))
    parts = Subset(windows, range(cut)), Subset(windows, range(cut, batches * batch_size))
    at_once = batch_size // (processes * accumulate)
    train, held_out = (
        DataLoader(part, at_once, sampler=DistributedSampler(part, shuffle=shuffle, seed=seed))
        for part, shuffle in zip(parts, (True, False), strict=True)
    )
    return train, held_out


def prepare_model(model: torch.nn.Module, device: torch.device, fsdp: bool) -> torch.nn.Module:
    """The model, prepared to be trained by all processes together."""
    if fsdp:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for block in model.trf_blocks:
            fully_shard(block, mesh=mesh)  # each block is a unit that is brought together when it computes
        return fully_shard(model, mesh=mesh)  # and the rest of the model another
    known = inspect.signature(DistributedDataParallel).parameters  # the attention masks never change
    unsynced = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return DistributedDataParallel(model.to(device), **{unsynced: False})


def gradient_exchange(model: torch.nn.Module, now: bool) -> contextlib.AbstractContextManager:
    """Under this, a forward pass is computed whose backward pass will exchange gradients, or `now` not."""
    if isinstance(model, DistributedDataParallel):  # which decides in the forward pass
        return contextlib.nullcontext() if now else model.no_sync()
    model.set_requires_gradient_sync(now)
    return contextlib.nullcontext()


def mean_of_all(value: float, device: torch.device) -> float:
    """The mean of a number over the processes."""
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.item() / dist.get_world_size()


def save_gathered(
    path: Path | str,
    model: torch.nn.Module,
    config: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    **extra: Any,
) -> None:
    """Bring the state of a shared model together; the first process writes it as a checkpoint of a plain model."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights, optimizer_state = get_state_dict(model, optimizer, options=options)
    if dist.get_rank() == 0:
        random = {"cpu": torch.get_rng_state(), "cuda": []}
        write_checkpoint(path, weights, optimizer_state, progress, random, extra, config)


def load_optimizer(path: Path | str, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Deal the optimizer's state of a gathered checkpoint out to the processes."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    state = read_checkpoint(path)["optimizer"]
    set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=True))
