"""A risk the user can bear -> a threshold beyond which the answer is "I do not know".

On calibration queries whose outcome is known, the errors among those accepted at a threshold
are binomial. A threshold passes when so few errors would be rarer than delta at the allowed risk.
Thresholds are tried from a coverage that was fixed beforehand upwards until one fails, which needs
no correction for their number. So with probability 1 - delta over the calibration queries, the
risk on exchangeable queries is at most the one allowed. (Fixed sequence testing: Angelopoulos et
al., Learn then Test, 2021; selection with guaranteed risk: Geifman and El-Yaniv, NeurIPS 2017.)
What is fixed beforehand, the score and where its sequence begins, comes from other queries.
Shape letter: n queries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from index.answers.results import SearchResult
from index.calibration.neighbour_disagreement import Bools, Doubles, Evidence
from index.metrics.uncertainty import aurc
from vssl.errors import InputError

STEPS = 100  # thresholds, at equal steps of coverage
DELTA = 0.05
SAFE = 0.6  # of that coverage: other queries may be less lucky
LEAST, MOST = 4000, 10_000
WORK = 500_000_000  # comparisons of a query with an item that a calibration may take


def calibration_size(items: int) -> int:
    """Return how many items of a gallery should search it: 10,000, fewer where there are over 50,000, at least 4,000.

    >>> calibration_size(100_000)
    5000
    """
    return min(MOST, max(LEAST, WORK // max(1, items)))


@dataclass(frozen=True)
class Abstention:
    """Accept where `score` is at most `threshold`; minus infinity accepts nothing.

    coverage, risk: on the calibration queries; max_risk, delta: what is promised.
    """

    score: str
    threshold: float
    coverage: float
    risk: float
    max_risk: float
    delta: float

    def accepts(self, scores: Doubles) -> Bools:
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


def fit_abstention(
    name: str,
    scores: Doubles,
    wrong: Bools,
    max_risk: float,
    *,
    start: float,
    delta: float = DELTA,
) -> Abstention:
    """Return the threshold of a score (n,), higher = less sure, for errors `wrong` (n,).

    start: the coverage that is tried first, chosen without these outcomes. Raises InputError
    unless max_risk and delta lie between 0 and 1.
    """
    _check_share("max_risk", max_risk)
    _check_share("delta", delta)
    best = Abstention(name, -math.inf, 0.0, 0.0, max_risk, delta)
    for point in _points(scores, wrong, max_risk, from_share=start):
        if point.chance > delta:
            break
        share = point.count / len(scores)
        best = Abstention(name, point.threshold, share, point.errors / point.count, max_risk, delta)
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


def _points(scores: Doubles, wrong: Bools, max_risk: float, *, from_share: float = 0.0) -> Iterator[_Point]:
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
class Rule:
    """When to answer: one threshold on each piece of evidence, and one on all of it together.

    direction (3,): how the pieces are joined; logarithmic: distances are positive, and enter as
    their logarithm; pace: the unit of distance in which neighbours lose their say; thresholds: of
    each score; chosen: the score that decides; counted: how many queries calibrated it.
    """

    direction: Doubles
    logarithmic: bool
    pace: float
    thresholds: dict[str, Abstention]
    chosen: str
    counted: int

    @property
    def best(self) -> Abstention:
        """The threshold that decides."""
        return self.thresholds[self.chosen]

    def scores(self, evidence: Evidence) -> dict[str, Doubles]:
        """Return each score of n queries, higher = less sure, by its name."""
        pieces = evidence.coordinates(self.pace, logarithmic=self.logarithmic)
        return {
            "uncertainty": evidence.uncertainty,
            "distance": evidence.nearest,
            "dissent": pieces[:, 2],
            "together": pieces @ self.direction,
        }

    def answers(self, evidence: Evidence) -> Bools:
        """Say which of n queries are answered, by the best score."""
        return self.best.accepts(self.scores(evidence)[self.best.score])

    def abstains(self, results: Sequence[SearchResult]) -> list[bool]:
        """Say of search results which not to trust; of those without a labelled neighbour, always."""
        evidence = Evidence.of(results)
        doubtful: Bools = ~np.isfinite(evidence.nearest)
        doubtful[~doubtful] = ~self.answers(evidence[~doubtful])
        return [bool(one) for one in doubtful]


def fit_rule(evidence: Evidence, wrong: Bools, max_risk: float, *, signed: bool = False) -> Rule:
    """Fit on n queries whose outcome is known.

    A quarter says how to join the evidence, which score to go by (the least area under its curve of
    risk and coverage) and where to begin; the others calibrate. signed: the distance may be negative.
    """
    _check_share("max_risk", max_risk)
    fitting = np.arange(len(wrong)) % 4 == 0
    known = evidence[fitting]
    pace = known.pace()
    direction = _discriminant(known.coordinates(pace, logarithmic=not signed), wrong[fitting])
    rule = Rule(direction, not signed, pace, {}, "together", int((~fitting).sum()))
    before = rule.scores(known)
    thresholds = {
        name: fit_abstention(
            name, values, wrong[~fitting], max_risk, start=_start(before[name], wrong[fitting], max_risk)
        )
        for name, values in rule.scores(evidence[~fitting]).items()
    }
    area = {name: aurc(values, wrong[fitting].astype(np.float64)) for name, values in before.items()}
    return replace(rule, thresholds=thresholds, chosen=min(area, key=lambda name: area[name]))


def _start(scores: Doubles, wrong: Bools, max_risk: float) -> float:
    """Return the coverage to begin with: a safe part of the one whose errors speak most clearly for it."""
    points = _points(scores, wrong, max_risk)
    surest = min(points, key=lambda point: (point.chance, -point.count), default=None)
    return 1.0 if surest is None else SAFE * surest.count / len(scores)


def _discriminant(values: Doubles, wrong: Bools) -> Doubles:
    """Return the direction (3,) in values (n, 3) that tells wrong from right best."""
    if not 0 < wrong.sum() < len(wrong):
        return np.array([0.0, 1.0, 0.0])
    groups = values[wrong], values[~wrong]
    within = np.concatenate([group - group.mean(axis=0) for group in groups])
    spread = within.T @ within / len(within) + 1e-9 * np.eye(values.shape[1])
    return np.linalg.solve(spread, groups[0].mean(axis=0) - groups[1].mean(axis=0))
