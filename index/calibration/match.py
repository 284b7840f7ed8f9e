"""Retrieved neighbours with known labels -> a calibrated probability that a match is right.

A logistic curve in the distance, in its logarithm where it is never negative (which halved the
calibration error on real images), and in the logarithms of the two uncertainties where there are
enough pairs to fit them. It is fitted on what a search returns (each item searching its own
gallery, itself left out), never on random pairs: those are too easy and their calibration error
on real neighbours was nine times as large. Shape letters: P pairs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from index.arrays import Bools, Float64s
from index.metrics.calibration import ece
from vssl.errors import FormatError

LEAST_PAIRS = 50  # below, or with fewer than LEAST_OF_A_KIND of either kind, nothing is claimed
LEAST_OF_A_KIND = 10
FULL_PAIRS = 400  # from here on the uncertainties enter the curve
RIDGE = 1e-3
TINY = 1e-12
NEAREST = 1e-3  # of the median distance
CALIBRATION_BINS = 10


@dataclass(frozen=True)
class MatchModel:
    """P(same label) = sigmoid(coefficients . standardised (1, distance, ln query u, ln item u)).

    smallest: where positive, the logarithm of the distance takes its place, of at least this one.
    generation, rows, last_row: the state of the gallery it was fitted on; pairs, share_same: what
    it saw; calibration_error: expected calibration error (10 equal-mass bins) of a second curve fitted on
    half of the pairs and measured on the other half. constants: which ones the distance had.
    """

    coefficients: tuple[float, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    pairs: int
    share_same: float
    calibration_error: float
    generation: int = 0
    rows: int = 0
    last_row: int = 0
    constants: str = ""
    smallest: float = 0.0

    def probability(self, distance: Float64s, query: Float64s, item: Float64s) -> Float64s:
        """Return P(same label) in [0, 1] for pairs of a distance and two uncertainties (broadcast)."""
        logit = np.full(np.broadcast_shapes(distance.shape, query.shape, item.shape), self.coefficients[0])
        for part, weight, centre, scale in zip(
            _features(distance, query, item, self.smallest),
            self.coefficients[1:],
            self.centre,
            self.scale,
            strict=False,
        ):
            logit += weight * (part - centre) / scale
        return _sigmoid(logit)

    def to_json(self) -> str:
        """Return the model as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> MatchModel:
        """Parse `to_json`'s form."""
        try:
            values: dict[str, Any] = json.loads(text)
            for name in ("coefficients", "centre", "scale"):
                values[name] = tuple(values[name])
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError(
                f"the match calibration is not readable ({error}); run: vssl gallery compact GALLERY"
            ) from error


def fit_match(
    distance: Float64s, query: Float64s, item: Float64s, same: Bools, *, signed: bool = False
) -> MatchModel | None:
    """Fit on P retrieved pairs: distance, both uncertainties, whether the labels agree.

    signed: the distance may be negative.

    Returns None where the pairs are too few, or all alike, or where nearer does not mean more
    likely: then no probability can be trusted.
    """
    enough = len(same) >= LEAST_PAIRS and min(same.sum(), (~same).sum()) >= LEAST_OF_A_KIND
    if not enough:
        return None
    # Copies of an image lie at any fraction of the usual distance; below this they are all as near.
    smallest = 0.0 if signed else NEAREST * float(np.median(distance))
    parts = _features(distance, query, item, smallest)
    columns = np.stack(parts if len(same) >= FULL_PAIRS else parts[:1], axis=1)
    centre, scale = columns.mean(axis=0), columns.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    design = np.concatenate([np.ones((len(same), 1)), (columns - centre) / scale], axis=1)
    weights = _logistic(design, same)
    if weights[1] >= 0:
        return None
    half = len(same) // 2  # pairs come query by query, so the halves share no query
    second = _logistic(design[:half], same[:half])
    error = ece(_sigmoid(design[half:] @ second), same[half:], CALIBRATION_BINS)
    return MatchModel(
        tuple(weights.tolist()),
        tuple(centre.tolist()),
        tuple(scale.tolist()),
        len(same),
        float(same.mean()),
        error,
        smallest=smallest,
    )


def _features(distance: Float64s, query: Float64s, item: Float64s, smallest: float) -> list[Float64s]:
    reach = np.log(np.maximum(distance, smallest)) if smallest > 0 else distance
    return [reach, np.log(np.maximum(query, TINY)), np.log(np.maximum(item, TINY))]


def _logistic(design: Float64s, same: Bools) -> Float64s:
    """Newton's method for a logistic regression with a slight ridge, so that it ends when the kinds separate."""
    weights = np.zeros(design.shape[1])
    ridge = RIDGE * len(design) * np.eye(design.shape[1])
    ridge[0, 0] = 1e-9
    for _ in range(50):
        probability = _sigmoid(design @ weights)
        slope = design.T @ (same - probability) - ridge @ weights
        curvature = (design * (probability * (1 - probability) + 1e-9)[:, None]).T @ design + ridge
        step = np.linalg.solve(curvature, slope)
        weights = weights + np.clip(step, -4, 4)
        if np.abs(step).max() < 1e-9:
            break
    return weights


def _sigmoid(logit: Float64s) -> Float64s:
    positive = 1.0 / (1.0 + np.exp(-np.abs(logit)))
    return np.where(logit >= 0, positive, 1.0 - positive)
