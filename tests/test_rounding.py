"""Weights rounded to few bits: the multiples, the scales, the errors, and the groups."""

import pytest
import torch

from helpers.speed.rounding import round_weights

ROWS = torch.randn(6, 32, generator=torch.Generator().manual_seed(5))


def test_by_hand():
    row = torch.tensor([[0.9, -0.5, 0.2, 7.0]])
    assert round_weights(row, 4).tolist() == [[1.0, 0.0, 0.0, 7.0]]
    in_pairs = round_weights(row, 4, 2)
    torch.testing.assert_close(in_pairs, torch.tensor([[0.9, -4 * 0.9 / 7, 0.0, 7.0]]))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [None, 4, 16])
def test_multiples_and_errors(bits, group):
    rounded = round_weights(ROWS, bits, group)
    assert rounded.shape == ROWS.shape and rounded.dtype == torch.float32
    for exact, got in zip(ROWS.view(-1, group or 32), rounded.view(-1, group or 32), strict=True):
        scale = exact.abs().max() / (2 ** (bits - 1) - 1)
        torch.testing.assert_close(got / scale, (got / scale).round(), rtol=0, atol=1e-4)
        assert (got - exact).abs().max() <= scale / 2 + 1e-6
        assert len((got / scale).round().unique()) < 2**bits


def test_again_changes_nothing():
    once = round_weights(ROWS, 4, 8)
    torch.testing.assert_close(round_weights(once, 4, 8), once)


def test_smaller_groups_are_nearer():
    errors = [(round_weights(ROWS, 4, group) - ROWS).square().mean() for group in (32, 16, 8, 4)]
    assert errors == sorted(errors, reverse=True)


def test_zeros_and_other_dtypes():
    assert round_weights(torch.zeros(2, 4), 4).tolist() == [[0.0] * 4] * 2
    assert round_weights(ROWS.double(), 8).dtype == torch.float32
    with pytest.raises(RuntimeError):
        round_weights(ROWS, 4, 5)
