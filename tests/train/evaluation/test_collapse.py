"""The indicators tell a living code from a dead one."""

from __future__ import annotations

import pytest
import torch

from train.evaluation.collapse import collapse_reason, effective_rank, mean_cosine_between, spread

RANDOM = torch.randn(400, 32, generator=torch.Generator().manual_seed(0))
ONE = torch.ones(400, 32) + 1e-4 * RANDOM


def test_healthy_codes() -> None:
    assert spread(RANDOM) == pytest.approx(1.0, abs=0.02)
    assert effective_rank(RANDOM) == pytest.approx(32, rel=0.05)
    assert mean_cosine_between(RANDOM) == pytest.approx(0.0, abs=0.01)
    assert collapse_reason({"spread_features": spread(RANDOM), "spread_mean": spread(RANDOM)}) is None


def test_one_code_for_every_image() -> None:
    assert spread(ONE) < 1e-3
    assert mean_cosine_between(ONE) == pytest.approx(1.0, abs=1e-4)
    reason = collapse_reason({"spread_features": 0.5, "spread_mean": spread(ONE)})
    assert reason is not None
    assert "spread_mean" in reason


def test_codes_in_a_plane_have_rank_two() -> None:
    plane = RANDOM[:, :2] @ torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    assert effective_rank(plane) == pytest.approx(2, rel=0.1)


def test_mean_cosine_by_hand() -> None:
    codes = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    assert mean_cosine_between(codes) == pytest.approx((0 + 2 * 2**-0.5) / 3, abs=1e-6)


def test_a_number_that_is_none_is_a_collapse() -> None:
    assert collapse_reason({"spread_features": float("nan")}) is not None
