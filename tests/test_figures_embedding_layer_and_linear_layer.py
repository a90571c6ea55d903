"""The pictures of the notebook on embedding layers say in words what they draw."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch

from helpers.course.figures import embedding_layer_and_linear_layer as figures

mpl.use("Agg")
ONE_HOT = torch.eye(6)[torch.tensor([2, 5, 2])]  # (T, V)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (ONE_HOT, ["row 0 of the output is row 2;", "row 1 of the output is row 5;", "row 2 of the output is row 2."]),
        (ONE_HOT.T, ["row 2 of the output is row 0 plus row 2;", "row 0 of the output is all zeros;"]),
        (0.7 * torch.eye(6)[2:3] + 0.3 * torch.eye(6)[5:6], ["is 0.7 times row 2 plus 0.3 times row 5."]),
    ],
)
def test_a_product_is_described(inputs, said):
    table = torch.randn(inputs.shape[1], 3, generator=torch.Generator().manual_seed(1))
    fig = figures.row_product(inputs, table)
    assert all(words in fig.get_label() for words in said), fig.get_label()
    drawn = [text.get_text() for text in fig.axes[0].texts]
    assert f"output {(len(inputs), 3)}" in drawn
    for number in (inputs @ table).flatten().tolist():
        assert f"{number:.2f}".replace("-", "−").replace("−0.00", "0.00") in drawn
    plt.close(fig)


def test_work_grows_for_the_product_only():
    fig = figures.work([6, 60], tokens=8, size=4)
    product, lookup = (line.get_ydata() for line in fig.axes[0].lines)
    assert list(product) == [8 * 6 * 4, 8 * 60 * 4] and list(lookup) == [8 * 4, 8 * 4]
    plt.close(fig)
