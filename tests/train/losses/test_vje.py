"""VJE's densities are densities, and its pieces are what scipy-free arithmetic says."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, StudentT, kl_divergence

from train.losses.vje import (
    direction_distance,
    direction_log_density,
    radius_log_density,
    standard_normal_kl,
)


def rows(seed: int, count: int = 5, dim: int = 4) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_direction_by_a_slow_loop() -> None:
    sample, target, scale = rows(0), rows(1), rows(2).exp()
    found = direction_log_density(sample, target, scale, 3.0, constants=True)
    without = direction_log_density(sample, target, scale, 3.0)
    for i in range(5):
        a = [float(v) for v in sample[i].double() / sample[i].double().norm()]
        u = [float(v) for v in target[i].double() / target[i].double().norm()]
        g = [float(v) for v in scale[i]]
        q = sum((x - y) ** 2 / s for x, y, s in zip(u, a, g, strict=True))
        assert direction_distance(sample, target, scale)[i].item() == pytest.approx(q, rel=1e-5)
        bare = -0.5 * sum(math.log(s) for s in g) - 3.5 * math.log(1 + q / 3)
        constants = math.lgamma(3.5) - math.lgamma(1.5) - 2 * math.log(3 * math.pi)
        assert without[i].item() == pytest.approx(bare, rel=1e-5)
        assert found[i].item() == pytest.approx(bare + constants, rel=1e-5)


def test_direction_does_not_see_lengths_and_radius_does_not_see_directions() -> None:
    sample, target, scale = rows(0), rows(1), rows(2).exp()
    near = direction_log_density(sample, target, scale, 1.0)
    torch.testing.assert_close(direction_log_density(9 * sample, 0.1 * target, scale, 1.0), near)
    radius = radius_log_density(sample, target, torch.zeros(()), 1.0)
    torch.testing.assert_close(radius_log_density(sample.flip(1), -target, torch.zeros(()), 1.0), radius)


def test_radius_is_a_student_t_of_the_log_ratio() -> None:
    sample, target, log_scale = rows(0), rows(1), torch.tensor(0.4)
    centre = sample.norm(dim=1).log()
    expected = StudentT(5.0, centre, log_scale.exp()).log_prob(target.norm(dim=1).log())
    found = radius_log_density(sample, target, log_scale, 5.0, constants=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    constants = math.lgamma(3.0) - math.lgamma(2.5) - 0.5 * math.log(5 * math.pi)
    without = radius_log_density(sample, target, log_scale, 5.0)
    torch.testing.assert_close(without, expected - constants, rtol=1e-5, atol=1e-5)


def test_kl_is_that_of_the_distributions() -> None:
    mean, variance = rows(0), rows(1).exp()
    expected = kl_divergence(Normal(mean, variance.sqrt()), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(standard_normal_kl(mean, variance), expected, rtol=1e-5, atol=1e-5)


def test_shared_variances_and_full_kl_cancel_the_log_variances() -> None:
    """With kl weight 1 what is left of ln v in likelihood and KL is nothing."""
    mean, target = rows(0), rows(0)
    slopes = []
    for v in (0.01, 0.1, 1.0):
        variance = torch.full((5, 4), v, requires_grad=True)
        bound = direction_log_density(mean, target, variance, 1.0) - standard_normal_kl(mean, variance)
        bound.sum().backward()
        assert variance.grad is not None
        slopes.append(variance.grad.mean().item())
    assert slopes == pytest.approx([-0.5] * 3, abs=1e-4)  # only -v/2 of the KL remains


def test_extreme_inputs_stay_finite() -> None:
    zero = torch.zeros(2, 4, requires_grad=True)
    variance = torch.full((2, 4), 1e-4)
    value = direction_log_density(zero, rows(1, 2), variance, 1.0)
    value = value + radius_log_density(zero, rows(1, 2), torch.zeros(()), 1.0)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert zero.grad is not None
    assert torch.isfinite(zero.grad).all()
