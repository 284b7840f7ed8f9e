"""Labelled (or paired) embeddings -> constants of the distances, and the distance that ranks best.

Images that share a label, or two views of one image that share its id as label, should be near.
Some of them search the others; a distance is judged by mAP@R. Cosine is the control:
another distance, or another scale of the variance than the given one, has to beat it by more
than twice the standard error of the paired difference, and not lose recall@1 by as much.
Constants are fitted on other queries than those that judge (index.calibration.holdout).
Shape letters: Q queries, N items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from index.arrays import Float64s, Int64s
from index.calibration.holdout import Split, split, unjudged
from index.distances.encoding import Anchor
from index.distances.parameters import DistanceParameters
from index.distances.prior import UNFITTED_ALPHA, fit_prior
from index.distances.reference import pairwise
from index.distances.table import NAMES, named
from index.metrics.bootstrap import interval
from index.metrics.retrieval import average_precision_at_r, occurrences, skewness
from vssl.embeddings.gaussian import GaussianEmbedding

COARSE, FINE = (-6, -4, -2, 2, 4, 6), (-1, 1)  # powers of two that alpha is tried at
SHOWN = 10  # neighbours that hubs are counted among
ERRORS = 2.0  # standard errors by which a challenger must win
RESAMPLES = 1000
WITHOUT_VARIANCE = ("cosine", "euclidean")


@dataclass(frozen=True)
class Quality:
    """mAP@R with its 95 % bootstrap interval over queries, and recall@1, both on held-out queries.

    gain, gain_error: mAP@R above that of cosine, and the standard error of the paired difference;
    recall_gain, recall_error: the same of recall@1.
    """

    map_at_r: float
    low: float
    high: float
    recall_at_1: float
    gain: float
    gain_error: float
    recall_gain: float
    recall_error: float

    @property
    def beats_cosine(self) -> bool:
        """Whether mAP@R is significantly higher than that of cosine, and recall@1 not significantly lower."""
        better = self.gain > ERRORS * self.gain_error
        return better and self.recall_gain >= -ERRORS * self.recall_error


@dataclass(frozen=True)
class Trial:
    """How one distance ranked: its constants, quality (None without labels), hubs among ten neighbours.

    hub_max: how many queries share the most frequent neighbour; hub_skew: skewness of such counts.
    """

    name: str
    parameters: DistanceParameters
    quality: Quality | None
    hub_max: int
    hub_skew: float


def fit_parameters(
    items: GaussianEmbedding,
    labels: Sequence[str | None],
    parameters: DistanceParameters | None = None,
    *,
    name: str = "posterior",
    seed: int = 0,
) -> DistanceParameters:
    """Return the constants of a distance, fitted on labelled rows that do not judge.

    alpha keeps its given value unless another power of two ranks significantly better. The prior
    of `posterior` is estimated again for every alpha, from labels; without them where that ranks
    significantly better.
    """
    given = parameters or DistanceParameters(alpha=UNFITTED_ALPHA if name == "posterior" else 1.0)
    if name in WITHOUT_VARIANCE:
        return given
    parts = split(labels, seed=seed, fit=True, dim=items.dim)
    answers = [labels[row] for row in parts.searched]

    def constants(alpha: float, labelled: bool) -> DistanceParameters:
        scaled = replace(given, alpha=alpha)
        if name != "posterior":
            return scaled
        return fit_prior(items[parts.searched], answers if labelled else None, scaled)

    def precision(alpha: float, labelled: bool) -> Float64s:
        return _precision(_ranked(name, items, parts, constants(alpha, labelled)), parts)

    control = precision(given.alpha, True)
    best, reached = (given.alpha, True), float(control.mean())
    for powers in ((0, *COARSE), FINE):
        for alpha in [best[0] * 2.0**power for power in powers]:
            for labelled in (True, False) if name == "posterior" else (True,):
                found = precision(alpha, labelled)
                gain, error = _gain(found, control)
                if gain > ERRORS * error and found.mean() > reached:
                    best, reached = (alpha, labelled), float(found.mean())
    fitted = replace(given, alpha=best[0])
    if name != "posterior":
        return fitted
    rows = unjudged(labels, seed=seed)
    return fit_prior(items[rows], [labels[row] for row in rows] if best[1] else None, fitted)


def compare(
    items: GaussianEmbedding,
    labels: Sequence[str | None],
    parameters: DistanceParameters | Mapping[str, DistanceParameters] | None = None,
    *,
    names: Sequence[str] = NAMES,
    seed: int = 0,
) -> list[Trial]:
    """Rank held-out rows by each distance; cosine first, whether asked for or not.

    parameters: of all distances, or of each by name. A `posterior` without a prior gets one
    from the labels of the rows that answer.
    """
    parts = split(labels, seed=seed, dim=items.dim)
    nearest = _ranked("cosine", items, parts, DistanceParameters())
    control, control_first = _precision(nearest, parts), _first(nearest, parts)
    trials = []
    for name in ("cosine", *(n for n in names if n != "cosine")):
        given = parameters.get(name) if isinstance(parameters, Mapping) else parameters
        constants = given or DistanceParameters(alpha=UNFITTED_ALPHA if name == "posterior" else 1.0)
        if name == "posterior" and not constants.between:
            constants = fit_prior(items[parts.searched], [labels[row] for row in parts.searched], constants)
        rows = _ranked(name, items, parts, constants)
        precision, first = _precision(rows, parts), _first(rows, parts)
        low, high = _interval(precision, seed)
        gains = *_gain(precision, control), *_gain(first, control_first)
        quality = Quality(float(precision.mean()), low, high, float(first.mean()), *gains)
        trials.append(Trial(name, constants, quality, *hubs(rows, len(parts.searched))))
    return trials


def winner(trials: Sequence[Trial]) -> Trial:
    """Return the best trial of those that beat cosine significantly, or cosine's own."""
    sure = [(trial.quality.gain, trial) for trial in trials if trial.quality and trial.quality.beats_cosine]
    return max(sure, key=lambda pair: pair[0], default=(0.0, trials[0]))[1]


def hubs(rows: Int64s, count: int) -> tuple[int, float]:
    """Return the largest count and the skewness of how often each of `count` items is among ten (Q, K)."""
    counts = occurrences(rows[:, :SHOWN], count)
    return int(counts.max()), skewness(counts)


def ranking(
    name: str, queries: GaussianEmbedding, items: GaussianEmbedding, parameters: DistanceParameters
) -> Int64s:
    """Return all N items for each query, nearest first, (Q, N): for few items, cheaper than an index."""
    distance = named(name)
    if distance.bounds:
        return np.argsort(pairwise(name, queries, items, parameters), axis=1, kind="stable")
    stored, asked = (distance.prepared(parameters.scaled(x), parameters) for x in (items, queries))
    anchor = Anchor.of(stored)
    phi, _ = distance.encode_queries(asked, anchor, parameters)
    return np.argsort(-(phi @ distance.encode_items(stored, anchor, parameters).T), axis=1, kind="stable")


def _interval(values: Float64s, seed: int) -> tuple[float, float]:
    return interval(lambda rows: float(values[rows].mean()), len(values), resamples=RESAMPLES, seed=seed)


def _gain(found: Float64s, control: Float64s) -> tuple[float, float]:
    difference = found - control
    return float(difference.mean()), float(difference.std(ddof=1) / len(difference) ** 0.5)


def _ranked(name: str, items: GaussianEmbedding, parts: Split, parameters: DistanceParameters) -> Int64s:
    """Return the nearest searched rows of each query, (Q, K), as many as are relevant, at least 10."""
    wanted = max(SHOWN, int(parts.relevant.sum(axis=1).max()))
    return ranking(name, items[parts.queries], items[parts.searched], parameters)[:, :wanted]


def _first(rows: Int64s, parts: Split) -> Float64s:
    """Say whether the nearest is right, 0 or 1, (Q,)."""
    return np.take_along_axis(parts.relevant, rows[:, :1], axis=1)[:, 0].astype(np.float64)


def _precision(rows: Int64s, parts: Split) -> Float64s:
    """Return AP@R of each query, (Q,)."""
    relevant = np.take_along_axis(parts.relevant, rows, axis=1)
    return average_precision_at_r(relevant, parts.relevant.sum(axis=1))
