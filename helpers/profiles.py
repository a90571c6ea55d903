"""The two ways to run the course: `quick`, offline and small, and `book`, with the book's texts and sizes."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """What a notebook needs to know about the way it is run.

    `pretraining_text` is the name of the text, for `helpers.datasets.load_text`.
    """

    name: str
    pretraining_text: str


PROFILES = {
    "quick": Profile(name="quick", pretraining_text="story"),
    "book": Profile(name="book", pretraining_text="the-verdict"),
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
