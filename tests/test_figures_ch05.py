"""Chapter 5's pictures: what they say agrees with what the code does."""

from __future__ import annotations

import torch

from helpers import choose_next
from helpers.course.figures import ch05 as figures
from helpers.course.plots import png


def test_the_cut_keeps_what_choose_next_draws_from():
    logits = torch.randn(30, generator=torch.Generator().manual_seed(8)) * 2
    for options in ({"top_k": 4}, {"top_p": 0.7}, {"top_k": 6, "top_p": 0.5}, {}):
        fig = figures.cut([str(n) for n in range(30)], logits, 1.3, **options)
        title = fig.axes[0].get_title()
        png(fig)  # draws and closes it
        rows = logits.expand(6000, -1)
        drawn = choose_next(rows, temperature=1.3, generator=torch.Generator().manual_seed(1), **options)
        kept = int(title.split(": ")[1].split(" of ")[0])
        seen = len(drawn.unique())
        assert seen <= kept and (seen == kept or not options)
