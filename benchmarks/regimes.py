"""Gaussians whose variances spread as real ones may: a little, a lot, and between clamps.

mild: the images' log standard deviations of variance are 0.4, the dimensions' 0.3, trace about
0.3; wide: 1.2 and 0.8; clamp: ln v uniform in [-10, 2].
"""

from __future__ import annotations

import numpy as np

from vssl.embeddings.gaussian import GaussianEmbedding

REGIMES = ("mild", "wide", "clamp")


def gaussians(
    count: int, dim: int, *, regime: str = "mild", seed: int = 0, groups: int = 0, spread: float = 0.02
) -> GaussianEmbedding:
    """Return `count` Gaussians with means of unit norm, in `groups` of near-duplicates if any."""
    random = np.random.default_rng(seed)
    mean = random.normal(size=(groups or count, dim))
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    if groups:
        mean = mean[random.integers(0, groups, count)] + random.normal(0, spread, (count, dim)) / dim**0.5
    if regime == "clamp":
        log = random.uniform(-10, 2, (count, dim))
    else:
        common, own = (0.4, 0.3) if regime == "mild" else (1.2, 0.8)
        log = random.normal(0, common, (count, 1)) + random.normal(0, own, (count, dim)) + np.log(0.3 / dim)
    return GaussianEmbedding(mean.astype(np.float32), np.exp(log).astype(np.float32))


def shifted(embedding: GaussianEmbedding, offset: float) -> GaussianEmbedding:
    """Return the Gaussians with one common vector of norm `offset` added to every mean."""
    direction = np.ones(embedding.dim, np.float32) / np.float32(embedding.dim**0.5)
    return GaussianEmbedding(embedding.mean + np.float32(offset) * direction, embedding.variance)
