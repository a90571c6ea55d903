"""Timing contenders side by side, and tables of what came out.

Every contender is run once before anything counts; then each round runs all of them in turn, so that whatever else
the machine does falls on all alike. Ratios are of the best times, which other work on the machine disturbs least; the
median beside them shows how much it did.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from helpers.settings import bfloat16_is_native


def race(contenders: dict[str, Callable[[], object]], rounds: int = 5, warm_up: bool = True) -> dict[str, list[float]]:
    """Seconds that each contender took in each round."""
    if warm_up:
        for run in contenders.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def best(seconds: Sequence[float]) -> float:
    return min(seconds)


def middle(seconds: Sequence[float]) -> float:
    return statistics.median(seconds)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def rates(seconds: dict[str, list[float]], tokens: int | dict[str, int], peer: str) -> str:
    """A table of tokens per second, best and median, and each contender's ratios to `peer`."""
    count = tokens if isinstance(tokens, dict) else dict.fromkeys(seconds, tokens)
    rows = []
    for name, taken in seconds.items():
        by_best = best(seconds[peer]) / count[peer] / (best(taken) / count[name])
        by_median = middle(seconds[peer]) / count[peer] / (middle(taken) / count[name])
        rate, usual = count[name] / best(taken), count[name] / middle(taken)
        rows.append((name, f"{rate:,.1f}", f"{usual:,.1f}", f"{by_best:.2f}", f"{by_median:.2f}"))
    return table(("", "tokens/s, best", "tokens/s, median", "ratio (best)", "ratio (median)"), rows)


@contextmanager
def process(make_steps: Callable[[], Iterator]) -> Iterator[Callable[[], object]]:
    """A function that runs one step of `make_steps()` in a process of its own, and waits for it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_serve, args=(make_steps, theirs), daemon=True)
    child.start()
    theirs.close()

    def step() -> object:
        ours.send("step")
        return ours.recv()

    yield step
    ours.send("end")
    child.join()


def _serve(make_steps: Callable[[], Iterator], pipe) -> None:
    steps = make_steps()
    while pipe.recv() == "step":
        next(steps)
        pipe.send("done")


def in_subprocess(code: str) -> list[float]:
    """The numbers that some code prints on its last line, run in a fresh Python."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a measurement failed: {done.stderr.strip().splitlines()[-1]}")
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


def machine() -> str:
    """The machine, its versions, and how busy it is, as a Markdown list."""
    versions = []
    for name in ("torch", "transformers", "safetensors", "numpy"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"no {name}")
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
        processor += "".join(f", {flag}" for flag in ("avx2", "avx512_bf16", "amx_bf16") if flag in flags)
    native = "native" if bfloat16_is_native("cpu") else "not native"
    lines = [
        f"- {processor}; {os.cpu_count()} cores, {torch.get_num_threads()} threads; bfloat16 is {native}",
        f"- {platform.system()}, Python {platform.python_version()}, {', '.join(versions)}",
    ]
    if hasattr(os, "getloadavg"):
        lines.append(f"- load of the machine (1, 5, 15 minutes): {' '.join(f'{load:.1f}' for load in os.getloadavg())}")
    return "\n".join(lines)
