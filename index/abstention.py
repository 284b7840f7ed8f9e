"""A risk the user can bear -> a threshold beyond which the answer is "I do not know".

On calibration queries whose outcome is known, the errors among those accepted at a threshold
are binomial. A threshold passes when so few errors would be rarer than delta at the allowed risk.
Thresholds are tried from a small coverage, fixed beforehand, upwards until one fails, which needs
no correction for their number; delta is divided among the scores tried. So with probability
1 - delta over the calibration queries, the risk on exchangeable queries is at most the one
allowed. (Fixed sequence testing: Angelopoulos et al., Learn then Test, 2021; selection with
guaranteed risk: Geifman and El-Yaniv, NeurIPS 2017.) Shape letter: n queries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vssl.errors import InputError

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
TINY = 1e-12
STEPS = 100  # thresholds, at equal steps of coverage


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
    scores: Mapping[str, Doubles], wrong: Bools, max_risk: float, *, delta: float = 0.05
) -> dict[str, Abstention]:
    """Return for each score (n,), higher = less sure, its threshold for errors `wrong` (n,).

    Raises InputError unless max_risk and delta lie between 0 and 1.
    """
    for name, value in (("max_risk", max_risk), ("delta", delta)):
        if not 0 < value < 1:
            raise InputError(f"found {name} {value}, expected a share between 0 and 1, as in --max-risk 0.05")
    level = delta / max(1, len(scores))
    return {name: _fit(name, values, wrong, max_risk, delta, level) for name, values in scores.items()}


def _fit(name: str, values: Doubles, wrong: Bools, max_risk: float, delta: float, level: float) -> Abstention:
    ordered = np.sort(values)
    # Fewer accepted than this could hold three times the errors that prove nothing.
    first = 3 * math.log(1 / level) / max_risk
    best = Abstention(name, -math.inf, 0.0, 0.0, max_risk, delta)
    for step in range(1, STEPS + 1):
        taken = len(ordered) * step // STEPS
        if taken < first and step < STEPS:
            continue
        accepted = values <= ordered[taken - 1] if taken else np.zeros(len(values), bool)
        count, errors = int(accepted.sum()), int(wrong[accepted].sum())  # ties come in together
        if not count or tail(errors, count, max_risk) > level:
            break
        threshold = float(ordered[taken - 1])
        best = Abstention(name, threshold, count / len(values), errors / count, max_risk, delta)
    return best


@dataclass(frozen=True, eq=False)
class Rule:
    """When to answer: one threshold each on the query's uncertainty, its neighbour's distance, and both.

    direction (2,): how both are joined, in the logarithm of the uncertainty and, where distances
    are positive (`logarithmic`), of the distance; thresholds: of each score; best: the
    score that answers most calibration queries; counted: how many those were.
    """

    direction: Doubles
    logarithmic: bool
    thresholds: dict[str, Abstention]
    counted: int

    @property
    def best(self) -> Abstention:
        """The threshold that answers most."""
        return widest(self.thresholds)

    def scores(self, uncertainty: Doubles, distance: Doubles) -> dict[str, Doubles]:
        """Return each score of n queries, higher = less sure, by its name."""
        joined: Doubles = _plane(uncertainty, distance, self.logarithmic) @ self.direction
        return {"uncertainty": uncertainty, "distance": distance, "both": joined}

    def answers(self, uncertainty: Doubles, distance: Doubles) -> Bools:
        """Say which of n queries are answered, by the best score."""
        return self.best.accepts(self.scores(uncertainty, distance)[self.best.score])


def fit_rule(
    uncertainty: Doubles, distance: Doubles, wrong: Bools, max_risk: float, *, signed: bool = False
) -> Rule:
    """Fit on n queries whose outcome is known: one half says how to join both scores, the other calibrates.

    signed: the distance may be negative.
    """
    first, second = slice(0, None, 2), slice(1, None, 2)
    direction = _discriminant(_plane(uncertainty[first], distance[first], not signed), wrong[first])
    rule = Rule(direction, not signed, {}, len(wrong[second]))
    scores = rule.scores(uncertainty[second], distance[second])
    return replace(rule, thresholds=fit_abstention(scores, wrong[second], max_risk))


def _plane(uncertainty: Doubles, distance: Doubles, logarithmic: bool) -> Doubles:
    """Return both as coordinates (n, 2)."""
    second = np.log(np.maximum(distance, TINY)) if logarithmic else distance
    return np.stack([np.log(np.maximum(uncertainty, TINY)), second], axis=1)


def _discriminant(values: Doubles, wrong: Bools) -> Doubles:
    """Return the direction (2,) in values (n, 2) that tells wrong from right best."""
    if not 0 < wrong.sum() < len(wrong):
        return np.array([0.0, 1.0])
    groups = values[wrong], values[~wrong]
    within = np.concatenate([group - group.mean(axis=0) for group in groups])
    spread = within.T @ within / len(within) + 1e-9 * np.eye(2)
    return np.linalg.solve(spread, groups[0].mean(axis=0) - groups[1].mean(axis=0))


def widest(fitted: Mapping[str, Abstention]) -> Abstention:
    """Return the one that answers most calibration queries; of equal ones the first."""
    return max(fitted.values(), key=lambda one: one.coverage)
