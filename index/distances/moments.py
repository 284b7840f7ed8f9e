"""Two Gaussians -> the law of the squared distance of their draws, and chances read off it.

D = |z_q - z_x|^2 is a generalised chi-square: per dimension the gap is N(m - mu, s + v). Its
first three cumulants have closed forms, and a shifted gamma with the same three stands in for it
(within 1e-4 of the distribution function at 256 dimensions of like variances). Gaussians
broadcast against each other over their leading axes. Shape letter: D dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from index.distances.parameters import Densities, Float64s

NODES = 16
LEAST_SKEW = 1e-6  # a smaller skewness is taken for this, so that the gamma's shape stays finite


@dataclass(frozen=True, eq=False)
class ShiftedGamma:
    """D ~ shift + Gamma(shape, scale), arrays of one shape."""

    shift: Float64s
    shape: Float64s
    scale: Float64s

    def below(self, squared: Float64s | float) -> Float64s:
        """Return P(D < squared)."""
        return incomplete_gamma(self.shape, np.maximum((squared - self.shift) / self.scale, 0.0))

    def quantile_nodes(self) -> tuple[Float64s, Float64s]:
        """Return values of D on a last axis of 16, and their weights: a quadrature of E f(D).

        Gauss and Hermite's normal nodes through Wilson and Hilferty's cube, which turns a normal
        draw into a gamma one.
        """
        z, weight = np.polynomial.hermite_e.hermegauss(NODES)
        k = self.shape[..., None]
        cube = np.maximum(1 - 1 / (9 * k) + z / (3 * np.sqrt(k)), 0.0) ** 3
        nodes = self.shift[..., None] + self.scale[..., None] * k * cube
        return np.maximum(nodes, 0.0), weight / weight.sum()


def cumulants(query: Densities, item: Densities) -> tuple[Float64s, Float64s, Float64s]:
    """Return the mean, variance and third cumulant of D, each of the leading shape.

    kappa_r = 2^(r-1) (r-1)! sum [c^r + r c^(r-1) (m - mu)^2], c = s + v.
    """
    c = query.variance + item.variance
    square = (query.mean - item.mean) ** 2
    first: Float64s = (c + square).sum(axis=-1)
    second: Float64s = 2 * (c**2 + 2 * c * square).sum(axis=-1)
    third: Float64s = 8 * (c**3 + 3 * c**2 * square).sum(axis=-1)
    return first, second, third


def squared_distance(query: Densities, item: Densities) -> ShiftedGamma:
    """Return the shifted gamma of the same mean, variance and skewness as D."""
    mean, variance, third = cumulants(query, item)
    skew = np.maximum(third / variance**1.5, LEAST_SKEW)
    shape = 4 / skew**2
    scale = np.sqrt(variance / shape)
    return ShiftedGamma(mean - shape * scale, shape, scale)


def match_chance(query: Densities, item: Densities, slope: float, offset: float) -> Float64s:
    """Return E sigmoid(offset - slope |z_q - z_x|), the match probability of HIB and PCME.

    (Oh et al., ICLR 2019.) Sixteen-point quadrature instead of sampling.
    """
    nodes, weight = squared_distance(query, item).quantile_nodes()
    logit = offset - slope * np.sqrt(nodes)
    chance: Float64s = (weight / (1 + np.exp(-np.clip(logit, -700, 700)))).sum(axis=-1)
    return chance


def incomplete_gamma(a: Float64s, x: Float64s) -> Float64s:
    """Return the regularised lower incomplete gamma function P(a, x), elementwise, a > 0, x >= 0.

    The series below a + 1, the continued fraction above (Numerical Recipes, 6.2); for large a
    Wilson and Hilferty's normal approximation, which is within 1e-6 there.
    """
    a, x = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(x, np.float64))
    result = np.empty(a.shape)
    large = a > 1e4
    z = 3 * np.sqrt(a) * (np.cbrt(x / a) - 1 + 1 / (9 * a))
    result[large] = _normal(z[large])
    low = ~large & (x < a + 1)
    high = ~large & ~low
    result[low] = _series(a[low], x[low])
    result[high] = 1 - _fraction(a[high], x[high])
    return result


_log_gamma = np.vectorize(math.lgamma, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _normal(z: Float64s) -> Float64s:
    cumulative: Float64s = 0.5 * _erfc(-z / math.sqrt(2)) if z.size else z
    return cumulative


def _front(a: Float64s, x: Float64s) -> Float64s:
    with np.errstate(divide="ignore", under="ignore"):
        front: Float64s = np.exp(a * np.log(x) - x - _log_gamma(a))
    return front


def _series(a: Float64s, x: Float64s) -> Float64s:
    if not a.size:
        return a
    term = 1 / a
    total = term.copy()
    for n in range(1, 2000):
        term = term * x / (a + n)
        total += term
        if (term <= total * 1e-16).all():
            break
    return total * _front(a, x)


def _fraction(a: Float64s, x: Float64s) -> Float64s:
    if not a.size:
        return a
    smallest = 1e-300
    b = x + 1 - a
    c, d = np.full_like(a, 1 / smallest), 1 / b
    h = d.copy()
    for n in range(1, 2000):
        weight = -n * (n - a)
        b = b + 2
        d = weight * d + b
        d = 1 / np.where(np.abs(d) < smallest, smallest, d)
        c = b + weight / c
        c = np.where(np.abs(c) < smallest, smallest, c)
        h *= d * c
        if (np.abs(d * c - 1) < 1e-15).all():
            break
    return h * _front(a, x)
