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
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vssl.errors import InputError

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
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


def widest(fitted: Mapping[str, Abstention]) -> Abstention:
    """Return the one that answers most calibration queries; of equal ones the first."""
    return max(fitted.values(), key=lambda one: one.coverage)
