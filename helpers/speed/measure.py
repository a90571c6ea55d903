"""How long something takes, and how much memory: for the notebooks that measure."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def _wait(device: torch.device) -> None:
    if device.type == "cuda":  # a GPU goes on working after the call has returned
        torch.cuda.synchronize(device)


def best_seconds(
    run: Callable[[], object], repeats: int = 3, device: torch.device | str = "cpu"
) -> float:
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
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        record.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]"]
    now = most = 0
    for event in sorted(changes, key=lambda event: event["ts"]):
        now += event["args"]["Bytes"]  # negative where memory is given back
        most = max(most, now)
    return most
