"""What a notebook does at its stop button, and where a cell trains for the second time what it has trained before.

Pressing the button, or Ctrl-C in a terminal, raises KeyboardInterrupt wherever the program happens to be. Inside
`interruptible` it ends the block. Anywhere else in a notebook it ends the cell, with a sentence in place of a
traceback. Either way the cells that Run All has put in line behind it do not run.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

INTERRUPTED = "Interrupted: the model keeps what it has learned, and the results so far are kept too."
WAITING = "The cells after this one wait for you."


class Stopped(Exception):
    """Ends a run of all cells where the learner pressed the stop button; never shown."""


def notebook_shell() -> Any | None:
    """IPython's shell, if this process is the kernel of a notebook."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    shell = get_ipython()
    return shell if getattr(shell, "kernel", None) is not None else None


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C, or the notebook's stop button, end a `with` block early, without an error.

    The rest of the cell still runs, and no cell after it.
    """
    try:
        yield
    except KeyboardInterrupt:
        shell = notebook_shell()
        print(INTERRUPTED if shell is None else f"{INTERRUPTED} {WAITING}")
        if shell is not None:
            _end_run(shell)


def _end_run(shell: Any) -> None:
    """Let the cell that is running end as one that failed, so that the kernel drops the cells in line behind it."""

    def fail(result: Any) -> None:
        shell.events.unregister("post_run_cell", fail)
        if result is not None:
            result.error_in_exec = result.error_in_exec or Stopped(WAITING)

    shell.events.register("post_run_cell", fail)


def _say_where(shell: Any, kind: type, error: BaseException, trace: Any, tb_offset: int | None = None) -> list[str]:
    """What IPython shows of an interruption that nothing has caught."""
    line = None
    while trace is not None:
        if trace.tb_frame.f_globals is shell.user_ns and trace.tb_frame.f_code.co_name == "<module>":
            line = trace.tb_lineno
        trace = trace.tb_next
    place = "" if line is None else f" in line {line}"
    print(f"Stopped{place}: what was computed before is kept. Run the cell again to do all of it. {WAITING}")
    return []


class _Training(NamedTuple):
    """Who trained a tensor last: which cell, in which execution, and how many updates it has had so far."""

    tensor: weakref.ref
    cell: str
    execution: int
    updates: int


class _Trainings:
    """Notices a cell that is run again and trains the same tensors as before."""

    def __init__(self, shell: Any):
        self.shell, self.cell, self.known = shell, "", {}

    def begin_cell(self, info: Any) -> None:
        """Before a cell runs. A front end that names its cells lets it be known also after an edit."""
        self.cell = getattr(info, "cell_id", None) or info.raw_cell

    def updated(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        """After an update of any optimizer."""
        tensor = next((tensor for group in optimizer.param_groups for tensor in group["params"]), None)
        if tensor is None:
            return
        key, execution = id(tensor), self.shell.execution_count
        before = self.known.get(key)
        if before is None:
            reference = weakref.ref(tensor, lambda _: self.known.pop(key, None))
            before = _Training(reference, self.cell, execution, 0)
        elif before.cell == self.cell and before.execution != execution:
            print(
                f"This cell goes on training what it has trained before ({before.updates:,} updates so far). To begin "
                "anew, first run the cell that makes the model."
            )
        self.known[key] = _Training(before.tensor, self.cell, execution, before.updates + 1)


def prepare_notebook() -> None:
    """Make the kernel do what this module says, if this process is one; once is enough, more does no harm."""
    shell = notebook_shell()
    if shell is None or KeyboardInterrupt in shell.custom_exceptions:
        return
    shell.set_custom_exc((*shell.custom_exceptions, KeyboardInterrupt), _say_where)
    trainings = _Trainings(shell)
    shell.events.register("pre_run_cell", trainings.begin_cell)
    register_optimizer_step_post_hook(trainings.updated)
