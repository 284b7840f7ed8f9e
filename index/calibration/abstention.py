"""A risk the user can bear -> a threshold beyond which the answer is "I do not know".

On calibration queries whose outcome is known, the errors among those accepted at a threshold
are binomial. A threshold passes when so few errors would be rarer than delta at the allowed risk.
Thresholds are tried from a coverage that was fixed beforehand upwards until one fails, which needs
no correction for their number. So with probability 1 - delta over the calibration queries, the
risk on exchangeable queries is at most the one allowed. (Fixed sequence testing: Angelopoulos et
al., Learn then Test, 2021; selection with guaranteed risk: Geifman and El-Yaniv, NeurIPS 2017.)
What is fixed beforehand, the score and where its sequence begins, comes from other queries.

Three things tell whether the nearest neighbour is right: how uncertain the query is, how far that
neighbour lies, and how much the further neighbours disagree with its label.
Shape letters: n queries, K neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from index.arrays import Bools, Float64s, Int64s
from index.metrics.uncertainty import aurc
from vssl.errors import InputError

NEIGHBOURS = 20  # whose labels are compared with the first one's
TINY = 1e-12
STEPS = 100  # thresholds, at equal steps of coverage
DELTA = 0.05
SAFE = 0.6  # of that coverage: other queries may be less lucky
RISKS = (
    0.01,
    0.02,
    0.05,
    0.1,
    0.15,
    0.2,
    0.25,
    0.3,
    0.4,
    0.5,
)  # tried where the one asked for answers nothing


@dataclass(frozen=True, eq=False)
class AbstentionInputs:
    """What tells whether the nearest neighbour is right: uncertainty, distance and agreement of neighbours.

    uncertainty (n,) of the queries; distance (n, K) of their neighbours, ascending, infinite for none;
    agree (n, K): which neighbours have the label of the first, the first itself among them.
    """

    uncertainty: Float64s
    distance: Float64s
    agree: Bools

    def __len__(self) -> int:
        return len(self.uncertainty)

    def __getitem__(self, which: slice | Bools | Int64s) -> AbstentionInputs:
        return AbstentionInputs(self.uncertainty[which], self.distance[which], self.agree[which])

    @property
    def nearest(self) -> Float64s:
        """The distance of the first neighbour, (n,)."""
        return self.distance[:, 0]

    @property
    def gaps(self) -> Float64s:
        """How much further than the first each neighbour lies, (n, K); infinite for none."""
        there = np.isfinite(self.distance)
        reach: Float64s = np.where(there, self.distance, 0.0) - np.where(
            there[:, :1], self.distance[:, :1], 0.0
        )
        return np.where(there, reach, np.inf)

    def length_scale(self) -> float:
        """Return half of how much further than the first the last neighbour typically lies."""
        gaps = self.gaps
        last = np.where(np.isfinite(gaps), gaps, 0.0).max(axis=1, initial=0.0)
        return max(TINY, float(np.median(last)) / 2) if len(last) else 1.0

    def disagreement(self, length_scale: float) -> Float64s:
        """Return (n,) in 0..1: the share of the neighbours' weight that has another label than the first.

        A neighbour weighs exp(-gap / length_scale); a query without neighbours has 1.
        """
        weight = np.exp(-self.gaps / length_scale)
        weight[:, 0] = 1.0
        share: Float64s = (weight * ~self.agree).sum(axis=1) / weight.sum(axis=1)
        return share

    def features(self, length_scale: float, *, logarithmic: bool) -> Float64s:
        """Return all three (n, 3); the distance as its logarithm where it is never negative."""
        reach = np.log(np.maximum(self.nearest, TINY)) if logarithmic else self.nearest
        return np.stack(
            [np.log(np.maximum(self.uncertainty, TINY)), reach, self.disagreement(length_scale)], axis=1
        )


@dataclass(frozen=True)
class Threshold:
    """Accept where `score` is at most `threshold`; minus infinity accepts nothing.

    coverage, risk: on the calibration queries; max_risk, delta: what is promised.
    """

    score: str
    threshold: float
    coverage: float
    risk: float
    max_risk: float
    delta: float

    def accepts(self, scores: Float64s) -> Bools:
        """Say which answers are given, (n,)."""
        return scores <= self.threshold


def tail(errors: int, count: int, risk: float) -> float:
    """Return P(Binomial(count, risk) <= errors).

    >>> round(tail(0, 10, 0.5), 6)
    0.000977
    """
    if errors >= count:
        return 1.0
    log_risk, log_rest = math.log(risk), math.log1p(-risk)
    terms = [
        math.lgamma(count + 1)
        - math.lgamma(i + 1)
        - math.lgamma(count - i + 1)
        + i * log_risk
        + (count - i) * log_rest
        for i in range(errors + 1)
    ]
    highest = max(terms)
    return min(1.0, math.exp(highest) * sum(math.exp(term - highest) for term in terms))


def fit_threshold(
    name: str,
    scores: Float64s,
    wrong: Bools,
    max_risk: float,
    *,
    start: float,
    delta: float = DELTA,
) -> Threshold:
    """Return the threshold of a score (n,), higher = less sure, for errors `wrong` (n,).

    start: the coverage that is tried first, chosen without these outcomes. Raises InputError
    unless max_risk and delta lie between 0 and 1.
    """
    _check_share("max_risk", max_risk)
    _check_share("delta", delta)
    best = Threshold(name, -math.inf, 0.0, 0.0, max_risk, delta)
    for point in _points(scores, wrong, max_risk, from_share=start):
        if point.chance > delta:
            break
        share = point.count / len(scores)
        best = Threshold(name, point.threshold, share, point.errors / point.count, max_risk, delta)
    return best


def _check_share(what: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(f"found {what} {value}, expected a share between 0 and 1, as in --max-risk 0.05")


@dataclass(frozen=True)
class _Point:
    """What accepting up to a threshold gives: `errors` among `count`, and the chance of so few at the risk."""

    threshold: float
    count: int
    errors: int
    chance: float


def _points(scores: Float64s, wrong: Bools, max_risk: float, *, from_share: float = 0.0) -> Iterator[_Point]:
    """Yield the thresholds of a hundred shares in their order; ties come in together."""
    order = np.argsort(scores, kind="stable")
    ordered, errors = scores[order], np.cumsum(wrong[order])
    for step in range(max(1, math.ceil(STEPS * from_share)), STEPS + 1):
        taken = len(ordered) * step // STEPS
        if not taken:
            continue
        threshold = float(ordered[taken - 1])
        count = int(np.searchsorted(ordered, threshold, side="right"))
        found = int(errors[count - 1])
        yield _Point(
            threshold, count, found, tail(found, count, max_risk) if found < max_risk * count else 1.0
        )


@dataclass(frozen=True, eq=False)
class AbstentionRule:
    """When to answer: one threshold on each score alone, and one on their linear combination.

    direction (3,): of the combination; logarithmic: distances are never negative, and enter as
    their logarithm; length_scale: of the weights of further neighbours; thresholds: of each score;
    chosen: the score that decides; calibrated_on: how many queries; attainable: where nothing is
    answered, the least of a few greater risks at which something is, None without such.
    """

    direction: Float64s
    logarithmic: bool
    length_scale: float
    thresholds: dict[str, Threshold]
    chosen: str
    calibrated_on: int
    attainable: float | None = None

    def describe(self) -> str:
        """Return one sentence: how much is answered, and what to do where that is nothing."""
        best = self.best
        asked = f"of {self.calibrated_on} images of the gallery that search it"
        text = f"{asked}, {best.coverage:.0%} are answered at a risk of {best.max_risk:g}"
        if best.coverage:
            return text
        if self.attainable is None:
            return f"{text}; no risk up to {RISKS[-1]:g} can be held with these labels: add labelled images"
        return f"{text}; the least risk that could be held is about {self.attainable:g}: --max-risk {self.attainable:g}"

    @property
    def best(self) -> Threshold:
        """The threshold that decides."""
        return self.thresholds[self.chosen]

    def scores(self, inputs: AbstentionInputs) -> dict[str, Float64s]:
        """Return each score of n queries, higher = less sure, by its name."""
        features = inputs.features(self.length_scale, logarithmic=self.logarithmic)
        return {
            "uncertainty": inputs.uncertainty,
            "distance": inputs.nearest,
            "disagreement": features[:, 2],
            "combined": features @ self.direction,
        }

    def abstains(self, inputs: AbstentionInputs) -> Bools:
        """Say of n queries which not to answer; of those without a labelled neighbour, always."""
        there = np.isfinite(inputs.nearest)
        abstained: Bools = ~there
        known = inputs[there]
        abstained[there] = ~self.best.accepts(self.scores(known)[self.best.score])
        return abstained


def fit_rule(
    inputs: AbstentionInputs, wrong: Bools, max_risk: float, *, signed: bool = False
) -> AbstentionRule:
    """Fit on n queries whose outcome is known.

    A quarter says how to combine the inputs, which score to go by (the least area under its curve of
    risk and coverage) and where to begin; the others calibrate. signed: the distance may be negative.
    """
    rule = _fit_rule(inputs, wrong, max_risk, signed=signed)
    if rule.best.coverage:
        return rule
    greater = (risk for risk in RISKS if risk > max_risk)
    held = (risk for risk in greater if _fit_rule(inputs, wrong, risk, signed=signed).best.coverage)
    return replace(rule, attainable=next(held, None))


def _fit_rule(inputs: AbstentionInputs, wrong: Bools, max_risk: float, *, signed: bool) -> AbstentionRule:
    _check_share("max_risk", max_risk)
    fitting = np.arange(len(wrong)) % 4 == 0
    known = inputs[fitting]
    scale = known.length_scale()
    direction = _discriminant(known.features(scale, logarithmic=not signed), wrong[fitting])
    rule = AbstentionRule(direction, not signed, scale, {}, "combined", int((~fitting).sum()))
    before = rule.scores(known)
    thresholds = {
        name: fit_threshold(
            name, values, wrong[~fitting], max_risk, start=_start(before[name], wrong[fitting], max_risk)
        )
        for name, values in rule.scores(inputs[~fitting]).items()
    }
    area = {name: aurc(values, wrong[fitting].astype(np.float64)) for name, values in before.items()}
    return replace(rule, thresholds=thresholds, chosen=min(area, key=lambda name: area[name]))


def _start(scores: Float64s, wrong: Bools, max_risk: float) -> float:
    """Return the coverage to begin with: a safe part of the one that has the strongest evidence."""
    points = _points(scores, wrong, max_risk)
    surest = min(points, key=lambda point: (point.chance, -point.count), default=None)
    return 1.0 if surest is None else SAFE * surest.count / len(scores)


def _discriminant(values: Float64s, wrong: Bools) -> Float64s:
    """Return the direction (3,) in values (n, 3) that tells wrong from right best."""
    if not 0 < wrong.sum() < len(wrong):
        return np.array([0.0, 1.0, 0.0])
    groups = values[wrong], values[~wrong]
    within = np.concatenate([group - group.mean(axis=0) for group in groups])
    spread = within.T @ within / len(within) + 1e-9 * np.eye(values.shape[1])
    return np.linalg.solve(spread, groups[0].mean(axis=0) - groups[1].mean(axis=0))
