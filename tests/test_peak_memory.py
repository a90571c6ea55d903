"""Peak memory in a process of its own: known allocations are found, errors are told, names are as promised."""

import subprocess
import sys

import pytest
import torch

from helpers.course.peak_memory import memory_of

LIMITS = 0.9, 1.3


def two_then_one(count):
    first = torch.ones(count)
    second = first + 1
    del first
    return second


def nothing_kept(count):
    torch.ones(count)


def fails(count):
    raise ValueError(f"no room for {count}")


def uses(count):
    return LENGTH * [count]  # noqa: F821 (from prepare)


def test_peak_and_what_is_kept(monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(2**31 - 1))  # which would keep what was freed
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", str(2**31 - 1))
    size, found = 4 * 25_000_000, memory_of(two_then_one, 25_000_000)
    assert LIMITS[0] < found.peak / (2 * size) < LIMITS[1] and LIMITS[0] < found.kept / size < LIMITS[1], found
    found = memory_of(nothing_kept, 25_000_000)
    assert LIMITS[0] < found.peak / size < LIMITS[1] and found.kept < 0.1 * size, found


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a peak")
def test_what_prepare_took_does_not_count():
    found = memory_of(nothing_kept, 1000, prepare="import torch\ntorch.ones(50_000_000)")
    assert found.peak < 20e6, found


def test_names_and_errors():
    memory_of(uses, "x", prepare="LENGTH = 3")
    with pytest.raises(RuntimeError, match="uses failed in its own process: NameError: name 'LENGTH'"):
        memory_of(uses, "x")
    with pytest.raises(RuntimeError, match="fails failed in its own process: ValueError: no room for 5"):
        memory_of(fails, 5)


OF_THIS_PROCESS = """
import torch
from helpers.course.peak_memory import peak_memory, resident_memory
before = resident_memory()
large = torch.ones(25_000_000)
assert resident_memory() - before > 0.8 * large.nbytes, "resident"
assert peak_memory() >= resident_memory() * 0.99, "peak"
"""


def test_of_this_process():
    """In a fresh one: here, an earlier test may have left freed memory behind, which the tensor would be put into."""
    subprocess.run([sys.executable, "-c", OF_THIS_PROCESS], check=True)
