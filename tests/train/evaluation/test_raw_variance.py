"""Each head's output is read as its own loss reads it."""

from __future__ import annotations

import math

import pytest
import torch

from train.evaluation.raw_variance import one_number, positive_variance


def test_by_hand() -> None:
    raw = torch.tensor([[0.0, 1.0, 20.0, -500.0]])
    assert positive_variance("vssl-gaussian", raw)[0].tolist() == pytest.approx(
        [1.0, math.e, math.exp(8), math.exp(-8)], rel=1e-5
    )
    soft = [math.log(2), math.log(1 + math.e), 20.0]
    assert positive_variance("vssl", raw)[0, :3].tolist() == pytest.approx(soft, rel=1e-5)
    assert positive_variance("vje", raw)[0].tolist() == pytest.approx(
        [*(v + 1e-4 for v in soft), 1e-4], rel=1e-5
    )
    assert (positive_variance("vssl", raw) > 0).all()


def test_the_one_number_rises_with_the_variance_and_not_with_the_scale() -> None:
    mean = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    found = one_number(mean, torch.tensor([[1.0, 1.0], [4.0, 4.0]]))
    # The variance across the mean's direction over its squared norm: 1/25 and 4/25.
    expected = [1 - (1 + t) ** -0.5 for t in (1 / 25, 4 / 25)]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    scaled = one_number(10 * mean, 100 * torch.tensor([[1.0, 1.0], [4.0, 4.0]]))
    torch.testing.assert_close(found, scaled)
