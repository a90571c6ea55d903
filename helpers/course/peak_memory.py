"""How much memory a piece of code takes at most, measured in a process of its own.

In the process of a notebook it could not be told: what earlier cells allocated and freed is still there to be used.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

_PROGRAM = """
{prepare}
import torch
{source}
from helpers.course.peak_memory import _measured

torch.nn.Linear(8, 8)(torch.ones(1, 8))  # what PyTorch allocates once, at its first product
_measured({name}, {arguments})
"""


class Memory(NamedTuple):
    """By how many bytes a process grew: the most at any time while a function ran (`peak`), and in the end (`kept`)."""

    peak: int
    kept: int


def memory_of(function: Callable[..., Any], *arguments: Any, prepare: str = "") -> Memory:
    """Call `function(*arguments)` in a fresh Python and return by how much that process grew.

    The function is handed over as its source code: it knows the names that the statements in `prepare` define, and
    torch, but none of the caller's. Numbers and strings can be arguments. `kept` is measured while what the function
    returned is still alive. Raises RuntimeError with the last line of what the process said if it failed.
    """
    source = textwrap.dedent(inspect.getsource(function))
    values = ", ".join(map(repr, arguments))
    program = _PROGRAM.format(prepare=prepare, source=source, name=function.__name__, arguments=values)
    # Settings that make the C library keep freed memory would show memory as taken that nothing uses any more.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(f"{function.__name__} failed in its own process: {said}")
    return Memory(*json.loads(done.stdout.splitlines()[-1]))


def _measured(function: Callable[..., Any], *arguments: Any) -> None:
    """Print, as the last line, by how much this process grows while the function runs and by what it returns."""
    with contextlib.suppress(OSError):  # Linux: the peak so far is forgotten
        Path("/proc/self/clear_refs").write_text("5")
    before = resident_memory()
    result = function(*arguments)
    kept, peak = resident_memory() - before, peak_memory() - before
    print(json.dumps([max(peak, kept, 0), max(kept, 0)]))
    del result


def resident_memory() -> int:
    """The bytes of memory that this process has in use now, pages of files that it has read in place included."""
    if sys.platform == "linux":
        return _status("VmRSS")
    if sys.platform == "win32":
        return _windows_counters().WorkingSetSize
    command = ["ps", "-o", "rss=", "-p", str(os.getpid())]
    return 1024 * int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak_memory() -> int:
    """The most bytes that `resident_memory` would have returned so far."""
    if sys.platform == "linux":
        return _status("VmHWM")  # ru_maxrss begins with the size of the process that started this one
    if sys.platform == "win32":
        return _windows_counters().PeakWorkingSetSize
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


class _Counters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS of psapi.h."""

    _fields_ = [("cb", ctypes.c_uint32), ("PageFaultCount", ctypes.c_uint32)]
    _fields_ += [(name, ctypes.c_size_t) for name in ("PeakWorkingSetSize", "WorkingSetSize", *"abcdef")]


def _windows_counters() -> _Counters:
    system, counters = ctypes.windll.kernel32, _Counters()
    system.GetCurrentProcess.restype = ctypes.c_void_p
    system.K32GetProcessMemoryInfo.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32]
    if not system.K32GetProcessMemoryInfo(system.GetCurrentProcess(), ctypes.byref(counters), ctypes.sizeof(counters)):
        raise OSError("Windows does not say how much memory this process has in use")
    return counters
