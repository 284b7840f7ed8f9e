"""The closed forms agree with torch.distributions and with sampling."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from train.losses.vssl_gaussian import (
    bounded_log_variance,
    expected_negative_log_likelihood,
    gaussian_kl,
    gaussian_sample,
)


def rows(seed: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 9, generator=random) * scale for scale in (1.0, 1.5, 2.0, 0.7)]


def test_kl_is_that_of_the_distributions() -> None:
    mean, log_variance, teacher_mean, teacher_log_variance = rows(0)
    student = Normal(mean.double(), (0.5 * log_variance.double()).exp())
    teacher = Normal(teacher_mean.double(), (0.5 * teacher_log_variance.double()).exp())
    expected = kl_divergence(student, teacher).mean(dim=1).float()
    found = gaussian_kl(mean, log_variance, teacher_mean, teacher_log_variance)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_kl_of_equals_is_zero_and_by_hand() -> None:
    mean, log_variance = torch.zeros(1, 1), torch.zeros(1, 1)
    assert gaussian_kl(mean, log_variance, mean, log_variance).item() == 0
    # N(1, 1) from N(0, 4): 1/2 [ln 4 + 1/4 + 1/4 - 1]
    found = gaussian_kl(mean + 1, log_variance, mean, log_variance + math.log(4.0)).item()
    assert found == pytest.approx(0.5 * (math.log(4.0) - 0.5), rel=1e-6)


def test_a_draw_is_the_mean_plus_deviations() -> None:
    mean, log_variance = torch.tensor([[1.0, -1.0]]), torch.tensor([[math.log(4.0), math.log(9.0)]])
    found = gaussian_sample(mean, log_variance, torch.tensor([[0.5, -2.0]]))
    torch.testing.assert_close(found, torch.tensor([[2.0, -7.0]]))


def test_likelihood_by_hand_one_number_a_row() -> None:
    """1/2 [ln 2 pi + ln 1 + (2 + 0) / 1], and 1/2 [ln 2 pi + ln 4 + (1 + 9) / 4]."""
    mean, log_variance = torch.zeros(2, 1), torch.tensor([[0.0], [math.log(4.0)]])
    teacher_mean, teacher_log_variance = torch.tensor([[0.0], [3.0]]), torch.tensor([[math.log(2.0)], [0.0]])
    expected = [0.5 * (math.log(2 * math.pi) + 2), 0.5 * (math.log(2 * math.pi) + math.log(4.0) + 10 / 4)]
    found = expected_negative_log_likelihood(mean, log_variance, teacher_mean, teacher_log_variance)
    torch.testing.assert_close(found, torch.tensor(expected))


def test_likelihood_is_the_expectation_over_the_teacher() -> None:
    mean, log_variance, teacher_mean, teacher_log_variance = (r[:1, :2].clone() for r in rows(1))
    noise = torch.randn(400_000, 2, generator=torch.Generator().manual_seed(2))
    draws = gaussian_sample(teacher_mean, teacher_log_variance, noise)
    drawn = -Normal(mean, (0.5 * log_variance).exp()).log_prob(draws).mean()
    found = expected_negative_log_likelihood(mean, log_variance, teacher_mean, teacher_log_variance)
    assert found.item() == pytest.approx(drawn.item(), rel=0.02)


def test_likelihood_is_least_where_the_variance_is_the_true_one() -> None:
    zero = torch.zeros(1, 1)
    candidates = [torch.full((1, 1), math.log(v)) for v in (1.0, 2.0, 3.0, 4.0, 5.0)]
    # teacher variance 2, squared distance of the means 1: the best variance is 3
    costs = [
        expected_negative_log_likelihood(zero, c, zero + 1, torch.full((1, 1), math.log(2.0))).item()
        for c in candidates
    ]
    assert min(range(5), key=costs.__getitem__) == 2


def test_log_variances_are_bounded() -> None:
    bounded = bounded_log_variance(torch.tensor([[-50.0, 0.5, 50.0]], dtype=torch.bfloat16))
    assert bounded.tolist() == [[-8.0, 0.5, 8.0]]
    assert bounded.dtype == torch.float32
