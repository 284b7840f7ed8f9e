"""Closed forms for diagonal Gaussians in log-variance: (B, D) parameters -> (B,) terms.

The exact counterparts of VSSL's cosine terms, for a variance that is one. Each is averaged over
dimensions, so that its size does not depend on D. Shape letters: B batch, D dimension.
"""

from __future__ import annotations

import math

from torch import Tensor

LOG_VARIANCE_BOUNDS = (-8.0, 8.0)


def bounded_log_variance(raw: Tensor) -> Tensor:
    """Clamp a head's raw output to LOG_VARIANCE_BOUNDS, in float32."""
    return raw.float().clamp(*LOG_VARIANCE_BOUNDS)


def gaussian_kl(
    mean: Tensor, log_variance: Tensor, teacher_mean: Tensor, teacher_log_variance: Tensor
) -> Tensor:
    """KL(student || teacher) per dimension, (B,) nats."""
    mean, teacher_mean = mean.float(), teacher_mean.float()
    ratio = (log_variance - teacher_log_variance).exp()
    square = (mean - teacher_mean).square() * (-teacher_log_variance).exp()
    return 0.5 * (teacher_log_variance - log_variance + ratio + square - 1.0).mean(dim=1)


def expected_negative_log_likelihood(
    mean: Tensor, log_variance: Tensor, teacher_mean: Tensor, teacher_log_variance: Tensor
) -> Tensor:
    """-E[ln N(t; mean, variance)] for t drawn from the teacher's Gaussian, per dimension, (B,) nats.

    1/2 [ln 2 pi + ln var + (teacher var + (mean - teacher mean)^2) / var], averaged.
    """
    mean, teacher_mean = mean.float(), teacher_mean.float()
    spread = teacher_log_variance.exp() + (mean - teacher_mean).square()
    return 0.5 * (math.log(2.0 * math.pi) + log_variance + spread * (-log_variance).exp()).mean(dim=1)


def gaussian_sample(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """mean + deviation * noise, elementwise: a reparametrised draw, (B, D)."""
    return mean.float() + (0.5 * log_variance).exp() * noise
