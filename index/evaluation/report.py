"""Statistics of queries -> named metrics with intervals, collected into one flat object."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from index.arrays import Bools, Float64s, Int64s
from index.metrics.bootstrap import interval
from index.metrics.calibration import ece

POINTS = 200
Statistic = Callable[[Int64s], float]


@dataclass(frozen=True)
class Metric:
    """A number with its 95 % bootstrap interval and the number of queries behind it."""

    value: float
    low: float
    high: float
    queries: int


@dataclass
class MetricReport:
    """Metrics by name, in the order they were measured; notes say what could not be, chosen what was picked.

    without: names (up to a colon) of metrics and lines that are passed over.
    """

    resamples: int
    seed: int
    without: frozenset[str] = frozenset()
    metrics: dict[str, Metric] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    chosen: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, statistic: Statistic, queries: int, *, unbiased: bool = True) -> None:
        """Measure statistic(rows) on all rows and on resamples; left out when it is not a number.

        unbiased: see `index.metrics.bootstrap.interval`.
        """
        if name.partition(":")[0] in self.without:
            return
        value = statistic(np.arange(queries)) if queries else math.nan
        if not math.isfinite(value):
            self.notes.append(f"{name}: undefined on these {queries} queries")
            return
        low, high = interval(statistic, queries, resamples=self.resamples, seed=self.seed, unbiased=unbiased)
        self.metrics[name] = Metric(value, low, high, queries)

    def mean(self, name: str, values: Float64s) -> None:
        """Measure the mean of one number a query."""
        self.add(name, lambda rows: float(values[rows].mean()), len(values))

    def calibration(self, name: str, probability: Float64s, outcome: Bools) -> None:
        """Measure the calibration error of (Q, K) probabilities, resampling whole queries."""

        def error(rows: Int64s) -> float:
            return ece(probability[rows].ravel(), outcome[rows].ravel())

        self.add(name, error, len(probability), unbiased=False)

    def curve(self, name: str, lines: dict[str, Float64s]) -> None:
        """Keep lines (n,) to plot, at no more than 200 points each."""

        def thinned(values: Float64s) -> list[float]:
            at = np.unique(np.linspace(0, len(values) - 1, min(len(values), POINTS)).astype(np.int64))
            return [round(float(value), 6) for value in values[at]]

        self.curves[name] = {key: thinned(values) for key, values in lines.items() if key not in self.without}

    def flat(self) -> dict[str, float]:
        """Return each metric as a number with its interval `_low`, `_high`."""
        values: dict[str, float] = {}
        for name, metric in self.metrics.items():
            values |= {name: metric.value, f"{name}_low": metric.low, f"{name}_high": metric.high}
        return values
