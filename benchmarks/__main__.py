"""Run every benchmark and write RESULTS.md: `python -m benchmarks`, on a busy machine with fewer `--rounds 2`.

`python -m benchmarks loader loading` runs some of them and only prints.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks import _measure

NAMES = ("training", "loading", "loader", "generation", "llama")
HEAD = """# Results

Written by `make bench`. Each table comes from one run in which the contenders took turns, so it is the ratios that
carry over to another machine, not the times. "Best" is the fastest round, "median" the middle one; where the two are
far apart, something else was running.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed and memory beside public peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}; all if left out")
    parser.add_argument("--rounds", type=int, help="how often each contender is measured")
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.names) - set(NAMES))
    if unknown:
        parser.error(f"{unknown[0]!r} is not one of {', '.join(NAMES)}")
    options = {} if chosen.rounds is None else {"rounds": chosen.rounds}
    sections = [HEAD.rstrip(), _measure.machine()]
    for name in chosen.names or NAMES:
        print(f"benchmarks.{name} ...", file=sys.stderr, flush=True)
        sections.append(importlib.import_module(f"benchmarks.{name}").run(**options))
        print(f"{sections[-1]}\n", flush=True)
        if not chosen.names:
            (Path(__file__).parent / "RESULTS.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
