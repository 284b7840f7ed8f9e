"""Two vectors (N,) -> how their orders agree: AUROC and Spearman's rank correlation, ties at their middle rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def auroc(score: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return the chance that a positive scores above a negative, ties counting half.

    AUROC  =  1/(P N) sum over pairs  [s_p > s_n] + 1/2 [s_p = s_n]

    Not a number unless there are both. The Mann-Whitney form of the area under the ROC curve.

    >>> auroc(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False]))
    0.875
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return float("nan")
    wins = ranks(score)[positive].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))


def spearman(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return the rank correlation of two vectors (N,); not a number if either is constant.

    >>> round(spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])), 6)
    0.8
    """
    first, second = ranks(a), ranks(b)
    first, second = first - first.mean(), second - second.mean()
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / size) if size > 0 else float("nan")


def ranks(values: NDArray[np.floating]) -> Doubles:
    """Return the ranks (N,) from 1, equal values at the mean of theirs."""
    _, level, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: Doubles = (np.cumsum(counts) - (counts - 1) / 2)[level]
    return found
