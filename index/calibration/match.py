"""Retrieved neighbours with known labels -> a calibrated probability that a match is right.

A logistic curve in the distance, in its logarithm where it is never negative (which halved the
calibration error on real images), and in the logarithms of the two uncertainties where there are
enough pairs to fit them. It is fitted on what a search returns (each item searching its own
gallery, itself left out), never on random pairs: those are too easy and their calibration error
on real neighbours was nine times as large.

A second curve joins what the other neighbours say: the log-odds of their votes for this neighbour's label, each
weighing as much as it is near (index.calibration.nearness), the same times the distance, and whether this one
is the nearest. It is used wherever there are votes.
Shape letters: P pairs, Q queries, K neighbours, V of them that vote.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from index.arrays import Bools, Float64s, Int64s
from index.calibration.nearness import TINY, length_scale, nearness
from index.metrics.calibration import ece
from vssl.errors import FormatError

LEAST_PAIRS = 50  # below, or with fewer than LEAST_OF_A_KIND of either kind, nothing is claimed
LEAST_OF_A_KIND = 10
FULL_PAIRS = 400  # from here on the uncertainties enter the curve, and the votes
VOTERS = 20  # nearest neighbours that vote
RIDGE = 1e-3
NEAREST = 1e-3  # of the median distance
CALIBRATION_BINS = 10
FORMULA = 2


class Votes(NamedTuple):
    """Of pairs: the log-odds of the other neighbours' votes, NaN where there are none; whether it is the nearest.

    length: of the `nearness` that votes were weighed with.
    """

    log_odds: Float64s
    is_nearest: Bools
    length: float


def votes(distance: Float64s, codes: Int64s, *, signed: bool, length: float | None = None) -> Votes:
    """Return what the VOTERS nearest say of each neighbour (Q, K) found: half a vote for and against are given.

    codes: the neighbours' labels as numbers, -1 where there is none; length: of `nearness`, measured when None.
    """
    length = length_scale(distance, signed=signed) if length is None else length
    voters, is_voter = codes[:, :VOTERS], np.zeros(codes.shape, bool)
    is_voter[:, :VOTERS] = voters >= 0
    weight = nearness(distance[:, :VOTERS], length, signed=signed) * (voters >= 0)
    own = np.zeros(codes.shape)
    own[:, :VOTERS] = weight  # nobody votes for itself
    total, agree = weight.sum(axis=1, keepdims=True) - own, -own
    for voter, weighs in zip(voters.T, weight.T, strict=True):
        agree += (codes == voter[:, None]) * weighs[:, None]
    log_odds = np.log((agree + 0.5) / (total - agree + 0.5))
    others = is_voter.sum(axis=1, keepdims=True) - is_voter
    log_odds[(codes < 0) | (others == 0)] = np.nan
    is_nearest = np.zeros(codes.shape, bool)
    is_nearest[:, :1] = True
    return Votes(log_odds, is_nearest, length)


@dataclass(frozen=True)
class MatchModel:
    """P(same label) = sigmoid(coefficients . standardised (1, distance, ln query u, ln item u)).

    with_votes: centre, scale and coefficients of the second curve, which has three more columns; empty where there
    were too few pairs. length: of the votes' `nearness`. formula: 1 in a model of before, which has no
    votes, and is fitted again where the gallery can.

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
    with_votes: tuple[tuple[float, ...], ...] = ()
    length: float = 0.0
    formula: int = 1

    @property
    def is_current(self) -> bool:
        """Whether it was fitted as this version does."""
        return self.formula == FORMULA

    def votes(self, distance: Float64s, codes: Int64s) -> Votes | None:
        """Return what the neighbours found (Q, K) say of each other, None where the model knows no votes."""
        if not self.with_votes:
            return None
        return votes(distance, codes, signed=self.smallest == 0, length=self.length)

    def probability(
        self, distance: Float64s, query: Float64s, item: Float64s, heard: Votes | None = None
    ) -> Float64s:
        """Return P(same label) in [0, 1] for pairs of a distance and two uncertainties (broadcast).

        heard: the other neighbours' votes; a pair without any, or all when None, is judged by itself.
        """
        own = _features(distance, query, item, self.smallest)
        alone = _curve(own, self.centre, self.scale, self.coefficients)
        if heard is None or not self.with_votes:
            return _sigmoid(alone)
        joined = _curve(_with_votes(own, heard), *self.with_votes)
        return _sigmoid(np.where(np.isnan(heard.log_odds), alone, joined))

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
            values["with_votes"] = tuple(tuple(part) for part in values.get("with_votes", ()))
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError(
                f"the match calibration is not readable ({error}); run: vssl gallery compact GALLERY"
            ) from error


def fit_match(
    distance: Float64s,
    query: Float64s,
    item: Float64s,
    same: Bools,
    *,
    signed: bool = False,
    heard: Votes | None = None,
) -> MatchModel | None:
    """Fit on P retrieved pairs: distance, both uncertainties, whether the labels agree.

    signed: the distance may be negative. heard: the other neighbours' votes.

    Returns None where the pairs are too few, or all alike, or where nearer does not mean more
    likely: then no probability can be trusted.
    """
    enough = len(same) >= LEAST_PAIRS and min(same.sum(), (~same).sum()) >= LEAST_OF_A_KIND
    if not enough:
        return None
    # Copies of an image lie at any fraction of the usual distance; below this they are all as near.
    smallest = 0.0 if signed else NEAREST * float(np.median(distance))
    parts = _features(distance, query, item, smallest)
    centre, scale, weights, error = _fitted(parts if len(same) >= FULL_PAIRS else parts[:1], same)
    if weights[1] >= 0:
        # Uncertainties that tell more than the distance may leave it nothing to tell.
        centre, scale, weights, error = _fitted(parts[:1], same)
    if weights[1] >= 0:
        return None
    told = np.zeros(len(same), bool) if heard is None else ~np.isnan(heard.log_odds)
    with_votes: tuple[tuple[float, ...], ...] = ()
    if heard is not None and told.sum() >= FULL_PAIRS and 0 < same[told].sum() < told.sum():
        columns = [column[told] for column in _with_votes(parts, heard)]
        *with_votes_parts, error = _fitted(columns, same[told])
        with_votes = tuple(with_votes_parts)
    return MatchModel(
        weights,
        centre,
        scale,
        len(same),
        float(same.mean()),
        error,
        smallest=smallest,
        with_votes=with_votes,
        length=0.0 if heard is None else heard.length,
        formula=FORMULA,
    )


def _fitted(
    parts: list[Float64s], same: Bools
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], float]:
    """Return centre, scale and coefficients of a curve, and the error of one of half the pairs on the others."""
    columns = np.stack(parts, axis=1)
    centre, scale = columns.mean(axis=0), columns.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    design = np.concatenate([np.ones((len(same), 1)), (columns - centre) / scale], axis=1)
    weights, half = _logistic(design, same), len(same) // 2  # pairs come query by query: no half shares one
    second = _logistic(design[:half], same[:half])
    error = ece(_sigmoid(design[half:] @ second), same[half:], CALIBRATION_BINS)
    return tuple(centre.tolist()), tuple(scale.tolist()), tuple(weights.tolist()), error


def _curve(
    parts: list[Any], centre: tuple[float, ...], scale: tuple[float, ...], weights: tuple[float, ...]
) -> Float64s:
    """Return the logit of pairs, of as many of their columns as the curve has."""
    logit = np.full(np.broadcast_shapes(*(part.shape for part in parts)), weights[0])
    for part, weight, middle, unit in zip(parts, weights[1:], centre, scale, strict=False):
        logit += weight * (part - middle) / unit
    return logit


def _features(distance: Float64s, query: Float64s, item: Float64s, smallest: float) -> list[Float64s]:
    reach = np.log(np.maximum(distance, smallest)) if smallest > 0 else distance
    return [reach, np.log(np.maximum(query, TINY)), np.log(np.maximum(item, TINY))]


def _with_votes(parts: list[Float64s], heard: Votes) -> list[Float64s]:
    """Return the columns of the second curve: votes say more of a neighbour that lies near than of one far away."""
    log_odds = np.nan_to_num(heard.log_odds)
    return [*parts, log_odds, heard.is_nearest.astype(np.float64), log_odds * parts[0]]


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
