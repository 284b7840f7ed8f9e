"""Labelled (or paired) embeddings -> constants of the likelihoods, and the distance that ranks best.

Images that share a label, or two views of one image that share its id as label, should be near.
Some of them are asked, the rest answers; a distance is judged by mAP@R. Cosine is the control:
another distance, or another scale of the variance than the given one, has to beat it by more
than twice the standard error of the paired difference. Shape letters: Q queries, N items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index.distances.parameters import DistanceParameters, Float64s
from index.distances.prior import UNFITTED_ALPHA, fit_prior
from index.distances.table import NAMES
from index.exact import ExactIndex
from index.metrics.retrieval import average_precision_at_r, occurrences, skewness
from vssl.errors import InputError
from vssl.gaussian import GaussianEmbedding

Rows = NDArray[np.int64]
COARSE, FINE = (-6, -4, -2, 2, 4, 6), (-1, 1)  # powers of two that alpha is tried at
SHOWN = 10  # neighbours that hubs are counted among
ERRORS = 2.0  # standard errors by which a challenger must win
ASKED, ANSWERING = 200, 2000  # at most; enough for a standard error near 0.01


@dataclass(frozen=True)
class Trial:
    """How one distance ranked: its constants, mAP@R, recall@1, hubs among ten neighbours.

    gain, gain_error: mAP@R above that of cosine, and the standard error of the difference.
    """

    name: str
    parameters: DistanceParameters
    map_at_r: float
    recall_at_1: float
    hub_max: int
    hub_skew: float
    gain: float
    gain_error: float


@dataclass(frozen=True, eq=False)
class Split:
    """Rows that ask and rows that answer, and which answers are right (Q, N)."""

    asking: NDArray[np.int64]
    answering: NDArray[np.int64]
    relevant: NDArray[np.bool_]


def split(labels: Sequence[str | None], *, seed: int = 0) -> Split:
    """Draw a tenth of the labelled rows, at least, to ask the others.

    Raises InputError where fewer than two queries would have an answer.
    """
    known = np.array([row for row, label in enumerate(labels) if label is not None], np.int64)
    drawn = np.random.default_rng(seed).permutation(known)
    asked = min(ASKED, max(len(known) // 10, min(len(known) // 2, 100)))
    asking, answering = drawn[:asked], drawn[asked : asked + ANSWERING]
    names = np.array(["" if label is None else label for label in labels])
    relevant = names[asking][:, None] == names[answering][None, :]
    useful = relevant.any(axis=1)
    if useful.sum() < 2:
        raise InputError(
            "found no two images that share a label; to compare distances, give labels "
            "(IMAGES/CLASS/file.jpg) or several views an image"
        )
    return Split(asking[useful], answering, relevant[useful])


def fit_parameters(
    items: GaussianEmbedding,
    labels: Sequence[str | None],
    parameters: DistanceParameters | None = None,
    *,
    seed: int = 0,
) -> DistanceParameters:
    """Return alpha, between, within and centre for `posterior`, fitted on labelled rows.

    alpha keeps its given value unless another power of two ranks better beyond doubt; the prior
    is estimated anew for every alpha, from the rows that do not ask.
    """
    given = parameters or DistanceParameters()
    parts = split(labels, seed=seed)
    answers = [labels[row] for row in parts.answering]

    def prior(alpha: float) -> DistanceParameters:
        return fit_prior(items[parts.answering], answers, replace(given, alpha=alpha))

    def precision(constants: DistanceParameters) -> Float64s:
        return _precision(_ranked("posterior", items, parts, constants), parts)

    control = precision(prior(given.alpha))
    best, reached = given.alpha, float(control.mean())
    for powers in (COARSE, FINE):
        for alpha in [best * 2.0**power for power in powers]:
            found = precision(prior(alpha))
            gain, error = _gain(found, control)
            if gain > ERRORS * error and found.mean() > reached:
                best, reached = alpha, float(found.mean())
    return fit_prior(items, labels, replace(given, alpha=best))


def compare(
    items: GaussianEmbedding,
    labels: Sequence[str | None],
    parameters: DistanceParameters | None = None,
    *,
    names: Sequence[str] = NAMES,
    seed: int = 0,
) -> list[Trial]:
    """Rank held-out rows by each distance; cosine first, whether asked for or not."""
    parts = split(labels, seed=seed)
    control = _precision(_ranked("cosine", items, parts, DistanceParameters()), parts)
    trials = []
    for name in ("cosine", *(n for n in names if n != "cosine")):
        constants = parameters or DistanceParameters()
        if name == "posterior" and not constants.between:
            constants = parameters or DistanceParameters(alpha=UNFITTED_ALPHA)
            constants = fit_prior(items[parts.answering], [labels[row] for row in parts.answering], constants)
        rows = _ranked(name, items, parts, constants)
        counts = occurrences(rows[:, :SHOWN], len(parts.answering))
        precision = _precision(rows, parts)
        first = np.take_along_axis(parts.relevant, rows[:, :1], axis=1)
        gain, error = _gain(precision, control)
        trials.append(
            Trial(
                name,
                constants,
                float(precision.mean()),
                float(first.mean()),
                int(counts.max()),
                skewness(counts),
                gain,
                error,
            )
        )
    return trials


def winner(trials: Sequence[Trial]) -> Trial:
    """Return the best trial of those that beat cosine beyond doubt, or cosine's own."""
    sure = [trial for trial in trials if trial.gain > ERRORS * trial.gain_error]
    return max(sure, key=lambda trial: trial.gain, default=trials[0])


def _gain(found: Float64s, control: Float64s) -> tuple[float, float]:
    difference = found - control
    return float(difference.mean()), float(difference.std(ddof=1) / len(difference) ** 0.5)


def _ranked(name: str, items: GaussianEmbedding, parts: Split, parameters: DistanceParameters) -> Rows:
    """Return the nearest answering rows of each query, (Q, K), as many as are relevant, at least 10."""
    wanted = max(SHOWN, int(parts.relevant.sum(axis=1).max()))
    wanted = min(wanted, len(parts.answering))
    index = ExactIndex.build(name, items[parts.answering], parameters=parameters)
    _, rows = index.search(items[parts.asking], wanted)
    return rows


def _precision(rows: Rows, parts: Split) -> Float64s:
    """Return AP@R of each query, (Q,)."""
    relevant = np.take_along_axis(parts.relevant, rows, axis=1)
    return average_precision_at_r(relevant, parts.relevant.sum(axis=1))
