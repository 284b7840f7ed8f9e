"""A statistic of queries -> its 95 % interval, by drawing the queries again with replacement."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from index.arrays import Int64s

RESAMPLES = 1000


def interval(
    statistic: Callable[[Int64s], float],
    count: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
    unbiased: bool = True,
) -> tuple[float, float]:
    """Return the percentile interval of statistic(rows) over resamples of the rows 0..count-1.

    unbiased: whether resamples have the statistic's own value on average. Of one that drawing rows twice
    inflates, such as a calibration error, whose bins are further off the fewer rows differ, the
    interval is moved down by what resampling adds (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 10), and ends at 0.
    Resamples for which the statistic is not a number are left out; where none is left the
    interval is not a number either.

    >>> interval(lambda rows: float(rows.mean()), 1)
    (0.0, 0.0)
    """
    random = np.random.default_rng(seed)
    drawn = np.array([statistic(random.integers(0, count, count)) for _ in range(resamples)])
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return float("nan"), float("nan")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    if not unbiased:
        added = drawn.mean() - statistic(np.arange(count))
        low, high = np.maximum([low - added, high - added], 0.0)
    return float(low), float(high)
