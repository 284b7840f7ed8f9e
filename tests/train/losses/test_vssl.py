"""The cosine terms agree with a slow float64 reference and with values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from train.losses.vssl import (
    cosine,
    cosine_kl,
    cosine_likelihood,
    one_sided_sample,
    softplus_distance,
)

# cosine (of means and of variances alike), S_3, S_1, K, N
BY_HAND = [
    (1.0, 0.01620, 0.3133, -2.5533, 0.1231),
    (0.5, 0.06714, 0.4741, -1.8147, 1.2565),
    (0.0, 0.23105, 0.6931, -1.0903, 2.7391),
    (-0.5, 0.56714, 0.9741, -0.3392, 4.7943),
    (-1.0, 1.01620, 1.3133, 0.5325, 7.7905),
]
# cosine, then the derivatives of K and N by the cosine of variances and by that of means
SLOPES = [
    (0.5, -1.4498, -0.01225, -2.3914, -0.1697),
    (0.0, -1.3320, -0.11552, -2.9616, -0.4805),
    (-0.5, -1.1296, -0.46368, -3.7195, -1.1812),
]


def at_angle(value: float) -> tuple[Tensor, Tensor]:
    """Two vectors of unequal length, (1, 3), whose cosine is `value`."""
    return torch.tensor([[2.0, 0.0, 0.0]]), 5.0 * torch.tensor([[value, math.sqrt(1 - value**2), 0.0]])


def slow_terms(rows: list[np.ndarray]) -> tuple[list[float], list[float]]:
    """K and N of each row of four (B, D) arrays, written out in float64 scalars."""
    kl, likelihood = [], []
    for mean, variance, teacher_mean, teacher_variance in zip(*rows, strict=True):

        def distance(a: np.ndarray, b: np.ndarray, k: float) -> float:
            product = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
            size = math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(y) ** 2 for y in b))
            return math.log(1.0 + math.exp(-k * product / size)) / k

        v, m = distance(variance, teacher_variance, 3.0), distance(mean, teacher_mean, 3.0)
        kl.append(0.5 * (math.log(v) + m**2 + v - 1.0))
        v, m = distance(variance, teacher_variance, 1.0), distance(mean, teacher_mean, 1.0)
        likelihood.append(math.log(v) + 4.0 * v + m**2 * v)
    return kl, likelihood


@pytest.mark.parametrize(("value", "s3", "s1", "kl", "likelihood"), BY_HAND)
def test_values_by_hand(value: float, s3: float, s1: float, kl: float, likelihood: float) -> None:
    a, b = at_angle(value)
    assert softplus_distance(a, b, 3.0).item() == pytest.approx(s3, abs=6e-6)
    assert softplus_distance(a, b, 1.0).item() == pytest.approx(s1, abs=6e-5)
    assert cosine_kl(a, a, b, b).item() == pytest.approx(kl, abs=6e-5)
    assert cosine_likelihood(a, a, b, b).item() == pytest.approx(likelihood, abs=6e-5)


@pytest.mark.parametrize(("value", "kl_v", "kl_m", "likelihood_v", "likelihood_m"), SLOPES)
def test_slopes_by_hand(
    value: float, kl_v: float, kl_m: float, likelihood_v: float, likelihood_m: float
) -> None:
    """The slope by the cosine, from the slope by the angle: dL/dc = -dL/dtheta / sin(theta)."""
    for term, by_variance, by_mean in (
        (cosine_kl, kl_v, kl_m),
        (cosine_likelihood, likelihood_v, likelihood_m),
    ):
        angles = torch.full((2,), math.acos(value), requires_grad=True)
        other = torch.tensor([[1.0, 0.0]])
        mean, variance = (torch.stack([torch.cos(t), torch.sin(t)])[None] for t in angles)
        term(mean, variance, other, other).sum().backward()
        assert angles.grad is not None
        found = -angles.grad / math.sin(math.acos(value))
        assert found[1].item() == pytest.approx(by_variance, abs=2e-4)
        assert found[0].item() == pytest.approx(by_mean, abs=2e-4)


def test_agree_with_the_slow_reference_on_random_rows() -> None:
    random = np.random.default_rng(3)
    rows = [random.normal(0, scale, (7, 11)) for scale in (1.0, 0.1, 3.0, 20.0)]
    kl, likelihood = slow_terms(rows)
    tensors = [torch.from_numpy(row).float() for row in rows]
    torch.testing.assert_close(cosine_kl(*tensors), torch.tensor(kl), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cosine_likelihood(*tensors), torch.tensor(likelihood), rtol=1e-5, atol=1e-5)


def test_scale_of_any_vector_changes_nothing() -> None:
    random = torch.Generator().manual_seed(0)
    rows = [torch.randn(4, 6, generator=random) for _ in range(4)]
    for place in range(4):
        scaled = [row * (37.0 if i == place else 1.0) for i, row in enumerate(rows)]
        torch.testing.assert_close(cosine_kl(*scaled), cosine_kl(*rows))


def test_zero_vectors_give_finite_terms_and_gradients() -> None:
    zero = torch.zeros(2, 5, requires_grad=True)
    other = torch.ones(2, 5)
    loss = cosine_kl(zero, zero, other, other).sum() + cosine_likelihood(zero, zero, other, other).sum()
    loss.backward()
    assert cosine(zero, other).abs().max() == 0
    assert torch.isfinite(loss)
    assert zero.grad is not None
    assert torch.isfinite(zero.grad).all()


def test_half_precision_inputs_are_compared_in_full_precision() -> None:
    a = torch.tensor([[1.0, 0.03125]], dtype=torch.bfloat16)
    b = torch.tensor([[1.0, 0.0]], dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cosine(a, b)
    assert found.dtype == torch.float32
    # bfloat16 would round this cosine to 1.
    assert found.item() == pytest.approx(1.0 / math.sqrt(1.0 + 0.03125**2), abs=1e-7)


def test_sample_is_one_sided_with_the_moments_of_the_half_normal() -> None:
    noise = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(1))
    mean, variance = torch.tensor([[0.5]]), torch.tensor([[-2.0]])
    sample = one_sided_sample(mean, variance, noise)
    assert sample.max().item() <= 0.5
    assert sample.mean().item() == pytest.approx(0.5 - 2.0 * math.sqrt(2 / math.pi), abs=0.01)
    assert sample.std().item() == pytest.approx(2.0 * math.sqrt(1 - 2 / math.pi), abs=0.01)
    signed = one_sided_sample(mean, variance, noise, signed=True)
    assert signed.mean().item() == pytest.approx(0.5, abs=0.02)
