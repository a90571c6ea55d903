"""How long something takes, and how much memory: for the notebooks that measure."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def _wait(device: torch.device) -> None:
    if device.type == "cuda":  # a GPU goes on working after the call has returned
        torch.cuda.synchronize(device)


def best_seconds(run: Callable[[], object], repeats: int = 3, device: torch.device | str = "cpu") -> float:
    """The shortest of `repeats` runs, after one that does not count. On a GPU, until its work is done.

    Whatever else the machine is doing can only make a run longer, so that the shortest one says most.
    """
    device, seconds = torch.device(device), []
    for _ in range(1 + repeats):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def peak_bytes(run: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """The most memory that PyTorch's tensors took at one time during `run()`, beyond what they took before, in bytes.

    On a CPU, from the record of PyTorch's profiler: a run takes longer than without.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with _quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        record.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = [(event["ts"], event["args"]) for event in events if event.get("name") == "[memory]"]
    blocks: dict[int, int] = {}  # bytes by address; memory that was there before may be freed too, and does not count
    now = most = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        if change["Bytes"] > 0:
            blocks[change["Addr"]] = change["Bytes"]
            now += change["Bytes"]
        else:
            now -= blocks.pop(change["Addr"], 0)
        most = max(most, now)
    return most


@contextmanager
def _quiet() -> Iterator[None]:
    """The profiler writes lines to the process's error output, past Python, which a notebook would show."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
