"""Probabilities and outcomes -> whether seven in ten means seven in ten.

`probability` (n,) in [0, 1], `outcome` (n,) bool. Shape letter: n predictions.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from index.arrays import Bools, Float64s, Int64s

BINS = 15


def reliability(
    probability: Float64s, outcome: Bools, bins: int = BINS
) -> tuple[Float64s, Float64s, Float64s]:
    """Return (predicted, observed, share) of each bin of equal mass: the reliability diagram.

    Fewer bins where there are fewer predictions.

    >>> reliability(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, False]), 2)
    (array([0.15, 0.85]), array([0. , 0.5]), array([0.5, 0.5]))
    """
    order = np.argsort(probability, kind="stable")
    starts, counts = _bins(len(order), bins)
    predicted = np.add.reduceat(probability[order], starts) / counts
    observed = np.add.reduceat(outcome[order].astype(np.float64), starts) / counts
    return predicted, observed, counts / len(order)


@lru_cache(maxsize=64)
def _bins(count: int, bins: int) -> tuple[Int64s, Float64s]:
    """Return where each bin of equal mass starts and how many it holds; resamples of as many ask again and again."""
    edges = np.unique(np.linspace(0, count, min(bins, count) + 1).astype(np.int64))
    starts, counts = edges[:-1], np.diff(edges).astype(np.float64)
    starts.setflags(write=False)
    counts.setflags(write=False)
    return starts, counts


def ece(probability: Float64s, outcome: Bools, bins: int = BINS) -> float:
    """Return the expected calibration error over bins of equal mass.

    ECE  =  sum over bins  share * | mean outcome - mean probability |

    >>> round(ece(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, False]), 2), 6)
    0.25
    """
    if not len(probability):
        return float("nan")
    predicted, observed, share = reliability(probability, outcome, bins)
    return float((share * np.abs(observed - predicted)).sum())
