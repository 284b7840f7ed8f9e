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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from index.evidence import Bools, Doubles, Evidence
from index.results import SearchResult
from vssl.errors import InputError

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
    """When to answer: one threshold on each piece of evidence, and one on all of it together.

    direction (3,): how the pieces are joined; logarithmic: distances are positive, and enter as
    their logarithm; pace: the unit of distance in which neighbours lose their say; thresholds: of
    each score; counted: how many queries calibrated them.
    """

    direction: Doubles
    logarithmic: bool
    pace: float
    thresholds: dict[str, Abstention]
    counted: int

    @property
    def best(self) -> Abstention:
        """The threshold that answers most."""
        return widest(self.thresholds)

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
    """Fit on n queries whose outcome is known: one half says how to join the evidence, the other calibrates.

    signed: the distance may be negative.
    """
    first, second = slice(0, None, 2), slice(1, None, 2)
    pace = evidence[first].pace()
    direction = _discriminant(evidence[first].coordinates(pace, logarithmic=not signed), wrong[first])
    rule = Rule(direction, not signed, pace, {}, len(wrong[second]))
    return replace(rule, thresholds=fit_abstention(rule.scores(evidence[second]), wrong[second], max_risk))


def _discriminant(values: Doubles, wrong: Bools) -> Doubles:
    """Return the direction (3,) in values (n, 3) that tells wrong from right best."""
    if not 0 < wrong.sum() < len(wrong):
        return np.array([0.0, 1.0, 0.0])
    groups = values[wrong], values[~wrong]
    within = np.concatenate([group - group.mean(axis=0) for group in groups])
    spread = within.T @ within / len(within) + 1e-9 * np.eye(values.shape[1])
    return np.linalg.solve(spread, groups[0].mean(axis=0) - groups[1].mean(axis=0))


def widest(fitted: Mapping[str, Abstention]) -> Abstention:
    """Return the one that answers most calibration queries; of equal ones the first."""
    return max(fitted.values(), key=lambda one: one.coverage)
