"""Embeddings (and labels, if there are some) -> the prior of the distance `posterior`.

Shape letters: N rows, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from index.arrays import Float64s
from index.distances.parameters import DistanceParameters
from vssl.embeddings.gaussian import GaussianEmbedding

SMALLEST = 1e-3  # share of the total variance below which neither part may lie
# Without fitted constants: measured on embeddings of digits and of photographs, whose encoder
# variance under views is as large as all differences between images; docs/measurements/distances.md has the table.
UNFITTED_ALPHA = 1 / 16
VIEWS = 1 / 4  # of the encoder variance stands for the differences within a class
LEAST_BETWEEN = 1 / 10  # of the total variance is left to differences between classes


def completed(
    name: str, parameters: DistanceParameters | None, items: GaussianEmbedding
) -> DistanceParameters:
    """Return the parameters, with the label-free prior of the items where `posterior` has none."""
    if name != "posterior":
        return parameters or DistanceParameters()
    constants = parameters or DistanceParameters(alpha=UNFITTED_ALPHA)
    return constants if constants.between else fit_prior(items, None, constants)


def fit_prior(
    items: GaussianEmbedding,
    labels: Sequence[str | None] | None = None,
    parameters: DistanceParameters | None = None,
) -> DistanceParameters:
    """Return the parameters with between, within and centre estimated by moments, for their alpha.

    With labels, the variance of means splits into that between classes and that within them, and
    the mean encoder variance is taken off the latter. Without labels, within is a quarter of the
    encoder variance, and between what is left of the total, at least a tenth of it. Neither part
    is let fall under a thousandth of the total.
    """
    constants = parameters or DistanceParameters()
    densities = constants.floored(constants.scaled(items))
    mean, noise = densities.mean, _average(densities.variance)
    centre = _average(mean)
    total = _average((mean - centre) ** 2)
    known = _codes(labels)
    if known is None:
        within = VIEWS * noise / constants.alpha
        between = np.maximum(total - within - noise, LEAST_BETWEEN * total)
    else:
        rows, codes = known
        inner = _within_classes(mean[rows], codes)
        between, within = total - inner, inner - noise
    smallest = np.maximum(SMALLEST * total, constants.floor)
    return replace(
        constants,
        between=tuple(np.maximum(between, smallest).tolist()),
        within=tuple(np.maximum(within, smallest).tolist()),
        centre=tuple(centre.tolist()),
    )


def _average(values: Float64s) -> Float64s:
    averages: Float64s = values.mean(axis=0) if len(values) else np.ones(values.shape[1])
    return averages


def _codes(labels: Sequence[str | None] | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Return rows with a label and their class codes, or None unless two share a label."""
    if labels is None:
        return None
    rows = np.array([i for i, label in enumerate(labels) if label is not None], np.int64)
    number: dict[str | None, int] = {}  # an array of texts would give each the space of the longest
    codes = np.array([number.setdefault(labels[i], len(number)) for i in rows], np.int64)
    return (rows, codes) if len(number) < len(rows) else None


def _within_classes(mean: Float64s, codes: np.ndarray) -> Float64s:
    """Return the pooled variance (D,) about the class means, unbiased for the classes' sizes."""
    counts = np.bincount(codes)
    sums = np.zeros((len(counts), mean.shape[1]))
    np.add.at(sums, codes, mean)
    squares = ((mean - (sums / counts[:, None])[codes]) ** 2).sum(axis=0)
    inner: Float64s = squares / (len(mean) - len(counts))
    return inner
