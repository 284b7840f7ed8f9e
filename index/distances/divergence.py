"""Gaussians -> Kullback-Leibler divergence either way, and Jeffreys' sum of both.

Query q = N(m, diag s), item x = N(mu, diag v); variances floored. Members of an exponential
family have a divergence that is linear in the sufficient statistics of one side, so each is one
inner product. Shape letters: Q queries, N items, D dimension.
"""

from __future__ import annotations

import numpy as np

from index.arrays import Float64s
from index.distances.encoding import Anchor, Distance, QueryEncoding, columns
from index.distances.parameters import Densities, DistanceParameters


def kl(query: Densities, item: Densities, parameters: DistanceParameters) -> Float64s:
    """Return KL(query || item) in nats: 1/2 sum [s/v + (m - mu)^2/v - 1 - ln(s/v)].

    Forgives wide items, which makes hubs of them.
    """
    ratio = query.variance / item.variance
    squares = (query.mean - item.mean) ** 2 / item.variance
    # s/v - 1 - ln(s/v) by expm1 of the logarithm keeps its digits where s and v nearly agree.
    log = np.log(ratio)
    divergence: Float64s = 0.5 * (np.expm1(log) - log + squares).sum(axis=-1)
    return divergence


def reverse_kl(query: Densities, item: Densities, parameters: DistanceParameters) -> Float64s:
    """Return KL(item || query) in nats: prefers items no wider than the query."""
    return kl(item, query, parameters)


def jeffreys(query: Densities, item: Densities, parameters: DistanceParameters) -> Float64s:
    """Return KL(query || item) + KL(item || query) in nats; symmetric."""
    return kl(query, item, parameters) + kl(item, query, parameters)


def _kl_items(items: Densities, anchor: Anchor, parameters: DistanceParameters) -> Float64s:
    mu, v = items.mean - anchor.centre, items.variance
    return columns(-0.5 / v, mu / v, -0.5 * (mu**2 / v + np.log(v)).sum(axis=1))


def _kl_queries(queries: Densities, anchor: Anchor, parameters: DistanceParameters) -> QueryEncoding:
    m, s = queries.mean - anchor.centre, queries.variance
    return columns(s + m**2, m, np.ones(len(m))), -0.5 * (1.0 + np.log(s)).sum(axis=1)


def _reverse_items(items: Densities, anchor: Anchor, parameters: DistanceParameters) -> Float64s:
    mu, v = items.mean - anchor.centre, items.variance
    return columns(-0.5 * (v + mu**2), mu, 0.5 * np.log(v).sum(axis=1))


def _reverse_queries(queries: Densities, anchor: Anchor, parameters: DistanceParameters) -> QueryEncoding:
    m, s = queries.mean - anchor.centre, queries.variance
    offset: Float64s = 0.5 * (m**2 / s - 1.0 + np.log(s)).sum(axis=1)
    return columns(1.0 / s, m / s, np.ones(len(m))), offset


def _jeffreys_items(items: Densities, anchor: Anchor, parameters: DistanceParameters) -> Float64s:
    # The logarithms of the two directions cancel, which leaves 4D + 1 columns.
    mu, v = items.mean - anchor.centre, items.variance
    return columns(-0.5 / v, mu / v, -0.5 * (v + mu**2), mu, -0.5 * (mu**2 / v).sum(axis=1))


def _jeffreys_queries(queries: Densities, anchor: Anchor, parameters: DistanceParameters) -> QueryEncoding:
    m, s = queries.mean - anchor.centre, queries.variance
    offset: Float64s = (0.5 * m**2 / s - 1.0).sum(axis=1)
    return columns(s + m**2, m, 1.0 / s, m / s, np.ones(len(m))), offset


DISTANCES = (
    Distance("kl", kl, _kl_items, _kl_queries, floors=True),
    Distance("reverse-kl", reverse_kl, _reverse_items, _reverse_queries, floors=True),
    Distance("jeffreys", jeffreys, _jeffreys_items, _jeffreys_queries, floors=True),
)
