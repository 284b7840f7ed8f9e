"""Means -> the same means in directions along which they vary alike.

A few directions carry most of what tells the means of a trained encoder apart, and cosine sees little
else. Divided by how much the gallery varies along each principal direction (PCA whitening), a pair is near
only when it agrees in all of them: what a copy does and another image of the same kind does not.

Shape letters: N items, D embedding dimension.
"""

from __future__ import annotations

import numpy as np

from index.arrays import Bools, Float64s, Int64s
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import GaussianEmbedding

LEAST = 10  # items a dimension: of fewer the covariance is not known well enough to divide by
SMALLEST = 1e-6  # of the largest variance: a direction that varies less is left as small as it is
ROUNDING = 1e-13  # variance along a direction that means of float32 have by rounding alone
BLOCK = 1 << 15


def whitened(items: Vectors, alive: Bools) -> GaussianEmbedding | None:
    """Return the directions of the means (N, D), whitened and of length one, with variances that mean nothing.

    Their mean and covariance are those of the items that are alive (N,). None where fewer than ten a
    dimension are, or all are alike.
    """
    rows = np.flatnonzero(alive)
    if len(rows) < LEAST * items.dim:
        return None
    blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    centre = sum(_directions(items, block).sum(axis=0) for block in blocks) / len(rows)
    covariance = np.zeros((items.dim, items.dim))
    for block in blocks:
        apart = _directions(items, block) - centre
        covariance += apart.T @ apart
    values, directions = np.linalg.eigh(covariance / len(rows))
    if values[-1] < ROUNDING:
        return None
    turn = directions / np.sqrt(np.maximum(values, SMALLEST * values[-1]))
    means = np.empty((len(items), items.dim), np.float32)
    for start in range(0, len(items), BLOCK):
        here = np.arange(start, min(len(items), start + BLOCK))
        turned = (_directions(items, here) - centre) @ turn
        length = np.linalg.norm(turned, axis=1, keepdims=True)
        means[here] = turned / np.where(length > 0, length, 1.0)
    return GaussianEmbedding(means, np.broadcast_to(np.float32(1), means.shape))


def _directions(items: Vectors, rows: Int64s) -> Float64s:
    means = items.means(rows).astype(np.float64)
    length = np.linalg.norm(means, axis=1, keepdims=True)
    directions: Float64s = means / np.where(length > 0, length, 1.0)
    return directions
