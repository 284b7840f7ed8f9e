"""Gaussians -> how much their densities overlap: mutual likelihood and Bhattacharyya.

Query N(m, diag s), item N(mu, diag v); variances floored. Both couple s + v in every dimension,
so they are searched by the lower bound of `bound` and evaluated in its order. Shape letters:
Q queries, N items, D dimension.
"""

from __future__ import annotations

import math

import numpy as np

from index.arrays import Float64s
from index.distances import bound
from index.distances.encoding import Anchor, Distance, QueryEncoding
from index.distances.parameters import Densities, DistanceParameters


def mls(query: Densities, item: Densities, parameters: DistanceParameters) -> Float64s:
    """Return the negative mutual likelihood score in nats, -ln N(m; mu, s + v).

    1/2 sum [(m - mu)^2/(s + v) + ln(s + v)] + D/2 ln 2 pi (Shi and Jain, ICCV 2019). An item is
    not nearest to itself: a sharper one may be nearer. Not bounded below by zero.
    """
    total = query.variance + item.variance
    terms = (query.mean - item.mean) ** 2 / total + np.log(total)
    distance: Float64s = 0.5 * terms.sum(axis=-1) + 0.5 * terms.shape[-1] * math.log(2 * math.pi)
    return distance


def bhattacharyya(query: Densities, item: Densities, parameters: DistanceParameters) -> Float64s:
    """Return -ln of the Bhattacharyya coefficient, integral sqrt(q x), in nats; 0 for q = x.

    1/4 sum (m - mu)^2/(s + v) + 1/2 sum ln((s + v) / (2 sqrt(s v))). Hellinger's squared
    distance 1 - exp(-this) ranks alike.
    """
    s, v = query.variance, item.variance
    terms = (query.mean - item.mean) ** 2 / (s + v)
    logs = np.log((s + v) / (2 * np.sqrt(s) * np.sqrt(v)))
    distance: Float64s = 0.25 * terms.sum(axis=-1) + 0.5 * logs.sum(axis=-1)
    return distance


def _shifted(densities: Densities, anchor: Anchor) -> Densities:
    return Densities(densities.mean - anchor.centre, densities.variance)


def _mls_items(items: Densities, anchor: Anchor, parameters: DistanceParameters) -> Float64s:
    return bound.encode_items(_shifted(items, anchor), anchor.typical, np.zeros(len(items.mean)))


def _mls_queries(queries: Densities, anchor: Anchor, parameters: DistanceParameters) -> QueryEncoding:
    shifted = _shifted(queries, anchor)
    phi, offset = bound.encode_queries(shifted, anchor.typical, anchor.low, anchor.high, 0.5)
    return phi, offset + 0.5 * queries.mean.shape[1] * math.log(2 * math.pi)


def _bhattacharyya_items(items: Densities, anchor: Anchor, parameters: DistanceParameters) -> Float64s:
    extra = -0.5 * np.log(items.variance).sum(axis=1)
    return bound.encode_items(_shifted(items, anchor), anchor.typical, extra)


def _bhattacharyya_queries(
    queries: Densities, anchor: Anchor, parameters: DistanceParameters
) -> QueryEncoding:
    shifted = _shifted(queries, anchor)
    phi, offset = bound.encode_queries(shifted, anchor.typical, anchor.low, anchor.high, 0.25)
    own = -0.25 * np.log(queries.variance).sum(axis=1) - 0.5 * queries.mean.shape[1] * math.log(2)
    return phi, offset + own


DISTANCES = (
    Distance("mls", mls, _mls_items, _mls_queries, floors=True, bounds=True),
    Distance(
        "bhattacharyya",
        bhattacharyya,
        _bhattacharyya_items,
        _bhattacharyya_queries,
        floors=True,
        bounds=True,
    ),
)
