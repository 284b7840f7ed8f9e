"""Gaussians -> expected squared distance of draws, and cost of moving one onto the other.

Query N(m, diag s), item N(mu, diag v). Shape letters: Q queries, N items, D dimension.
"""

from __future__ import annotations

import numpy as np

from index.arrays import Float64s
from index.distances.encoding import Anchor, Distance, QueryEncoding, columns, square_root
from index.distances.parameters import Densities, DistanceParameters


def expected(query: Densities, item: Densities, parameters: DistanceParameters) -> Float64s:
    """Return E|z_q - z_x|^2 = |m - mu|^2 + sum s + sum v, a squared distance.

    The closed-form sampled distance of PCME++ (Chun, ICLR 2024): uncertain items are far.
    """
    apart = ((query.mean - item.mean) ** 2).sum(axis=-1)
    distance: Float64s = apart + query.variance.sum(axis=-1) + item.variance.sum(axis=-1)
    return distance


def _expected_items(items: Densities, anchor: Anchor, parameters: DistanceParameters) -> Float64s:
    mu = items.mean - anchor.centre
    return columns(mu, -(mu**2 + items.variance).sum(axis=1))


def _expected_queries(queries: Densities, anchor: Anchor, parameters: DistanceParameters) -> QueryEncoding:
    m = queries.mean - anchor.centre
    return columns(2 * m, np.ones(len(m))), (m**2 + queries.variance).sum(axis=1)


def wasserstein(query: Densities, item: Densities, parameters: DistanceParameters) -> Float64s:
    """Return the 2-Wasserstein distance itself, sqrt(|m - mu|^2 + sum (sqrt s - sqrt v)^2).

    The root, not its square: it is a metric. Items as uncertain as the query are near.
    """
    apart = ((query.mean - item.mean) ** 2).sum(axis=-1)
    spread = ((np.sqrt(query.variance) - np.sqrt(item.variance)) ** 2).sum(axis=-1)
    distance: Float64s = np.sqrt(apart + spread)
    return distance


def _wasserstein_items(items: Densities, anchor: Anchor, parameters: DistanceParameters) -> Float64s:
    # Euclidean in (mean, sd), about the items' centre and their typical sd.
    mu = items.mean - anchor.centre
    sd = np.sqrt(items.variance) - np.sqrt(anchor.typical)
    return columns(mu, sd, -(mu**2 + sd**2).sum(axis=1))


def _wasserstein_queries(queries: Densities, anchor: Anchor, parameters: DistanceParameters) -> QueryEncoding:
    m = queries.mean - anchor.centre
    sd = np.sqrt(queries.variance) - np.sqrt(anchor.typical)
    return columns(2 * m, 2 * sd, np.ones(len(m))), (m**2 + sd**2).sum(axis=1)


DISTANCES = (
    Distance("expected", expected, _expected_items, _expected_queries),
    Distance("wasserstein", wasserstein, _wasserstein_items, _wasserstein_queries, square_root),
)
