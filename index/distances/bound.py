"""Gaussians -> a lower bound of an overlap distance that is one inner product of 5D + 1.

For the overlap distances

    D = q sum (m - mu)^2 / (s + v)  +  1/2 sum ln(s + v)  +  constants

1/(s + v) has no finite rank. With w = 1/(v + t), t a typical variance, and c = s - t,

    1/(s + v)  =  w / (1 + c w)            convex in w for c < 0, concave for c > 0
    ln(s + v)  =  -ln w + ln(1 + c w)      whose last term is concave

so over the items' range of w a tangent (convex) or a chord (concave) a + b w lies below. The
items then enter only through (mu, mu^2, w, w mu, w mu^2, sum ln(v + t)). A convex term that is
bounded by its tangent at the geometric middle of the range is bounded everywhere, so the bound
stays true whatever is rounded; it is merely loosest at the ends.

Shape letters: Q queries, N items, D dimension.
"""

from __future__ import annotations

import numpy as np

from index.arrays import Float64s
from index.distances.encoding import columns
from index.distances.parameters import Densities


def encode_items(items: Densities, typical: Float64s, extra: Float64s) -> Float64s:
    """Return psi (N, 5D + 1); `extra` (N,) is added to the items' own last column."""
    mu, w = items.mean, 1.0 / (items.variance + typical)
    last = np.log(items.variance + typical).sum(axis=1) + extra
    return columns(mu, mu**2, w, w * mu, w * mu**2, last)


def encode_queries(
    queries: Densities, typical: Float64s, low: Float64s, high: Float64s, quadratic: float
) -> tuple[Float64s, Float64s]:
    """Return phi (Q, 5D + 1) and offsets (Q,) for items whose variances lie in [low, high].

    quadratic is q above; offset - phi.psi is at most q sum (..) + 1/2 sum ln(s + v) + extra/2.
    """
    m, s = queries.mean, queries.variance
    near, far = 1.0 / (high + typical), 1.0 / (low + typical)  # the range of w
    a, b = inverse_line(s, typical, low, high, near, far)
    log_a, log_b = log_line(s, low, high, near, far)
    offset = (quadratic * a * m**2 + 0.5 * log_a).sum(axis=1)
    phi = columns(
        2 * quadratic * a * m,
        -quadratic * a,
        -(quadratic * b * m**2 + 0.5 * log_b),
        2 * quadratic * b * m,
        -quadratic * b,
        np.full(len(m), -0.5),
    )
    return phi, offset


def inverse_line(
    s: Float64s, typical: Float64s, low: Float64s, high: Float64s, near: Float64s, far: Float64s
) -> tuple[Float64s, Float64s]:
    """Return (a, b), each (Q, D), with 1/(s + v) >= a + b w for v in [low, high]."""
    chord_a, chord_b = _chord(1.0 / (s + high), 1.0 / (s + low), near, far)
    middle = np.sqrt(near * far)
    c = s - typical
    scale = 1.0 + c * middle
    slope = 1.0 / scale**2
    tangent_a = middle / scale - slope * middle
    convex = c < 0
    return np.where(convex, tangent_a, chord_a), np.where(convex, slope, chord_b)


def log_line(
    s: Float64s, low: Float64s, high: Float64s, near: Float64s, far: Float64s
) -> tuple[Float64s, Float64s]:
    """Return (a, b), each (Q, D), with ln((s + v) w) >= a + b w for v in [low, high]."""
    return _chord(np.log((s + high) * near), np.log((s + low) * far), near, far)


def _chord(at_near: Float64s, at_far: Float64s, near: Float64s, far: Float64s) -> tuple[Float64s, Float64s]:
    """Return the line through (near, at_near) and (far, at_far); the lower value where they meet."""
    width = far - near
    flat = width <= 1e-12 * far
    slope = (at_far - at_near) / np.where(flat, np.inf, width)
    return np.where(flat, np.minimum(at_near, at_far), at_near - slope * near), slope
