"""Distances of the neighbours found -> how near each lies compared with the nearest: what its word weighs.

Where a kind has few images, the nearest may be right and all further ones of other kinds, far away; where it has
many, twenty lie about as near. So a neighbour weighs (nearest / its distance)^4, and the same weights serve both.
docs/measurements/encoders.md has the comparison. Shape letters: Q queries, K neighbours.
"""

from __future__ import annotations

import numpy as np

from index.arrays import Float64s

RATIO = 0.25  # the difference of logarithms at which a neighbour's weight has fallen to 1 / e
SHARE = 0.4  # of how much further than the nearest the last one lies, where there is no logarithm
TINY = 1e-12


def length_scale(distance: Float64s, *, signed: bool) -> float:
    """Return by how much more than the nearest (Q, K) a neighbour lies away whose weight has fallen to 1 / e.

    In logarithms; where the distance may be negative (signed), in its unit: a share of how much further than the
    nearest the last one typically lies.
    """
    if not signed:
        return RATIO
    gaps = np.where(np.isfinite(distance), _beyond(distance), 0.0)
    return max(TINY, SHARE * float(np.median(gaps.max(axis=1, initial=0.0)))) if len(gaps) else 1.0


def nearness(distance: Float64s, length: float, *, signed: bool) -> Float64s:
    """Return the weights (Q, K): 1 for the nearest, towards 0 the further a neighbour lies, 0 for none."""
    reach = distance if signed else np.log(np.maximum(distance, TINY))
    weight: Float64s = np.exp(-_beyond(reach) / length)
    return weight


def _beyond(reach: Float64s) -> Float64s:
    there = np.isfinite(reach)
    finite = np.where(there, reach, 0.0)
    return np.where(there, finite - finite[:, :1], np.inf)
