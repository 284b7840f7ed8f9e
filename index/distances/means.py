"""Means -> cosine and Euclidean distance; the variance is not read.

These are the controls that every distance on variances is measured against. Shape letters:
Q queries, N items, D embedding dimension.
"""

from __future__ import annotations

import numpy as np

from index.arrays import Bools, Float64s
from index.distances.encoding import Anchor, Distance, QueryEncoding, columns, square_root
from index.distances.parameters import Densities, DistanceParameters


def _unit(mean: Float64s) -> Float64s:
    """Divide by the norm; the zero vector has no direction and stays zero."""
    return _directions(mean)[0]


def _directions(mean: Float64s) -> tuple[Float64s, Bools]:
    """Return (..., D) of length one, and (...) whether there is a direction at all."""
    norm = np.sqrt(np.square(mean).sum(axis=-1, keepdims=True))
    there = norm > 0
    return mean / (norm if there.all() else np.where(there, norm, 1.0)), there[..., 0]


def cosine(query: Densities, item: Densities, parameters: DistanceParameters) -> Float64s:
    """Return 1 - cos(m, mu), in [0, 2]; 1 where either mean is the zero vector.

    Computed as half the squared chord between the directions, which keeps its digits for
    directions that nearly agree.
    """
    (a, here), (b, there) = _directions(query.mean), _directions(item.mean)
    apart = a - b
    half: Float64s = np.square(apart, out=apart).sum(axis=-1) / 2
    if here.all() and there.all():
        return half
    # A missing direction has no chord: its square is short by the missing unit length.
    distance: Float64s = half + (1.0 - (here.astype(np.float64) + there) / 2)
    return distance


def _cosine_items(items: Densities, anchor: Anchor, parameters: DistanceParameters) -> Float64s:
    return _unit(items.mean)


def _cosine_queries(queries: Densities, anchor: Anchor, parameters: DistanceParameters) -> QueryEncoding:
    return _unit(queries.mean), np.ones(len(queries.mean))


def euclidean(query: Densities, item: Densities, parameters: DistanceParameters) -> Float64s:
    """Return |m - mu|."""
    apart = query.mean - item.mean
    distance: Float64s = np.sqrt(np.square(apart, out=apart).sum(axis=-1))
    return distance


def _euclidean_items(items: Densities, anchor: Anchor, parameters: DistanceParameters) -> Float64s:
    mu = items.mean - anchor.centre
    return columns(mu, -(mu**2).sum(axis=1))


def _euclidean_queries(queries: Densities, anchor: Anchor, parameters: DistanceParameters) -> QueryEncoding:
    m = queries.mean - anchor.centre
    return columns(2 * m, np.ones(len(m))), (m**2).sum(axis=1)


DISTANCES = (
    Distance("cosine", cosine, _cosine_items, _cosine_queries, spreads=False),
    Distance("euclidean", euclidean, _euclidean_items, _euclidean_queries, square_root, spreads=False),
)
