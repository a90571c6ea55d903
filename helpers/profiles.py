"""The two ways to run the course: `quick`, offline and small, and `book`, with the book's texts and sizes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from .gpt import gpt_config


@dataclass(frozen=True)
class Profile:
    """What a notebook needs to know about the way it is run.

    `pretraining_text` is the name of the text, for `helpers.datasets.load_text`; `pretraining_config` the model that
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
