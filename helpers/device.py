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


def bfloat16_is_native(device: torch.device | str) -> bool:
    """Whether a device computes in bfloat16 itself; on other processors it is tens of times slower than float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device)[0] >= 8
    if kind != "cpu":
        return False
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older releases cannot tell
    return any("bf16" in name and has for name, has in capabilities.items())
