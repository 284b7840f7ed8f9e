"""Which neighbours are relevant -> how good the order is.

Every function takes `relevant` (Q, K) bool, the neighbours of each query nearest first, and
returns one number per query, so that the caller averages them and bootstraps over queries.
Shape letters: Q queries, K neighbours, N items.
"""

from __future__ import annotations

import numpy as np

from index.arrays import Bools, Float64s, Int64s


def hit_at(relevant: Bools, k: int) -> Float64s:
    """Say for each query whether any of its k nearest neighbours is relevant; recall@k is the mean.

    recall@k  =  1/Q sum_q  [ relevant_q1 or ... or relevant_qk ]

    >>> hit_at(np.array([[False, True, False], [False, False, True]]), 2)
    array([1., 0.])
    """
    hits: Float64s = np.any(relevant[:, :k], axis=1).astype(np.float64)
    return hits


def average_precision_at_r(relevant: Bools, totals: Int64s) -> Float64s:
    """Average the precision over the first R ranks, R the number of relevant items; mAP@R is the mean.

    AP@R  =  1/R sum_{i <= R}  relevant_i * (relevant_1 + ... + relevant_i) / i

    (Musgrave et al., A Metric Learning Reality Check, ECCV 2020.) `totals` (Q,) holds R; K must
    reach the largest of them. Not a number for a query without relevant items.

    >>> average_precision_at_r(np.array([[True, False, True], [True, True, False]]), np.array([3, 2]))
    array([0.55555556, 1.        ])
    """
    ranks = np.arange(1, relevant.shape[1] + 1)
    inside = relevant & (ranks <= totals[:, None])
    precision = np.cumsum(inside, axis=1) / ranks
    average: Float64s = (precision * inside).sum(axis=1) / np.where(totals > 0, totals, np.nan)
    return average


def occurrences(rows: Int64s, count: int) -> Int64s:
    """Count for each of `count` items how often it is among the neighbours (Q, K); -1 is none.

    >>> occurrences(np.array([[0, 2], [0, -1]]), 4)
    array([2, 0, 1, 0])
    """
    return np.bincount(rows[rows >= 0], minlength=count)


def skewness(counts: Int64s) -> float:
    """Return the skewness of k-occurrences: near 0 without hubs, large when few items are everywhere.

    E (n - mean n)^3 / sd(n)^3 (Radovanovic et al., JMLR 2010); 0 when all counts are equal.

    >>> round(skewness(np.array([0, 0, 0, 4])), 4)
    1.1547
    """
    centred = counts - counts.mean()
    deviation = float(np.sqrt((centred**2).mean()))
    return float((centred**3).mean() / deviation**3) if deviation > 0 else 0.0
