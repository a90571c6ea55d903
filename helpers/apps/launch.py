"""Starting a program as several processes of this machine, from a notebook, a test or the command line:

    python -m helpers.apps.launch 2 helpers.apps.train_distributed --epochs 1
    python -m helpers.apps.launch 2 my_script.py

PyTorch's own `torch.distributed.run` ("torchrun") does the work: it starts the processes, tells each its number and
where the others are, and ends all of them when one fails. What this adds is what trips people up on one machine: a
free port, the loopback address, as many threads as there are processor cores to share, and Windows, where PyTorch
comes without libuv. For several machines call `torch.distributed.run` yourself.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

_PATIENCE = 40.0  # seconds for torchrun to end its processes; it gives them 30
_TRIES = 3  # free ports to try: another program may take one before ours does


def launch(
    program: str | Path,
    processes: int,
    *arguments: str | Path | int | float,
    port: int | None = None,
    timeout: float | None = None,
    capture: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a module ("package.module") or a script (a path that ends in .py) as `processes` processes, to their end.

    The result has `returncode`, 0 if all went well, and with `capture` what was printed: `stdout` and `stderr`. Without
    `port` a free one is found. Raises ValueError for a port that is taken or fewer than one process, FileNotFoundError
    for a script that does not exist, subprocess.TimeoutExpired after `timeout` seconds, when all processes have ended.
    """
    if processes < 1:
        raise ValueError(f"processes={processes} must be at least 1")
    if port is not None and is_taken(port):
        raise ValueError(f"port {port} of this machine is taken; name another, or none and a free one is found")
    for last in (port is not None, *[False] * (_TRIES - 2), True):
        chosen = port if port is not None else free_port()
        command = launch_command(program, processes, *arguments, port=chosen)
        result = _run(command, environment(processes), timeout, capture)
        # Our own run has left its port by now: if somebody listens there, it was taken before the run could have it.
        if last or result.returncode == 0 or not is_taken(chosen):
            break
    return result


def _run(
    command: list[str], variables: dict[str, str], timeout: float | None, capture: bool
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run. Torchrun ends its processes when it is asked to end, and leaves them when it is killed."""
    pipe = subprocess.PIPE if capture else None
    with subprocess.Popen(command, env=variables, stdout=pipe, stderr=pipe, text=True, encoding="utf-8") as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException as reason:
            try:
                if isinstance(reason, KeyboardInterrupt):  # Ctrl-C reaches torchrun as well
                    _wait(process, 3.0)
                process.terminate()
                _wait(process, _PATIENCE)
            finally:
                process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _wait(process: subprocess.Popen, seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=seconds)  # what is printed meanwhile must be read, or it waits for that


def launch_command(program: str | Path, processes: int, *arguments: object, port: int) -> list[str]:
    """The command that `launch` runs."""
    module = not str(program).endswith(".py")
    if not module and not Path(program).is_file():
        raise FileNotFoundError(f"{program} does not exist")
    engine = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    place = ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    return [*engine, *place, *(["-m"] if module else []), str(program), *map(str, arguments)]


def environment(processes: int) -> dict[str, str]:
    """This process's environment variables, and what the processes need besides; what the user has set stays."""
    added = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)), "PYTHONUTF8": "1"}
    if sys.platform == "win32":
        added["USE_LIBUV"] = "0"
    else:
        added["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    return {**added, **os.environ}


def free_port() -> int:
    """A port of the loopback address that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_taken(port: int) -> bool:
    """Whether some program listens at this port of the loopback address."""
    if not 1 <= port <= 65535:
        raise ValueError(f"port={port} must be from 1 to 65535")
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, help="a port of this machine for the processes to meet at (a free one)")
    parser.add_argument("processes", type=int, help="how many")
    parser.add_argument("program", help="a module, or a script that ends in .py")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for the program")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        result = launch(options.program, options.processes, *options.arguments, port=options.port, capture=False)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    sys.exit(result.returncode)


if __name__ == "__main__":
    main()
