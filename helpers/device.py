"""Choosing where to compute."""

from __future__ import annotations

import os

import torch


def get_device(name: str | None = None) -> torch.device:
    """The device to use: `name` or the environment variable COURSE_DEVICE if given, else CUDA if there, else the CPU.

    Apple's MPS is used only when asked for ("mps"): it has trained badly without saying so, and setup_check.py tells
    whether yours computes what the CPU computes. Raises ValueError for a device that this machine does not have.
    """
    chosen = name or os.environ.get("COURSE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = chosen.split(":")[0]
    if not available.get(kind, False):
        have = ", ".join(device for device, there in available.items() if there)
        raise ValueError(f"device {chosen!r} is not available; this machine has {have}")
    return torch.device(chosen)
