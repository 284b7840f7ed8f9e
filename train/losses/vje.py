"""VJE: a posterior of one view and the embedding of the other -> (B,) log-likelihoods and KL.

A reconstruction from the abstract of Oji and Fieguth, "Joint Embedding Variational Bayes"
(arXiv 2602.05639): a heavy-tailed Student-t likelihood on a polar form of the target, its
direction and its radius apart, scaled by the posterior's own variances. The formulas are ours.
All arithmetic is in float32. Shape letters: B batch, D dimension.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FLOOR = 1e-6
"""Smallest norm that is divided by or whose logarithm is taken."""


def direction_distance(sample: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    """q = sum (u - a)^2 / scale of the directions a of sample and u of target, (B,).

    sample, target: (B, D); scale: (B, D), the diagonal of the scale matrix. It lies between 0 and
    4 over the least scale.
    """
    sample, target = sample.float(), target.float()
    a = sample / sample.norm(dim=1, keepdim=True).clamp(min=FLOOR)
    u = target / target.norm(dim=1, keepdim=True).clamp(min=FLOOR)
    q: Tensor = ((u - a).square() / scale.float()).sum(dim=1)
    return q


def direction_log_density(
    sample: Tensor, target: Tensor, scale: Tensor, degrees: float, *, constants: bool = False
) -> Tensor:
    """ln of a multivariate Student-t at the target's direction, (B,).

    sample, target: (B, D), of which only the directions a and u count; scale: (B, D), the
    diagonal of the scale matrix. With q their direction_distance:
    -1/2 sum ln scale - (degrees + D)/2 ln(1 + q / degrees), plus the terms without parameters
    when `constants`. One heavy tail for the whole vector: with a product of univariate ones
    every residual is tiny and the tail never shows.
    """
    dim = sample.shape[1]
    q = direction_distance(sample, target, scale)
    value = -0.5 * scale.float().log().sum(dim=1) - 0.5 * (degrees + dim) * torch.log1p(q / degrees)
    if constants:
        value = value + (
            math.lgamma((degrees + dim) / 2)
            - math.lgamma(degrees / 2)
            - dim / 2 * math.log(degrees * math.pi)
        )
    return value


def radius_log_density(
    sample: Tensor, target: Tensor, log_scale: Tensor, degrees: float, *, constants: bool = False
) -> Tensor:
    """ln of a Student-t at the target's log radius, centred at the sample's, (B,).

    log_scale: scalar, the logarithm of its one scale. With e the difference over the scale:
    -log_scale - (degrees + 1)/2 ln(1 + e^2 / degrees).
    """
    radii = [x.float().norm(dim=1).clamp(min=FLOOR).log() for x in (target, sample)]
    error = (radii[0] - radii[1]) * (-log_scale).exp()
    value = -log_scale - 0.5 * (degrees + 1.0) * torch.log1p(error.square() / degrees)
    if constants:
        value = value + (
            math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)
        )
    return value


def standard_normal_kl(mean: Tensor, variance: Tensor) -> Tensor:
    """KL of N(mean, variance) from N(0, 1), summed over dimensions: (B,) nats."""
    mean, variance = mean.float(), variance.float()
    return 0.5 * (variance + mean.square() - 1.0 - variance.log()).sum(dim=1)
