"""Loading GPT-2 124M from a folder: time and peak memory, beside transformers' from_pretrained."""

from __future__ import annotations

import tempfile
from typing import Any

from benchmarks import _measure
from helpers import GPTModel, gpt_config, save_gpt2

MEASURE = """
import time
import torch
{imports}

def memory(name):  # Linux: what the process holds now (VmRSS), and the most that it held (VmHWM), in bytes
    try:
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
    except OSError:
        return float("nan")

before = memory("VmRSS")
begin = time.perf_counter()
{load}
with torch.no_grad():
    for parameter in model.parameters():
        parameter.sum()
seconds = time.perf_counter() - begin
weights = sum(p.numel() * p.element_size() for p in model.parameters())
peak = memory("VmHWM") - before
print(seconds, peak / 1e6, peak / weights)
"""


def run(rounds: int = 4, **changes: Any) -> str:
    """Measure, and return the section for RESULTS.md; `changes` are entries of the configuration of GPT-2 124M."""
    model = GPTModel(gpt_config("124M", qkv_bias=True, **changes))
    model.out_head.weight = model.tok_emb.weight
    with tempfile.TemporaryDirectory() as folder:
        save_gpt2(model, folder)
        peer = "transformers `from_pretrained`"
        codes = {
            peer: MEASURE.format(
                imports="from transformers import GPT2LMHeadModel",
                load=f"model = GPT2LMHeadModel.from_pretrained({folder!r})",
            ),
            "`read_gpt2`": MEASURE.format(
                imports="from helpers.pretrained import read_gpt2", load=f"model, _ = read_gpt2({folder!r})"
            ),
        }
        seen: dict[str, list[list[float]]] = {name: [] for name in codes}
        for _ in range(rounds):
            for name, code in codes.items():
                seen[name].append(_measure.in_subprocess(code))
    rows = []
    for name, numbers in seen.items():
        seconds, peaks, ratios = zip(*numbers, strict=True)
        ratio = min(n[0] for n in seen[peer]) / min(seconds)
        rows.append((name, f"{min(seconds):.2f}", f"{_measure.middle(seconds):.2f}", f"{ratio:.2f}",
                     f"{_measure.middle(peaks):,.0f}", f"{_measure.middle(ratios):.2f}"))  # fmt: skip
    header = ("", "seconds, best", "seconds, median", "speed ratio (best)", "peak memory, MB", "peak / weights")
    return (
        f"## Loading\n\nGPT-2 124M (float32, 498 MB) from a folder that is in the file cache, each time in a fresh "
        f"Python, until every weight has been read once (transformers maps the file and reads it only then); {rounds} "
        f"rounds. Peak memory is what the process grew by after its imports. Target: a peak of at "
        f"most 1.3 times the weights.\n\n{_measure.table(header, rows)}"
    )


if __name__ == "__main__":
    print(_measure.machine(), run(), sep="\n\n")
