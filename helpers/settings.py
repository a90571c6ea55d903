"""How the course runs: two profiles (`quick`, offline and small; `book`, the book's texts and sizes) and the device."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from .gpt import gpt_config


@dataclass(frozen=True)
class Profile:
    """What a notebook needs to know about the way it is run.

    `pretraining_text` is the name of the text, for `helpers.texts.load_text`; `pretraining_config` the model that
    chapter 5 trains on it, in batches of 2 windows of `context_length` tokens, for `pretraining_epochs` epochs at the
    learning rate `pretraining_lr`, with a look at the losses every `pretraining_eval_freq` updates. `messages` and
    `instructions` name the data of chapters 6 and 7, for `load_messages` and `load_instructions`.
    """

    name: str
    pretraining_text: str
    pretraining_config: dict[str, Any]
    pretraining_epochs: int
    pretraining_lr: float
    pretraining_eval_freq: int
    messages: str
    instructions: str


PROFILES = {
    "quick": Profile(
        name="quick",
        pretraining_text="story",
        pretraining_config=gpt_config("124M", context_length=128, emb_dim=128, n_heads=4, n_layers=4),
        pretraining_epochs=10,
        pretraining_lr=3e-3,
        pretraining_eval_freq=20,
        messages="messages",
        instructions="instructions",
    ),
    "book": Profile(
        name="book",
        pretraining_text="the-verdict",
        pretraining_config=gpt_config("124M", context_length=256),
        pretraining_epochs=10,
        pretraining_lr=4e-4,
        pretraining_eval_freq=5,
        messages="sms-spam-collection",
        instructions="instruction-data",
    ),
}


def get_profile(name: str = "quick") -> Profile:
    """The profile called `name`, unless the environment variable COURSE_PROFILE names another.

    Raises ValueError for a name that is not a profile.
    """
    chosen = os.environ.get("COURSE_PROFILE") or name
    if chosen not in PROFILES:
        source = "COURSE_PROFILE" if os.environ.get("COURSE_PROFILE") else "name"
        raise ValueError(f"{source}={chosen!r} is not a profile; there are {' and '.join(PROFILES)}")
    return PROFILES[chosen]


def get_device(name: str | torch.device | None = None) -> torch.device:
    """The device to use: `name` or the environment variable COURSE_DEVICE if given, else CUDA if available, else CPU.

    Apple's MPS is used only when asked for ("mps"): models have trained badly on it without an error. setup_check.py
    says whether yours computes what the CPU computes. Raises ValueError for a device that this machine does not have.
    """
    chosen = str(name or os.environ.get("COURSE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind, _, index = chosen.partition(":")
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": 1}
    numbered = index in map(str, range(counts.get(kind, 0)))
    if not available.get(kind, False) or (":" in chosen and not numbered):
        have = ", ".join(device for device, there in available.items() if there)
        last = f" (cuda:0 to cuda:{counts['cuda'] - 1})" if available["cuda"] else ""
        raise ValueError(f"device {chosen!r} is not available; this machine has {have}{last}")
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
