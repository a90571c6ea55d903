"""Measuring time and memory: what can be known in advance comes out."""

from __future__ import annotations

import os
import sys
import time

import pytest
import torch

from helpers.speed import measure
from helpers.speed.measure import best_seconds, peak_bytes


def test_the_shortest_run_counts_and_the_first_does_not(monkeypatch):
    lengths = iter([0.0, 0.5, 1.0, 1.25])  # the first run is the shortest
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def run():
        now[0] += next(lengths)

    assert best_seconds(run, repeats=3) == 0.5
    with pytest.raises(StopIteration):
        next(lengths)


def test_seconds():
    assert 0.02 <= best_seconds(lambda: time.sleep(0.02), 1) < 2


def one_after_the_other():
    first = torch.zeros(250_000)
    second = first + 1
    del first
    return second * 2


@pytest.mark.parametrize(
    ("run", "megabytes"),
    [
        (lambda: torch.zeros(250_000), 1),
        (lambda: [torch.zeros(250_000) for _ in range(3)], 3),
        (lambda: [torch.zeros(250_000).sum() for _ in range(3)], 1),
        (one_after_the_other, 2),
        (lambda: torch.zeros(250_000, dtype=torch.float64), 2),
    ],
)
def test_memory(run, megabytes):
    assert peak_bytes(run) == pytest.approx(1e6 * megabytes, rel=0.01)


def test_what_was_there_before_does_not_count():
    before = torch.zeros(1_000_000)
    assert peak_bytes(lambda: before.add_(1)) < 1e5


def test_what_is_freed_of_it_does_not_count_either():
    """Memory that an earlier run took and this one gives back, which the profiler remembers."""
    kept = {}

    def run():
        kept["tensor"] = None
        kept["tensor"] = torch.zeros(250_000)

    for _ in range(3):
        assert peak_bytes(run) == pytest.approx(1e6, rel=0.01)


def test_the_profilers_own_lines_do_not_show(capfd):
    peak_bytes(lambda: torch.zeros(10))
    print("still there", file=sys.stderr)
    assert capfd.readouterr().err == "still there\n"


def test_an_error_leaves_the_error_output_in_place(capfd):
    with pytest.raises(ZeroDivisionError):
        peak_bytes(lambda: 1 / 0)
    os.write(2, b"still there\n")
    assert capfd.readouterr().err == "still there\n"


def test_attention_weights_are_seen_by_the_backward_pass():
    """The table of weights is in the peak of a plain softmax, and kept for the backward pass."""
    q = torch.randn(1, 2, 300, 8, requires_grad=True)
    table = 2 * 300 * 300 * 4

    def run():
        torch.softmax(q @ q.transpose(2, 3), dim=-1).square().mean().backward()

    assert 3 * table < peak_bytes(run) < 6 * table


def test_a_gpu_is_waited_for(monkeypatch):
    """Without a device at hand: the calls to torch.cuda, in their order."""
    calls = []
    for name, result in (("synchronize", None), ("reset_peak_memory_stats", None), ("memory_allocated", 100)):
        monkeypatch.setattr(torch.cuda, name, lambda device, name=name, result=result: calls.append(name) or result)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: calls.append("max_memory_allocated") or 350)
    assert best_seconds(lambda: calls.append("run"), 1, "cuda") >= 0
    assert calls == ["synchronize", "run", "synchronize"] * 2
    calls.clear()
    assert peak_bytes(lambda: calls.append("run"), torch.device("cuda")) == 250
    assert calls == ["reset_peak_memory_stats", "memory_allocated", "run", "max_memory_allocated"]
