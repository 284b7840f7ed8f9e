"""A gallery of normal images -> how foreign other images are to it, by scores side by side.

Higher is more foreign. Predicted variance alone is no detector of the foreign; nearness and
likelihood are. Shape letters: Q queries, K neighbours, N items, D embedding dimension, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.distances import DistanceParameters, gathered
from index.evaluation.vote import without
from index.search.exact import ExactIndex
from vssl.embeddings.gaussian import GaussianEmbedding

Rows = NDArray[np.int64]
Doubles = NDArray[np.float64]
NEAREST = 2  # as in mean-shifted contrastive learning's score (Reiss and Hoshen, 2021)
SHRINKAGE = 1e-2  # of a covariance towards a multiple of the identity


@dataclass(frozen=True, eq=False)
class Scores:
    """How foreign each query is, (Q,) each.

    knn: the mean cosine distance of the k nearest items; likelihood: minus the logarithm of the
    mean expected likelihood between the query and those items, which reads the variances;
    uncertainty: the query's own, which asks no gallery.
    """

    knn: Doubles
    likelihood: Doubles
    uncertainty: Doubles


def score(
    index: ExactIndex,
    queries: GaussianEmbedding,
    uncertainty: Doubles,
    *,
    k: int = NEAREST,
    own: Rows | None = None,
    keep: NDArray[np.bool_] | None = None,
    parameters: DistanceParameters | None = None,
) -> Scores:
    """Score queries (as compared) against an index by cosine, each query's `own` row left out."""
    itself = np.full(len(queries), -1, np.int64) if own is None else own
    distances, rows = index.search(queries, k + 1, keep=keep)
    rows, distances = without(rows, distances, itself, k)
    there = rows >= 0
    found = np.maximum(there.sum(axis=1), 1)
    knn = np.where(there.any(axis=1), np.where(there, distances, 0.0).sum(axis=1) / found, np.inf)
    likelihood = -gathered("mls", queries, index.items, rows, parameters)
    return Scores(knn, -_log_mean(likelihood, found), uncertainty)


def _log_mean(logarithms: Doubles, counts: Rows) -> Doubles:
    """Return ln of the mean of exp, over the last axis; missing ones are minus infinity."""
    highest = logarithms.max(axis=1, keepdims=True)
    shift = np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore"):
        mean: Doubles = np.log(np.exp(logarithms - shift).sum(axis=1) / counts) + shift[:, 0]
    return mean


def mahalanobis(items: GaussianEmbedding, codes: Rows, queries: GaussianEmbedding) -> Doubles:
    """Return (Q,): the distance to the nearest class mean under the classes' shared covariance.

    codes (N,) number the classes, -1 unknown; without classes all items are one (Lee et al.,
    NeurIPS 2018). The covariance of the means is shrunk by a hundredth towards the identity.
    """
    mean = items.mean.astype(np.float64)
    codes = codes if (codes >= 0).any() else np.zeros(len(items), np.int64)
    mean, codes = mean[codes >= 0], codes[codes >= 0]
    _, numbers = np.unique(codes, return_inverse=True)
    counts = np.bincount(numbers)
    centres = np.zeros((len(counts), mean.shape[1]))
    np.add.at(centres, numbers, mean)
    centres /= counts[:, None]
    residual = mean - centres[numbers]
    covariance = residual.T @ residual / max(1, len(mean) - len(counts))
    size = max(float(np.trace(covariance)) / len(covariance), 1e-12)
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * size * np.eye(len(covariance))
    root = np.linalg.inv(np.linalg.cholesky(covariance))
    white, targets = queries.mean.astype(np.float64) @ root.T, centres @ root.T
    squares = (white**2).sum(axis=1)[:, None] - 2 * white @ targets.T + (targets**2).sum(axis=1)
    distance: Doubles = np.sqrt(np.maximum(squares.min(axis=1), 0.0))
    return distance
