"""Query mean, item Gaussian -> how many of the item's own deviations lie between.

Point query m, item N(mu, diag v); variances floored. The query's variance is not read. Shape
letters: Q queries, N items, D dimension.
"""

from __future__ import annotations

import math

import numpy as np

from index.arrays import Float64s
from index.distances.encoding import Anchor, Distance, QueryEncoding, columns, square_root
from index.distances.parameters import Densities, DistanceParameters


def _squared(query: Densities, item: Densities) -> Float64s:
    squared: Float64s = ((query.mean - item.mean) ** 2 / item.variance).sum(axis=-1)
    return squared


def mahalanobis(query: Densities, item: Densities, parameters: DistanceParameters) -> Float64s:
    """Return sqrt(sum (m - mu)^2 / v), the distance itself, not its square.

    Without a logarithm of the determinant the widest items are near to everything.
    """
    distance: Float64s = np.sqrt(_squared(query, item))
    return distance


def student_t(query: Densities, item: Densities, parameters: DistanceParameters) -> Float64s:
    """Return the negative log density of m under a multivariate Student-t at the item, in nats.

    Location mu, scale diag v, `parameters.dof` degrees of freedom nu:
    (nu + D)/2 ln(1 + M/nu) + 1/2 sum ln v + constant, M the squared Mahalanobis distance.
    """
    dof, dim = parameters.dof, item.mean.shape[-1]
    log_determinant = np.log(item.variance).sum(axis=-1)
    distance: Float64s = (
        0.5 * (dof + dim) * np.log1p(_squared(query, item) / dof)
        + 0.5 * log_determinant
        + _constant(dof, dim)
    )
    return distance


def _constant(dof: float, dim: int) -> float:
    return math.lgamma(dof / 2) - math.lgamma((dof + dim) / 2) + 0.5 * dim * math.log(dof * math.pi)


def _mahalanobis_items(items: Densities, anchor: Anchor, parameters: DistanceParameters) -> Float64s:
    mu, v = items.mean - anchor.centre, items.variance
    return columns(-1.0 / v, 2 * mu / v, -(mu**2 / v).sum(axis=1))


def _point_queries(queries: Densities, anchor: Anchor, parameters: DistanceParameters) -> QueryEncoding:
    m = queries.mean - anchor.centre
    return columns(m**2, m, np.ones(len(m))), np.zeros(len(m))


def _student_items(items: Densities, anchor: Anchor, parameters: DistanceParameters) -> Float64s:
    # (nu + M) g with g = exp(sum ln(v/typical) / (nu + D)) is linear in (m^2, m, 1) and
    # increases with the negative log density; the ratio to the typical variance keeps g near 1.
    mu, v, dof = items.mean - anchor.centre, items.variance, parameters.dof
    g = np.exp(np.log(v / anchor.typical).sum(axis=1) / (dof + v.shape[1]))[:, None]
    rest = (dof + (mu**2 / v).sum(axis=1)) * g[:, 0]
    return columns(-g / v, 2 * g * mu / v, -rest)


def _student_decode(value: Float64s, anchor: Anchor, parameters: DistanceParameters) -> Float64s:
    dof, dim = parameters.dof, len(anchor.typical)
    # Rounding may push a bound to or below zero, where the logarithm ends: no bound at all.
    log = np.log(np.maximum(value, np.finfo(np.float64).tiny) / dof)
    constant = 0.5 * np.log(anchor.typical).sum() + _constant(dof, dim)
    distance: Float64s = 0.5 * (dof + dim) * log + constant
    return distance


DISTANCES = (
    Distance("mahalanobis", mahalanobis, _mahalanobis_items, _point_queries, square_root, floors=True),
    Distance("student-t", student_t, _student_items, _point_queries, _student_decode, floors=True),
)
