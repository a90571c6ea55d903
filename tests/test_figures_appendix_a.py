"""Appendix A's figures: the computation graph that is drawn is autograd's, and loading times add up."""

import pytest
import torch
import torch.nn.functional as F

from helpers import NeuralNetwork
from helpers.course.figures import appendix_a as figures

X = torch.tensor([[-1.2, 3.1], [-0.9, 2.9], [-0.5, 2.6], [2.3, -1.1], [2.7, -1.5]])
Y = torch.tensor([0, 0, 0, 1, 1])


class TestGraph:
    """The picture of a graph holds every node that autograd made, and nothing else."""

    def texts(self, fig):
        return [text.get_text() for text in fig.axes[0].texts if text.get_text()]

    def example(self):
        w, b = torch.tensor([2.2], requires_grad=True), torch.tensor([0.0], requires_grad=True)
        u = torch.tensor([1.1]) * w
        z = u + b
        a = torch.sigmoid(z)
        loss = F.binary_cross_entropy(a, torch.tensor([1.0]))
        return {"w1": w, "b": b, "u": u, "z": z, "a": a, "loss": loss}

    def test_every_node_once(self):
        names = self.example()
        texts = self.texts(figures.graph(names["loss"], names))
        kinds = sorted(text.replace("\n", "") for text in texts if "=" not in text)
        nodes = ["AccumulateGrad"] * 2 + ["AddBackward0", "BinaryCrossEntropyBackward0", "MulBackward0"]
        assert kinds == [*nodes, "SigmoidBackward0"]
        assert "w1 = 2.2000" in texts
        assert "loss = 0.0852" in texts

    def test_gradients_after_backward(self):
        names = self.example()
        assert not any("grad " in text for text in self.texts(figures.graph(names["loss"], names)))
        names["z"].retain_grad()
        names["loss"].backward()
        texts = self.texts(figures.graph(names["loss"], names))
        assert sorted(text for text in texts if text.startswith("grad")) == ["grad −0.0817"] * 2 + ["grad −0.0898"]

    @pytest.mark.parametrize("down", [True, False])
    def test_boxes_do_not_overlap(self, down):
        model = NeuralNetwork(2, 2)
        loss = F.cross_entropy(model(X), Y)
        fig = figures.graph(loss, dict(model.named_parameters()), down=down)
        boxes = [patch.get_window_extent() for patch in fig.axes[0].patches if hasattr(patch, "get_boxstyle")]
        boxes = [box for box in boxes if box.width > 20]
        assert len(boxes) == 6 + 3 + 3 + 2 + 2  # leaves, transposes, products, bends, the two of cross-entropy
        for k, one in enumerate(boxes):
            assert not any(one.overlaps(other) for other in boxes[:k])

    def test_a_tensor_used_twice_is_one_box(self):
        w = torch.tensor(3.0, requires_grad=True)
        square = w * w
        texts = self.texts(figures.graph(square * w, {"w": w, "square": square}))
        assert sum("w = 3" in text for text in texts) == 1

    def test_the_longest_branch_goes_straight_on(self):
        short, long = torch.tensor(1.0, requires_grad=True), torch.tensor(2.0, requires_grad=True)
        root = (short + long.sin().exp()).grad_fn
        (short_node, _), (long_node, _) = root.next_functions
        places = figures._places(root)
        assert (places[root], places[long_node], places[short_node]) == ((0, 0), (1, 0), (1, 1))

    def test_the_alternative_text_names_every_arrow(self):
        names = self.example()
        names["loss"].backward()
        alt = figures.graph(names["loss"], names).get_label()
        assert alt.startswith(
            "Computation graph of 6 boxes: w1 = 2.2000, grad −0.0898 (AccumulateGrad) leads to u = 2.4200"
        )
        assert alt.count("leads to") == 5
        assert "z = 2.4200 (AddBackward0) leads to a = 0.9183 (SigmoidBackward0)" in alt

    def test_no_graph(self):
        with pytest.raises(ValueError, match="no grad_fn"):
            figures.graph(torch.tensor(1.0), {})


class TestLoading:
    @pytest.mark.parametrize(
        ("load", "train", "workers", "total"),
        [(2, 1, 0, 18), (2, 1, 1, 13), (2, 1, 2, 8), (2, 1, 4, 8), (1, 3, 1, 19)],
    )
    def test_schedule(self, load, train, workers, total):
        fig = figures.loading(load, train, workers)
        assert fig.axes[0].get_title(loc="left") == f"6 batches in {total} seconds"

    def test_the_axis_does_not_depend_on_the_durations(self):
        assert figures.loading(0.5, 0.5, 4).axes[0].get_xlim() == figures.loading(3, 3, 0).axes[0].get_xlim() == (0, 36)

    def test_the_alternative_text_says_when_all_is_done(self):
        assert figures.loading(2, 1, 2).get_label().endswith("all 6 are done after 8 seconds.")


def test_a_network_has_a_circle_for_each_number_and_a_line_for_each_weight():
    fig = figures.network([5, 4, 2])
    assert [len(line.get_xdata()) for line in fig.axes[0].lines] == [5, 4, 2]
    assert [len(lines.get_segments()) for lines in fig.axes[0].collections] == [5 * 4, 4 * 2]
    assert "5 · 4 + 4 = 24; 4 · 2 + 2 = 10" in fig.get_label()


def test_strides_lead_to_where_both_views_begin():
    fig = figures.strides(torch.tensor([[1, 2, 3], [4, 5, 6]]))
    ends = [text.xy for text in fig.axes[0].texts if hasattr(text, "xy")]
    assert len(ends) == 2
    assert all(2.24 < x < 2.66 and abs(y - 0.95) < 0.01 for x, y in ends)  # the square of position 0
    assert "in matrix.T one step to the right is 3 further and one down 1" in fig.get_label()


def test_boundaries_say_how_many_points_are_right():
    class Sides(torch.nn.Module):  # class 1 at the right
        def forward(self, x):
            return torch.stack([-x[:, 0], x[:, 0]], dim=1)

    assert "all right: 5 of 5 points" in figures.boundaries({"all right": Sides()}, X, Y).get_label()
    assert "3 of 5 points" in figures.boundaries({"one class": lambda x: torch.eye(2)[[0] * len(x)]}, X, Y).get_label()


def test_spread_draws_the_median_and_the_band():
    losses = torch.tensor([[0.7, 0.1], [0.7, 0.3], [0.7, 0.2]])
    fig = figures.spread({"rates": {"one": losses}}, X, Y, chance=0.69)
    curve = fig.axes[1].lines[0].get_ydata()
    assert torch.allclose(torch.tensor(curve), torch.tensor([0.7, 0.2]))
    band = fig.axes[1].collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.1, 0.7))
    assert "rates, one: the median of 3 runs goes from 0.70 to 0.20" in fig.get_label()


def test_crossover_says_where_the_gpu_wins():
    alt = figures.crossover(cpu_flops=2e11, gpu_flops=2e13, bytes_per_second=1.6e10, launch=2e-5).get_label()
    assert "near n = 130, with moving near n = 161" in alt
