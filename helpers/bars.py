"""Progress bars, the same in the terminal and in a notebook."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any


def progress_bar(iterable: Iterable | None = None, **options: Any):
    """tqdm's bar over an iterable, or one to update by hand; TQDM_DISABLE=1 hides it. `options` are tqdm's."""
    from tqdm.auto import tqdm  # in a notebook this loads ipywidgets

    hidden = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")  # tqdm's notebook bar does not ask for it
    return tqdm(iterable, disable=hidden, **options)
