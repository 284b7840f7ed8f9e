"""Uncertainties and outcomes -> whether the unsure are the wrong ones.

`uncertainty` (n,) is higher for less sure, `error` (n,) is 1 for wrong and 0 for right, or any
loss of at least 0. Ties in uncertainty count as their average over all orders. Shape letter: n
queries.
"""

from __future__ import annotations

import numpy as np

from index.arrays import Bools, Float64s
from vssl.rank_statistics import auroc


def r_auroc(uncertainty: Float64s, correct: Bools) -> float:
    """Return the AUROC of minus the uncertainty for "the nearest neighbour is correct".

    0.5 is chance (Kirchhof et al., URL benchmark, NeurIPS 2023).

    >>> r_auroc(np.array([0.1, 0.2, 0.9]), np.array([True, True, False]))
    1.0
    """
    return auroc(-uncertainty, correct)


def false_positives_at(score: Float64s, positive: Bools, share: float = 0.95) -> float:
    """Return the share of negatives at or above the threshold that `share` of the positives reach.

    For FPR95 of out-of-distribution detection the positives are the images from elsewhere.

    >>> false_positives_at(np.array([4.0, 3, 2, 1]), np.array([True, False, True, False]))
    0.5
    """
    reached = np.sort(score[positive])[::-1]
    if not len(reached) or positive.all():
        return float("nan")
    threshold = reached[int(np.ceil(share * len(reached))) - 1]
    return float((score[~positive] >= threshold).mean())


def selective_risk(uncertainty: Float64s, error: Float64s) -> Float64s:
    """Return (n,): the mean error of the i + 1 surest, the risk at coverage (i + 1)/n.

    >>> selective_risk(np.array([0.1, 0.2, 0.3]), np.array([0.0, 1.0, 1.0]))
    array([0.        , 0.5       , 0.66666667])
    """
    _, level, counts = np.unique(uncertainty, return_inverse=True, return_counts=True)
    averaged = np.repeat(np.bincount(level, weights=error) / counts, counts)
    risk: Float64s = np.cumsum(averaged) / np.arange(1, len(error) + 1)
    return risk


def aurc(uncertainty: Float64s, error: Float64s) -> float:
    """Return the area under the risk-coverage curve, the mean of the selective risks.

    >>> round(aurc(np.array([0.1, 0.2, 0.3]), np.array([0.0, 1.0, 1.0])), 6)
    0.388889
    """
    return float(selective_risk(uncertainty, error).mean())


def e_aurc(uncertainty: Float64s, error: Float64s) -> float:
    """Return the excess of `aurc` over the oracle that rejects the true errors first; 0 is perfect.

    >>> e_aurc(np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.0, 1.0]))
    0.0
    """
    return aurc(uncertainty, error) - aurc(error, error)


def augrc(uncertainty: Float64s, error: Float64s) -> float:
    """Return the mean over coverages of (errors among the accepted) / n: undetected failures.

    (Traub et al., 2024.)

    >>> round(augrc(np.array([0.1, 0.2, 0.3]), np.array([0.0, 1.0, 1.0])), 6)
    0.333333
    """
    coverage = np.arange(1, len(error) + 1) / len(error)
    return float((selective_risk(uncertainty, error) * coverage).mean())


def ause(uncertainty: Float64s, error: Float64s) -> float:
    """Return the area between the sparsification curves by uncertainty and by true error.

    Each curve is the mean error of what is left, as a share of the mean error of all (Ilg et al.,
    ECCV 2018); 0 is perfect, and not a number without errors.

    >>> round(ause(np.array([0.3, 0.2, 0.1]), np.array([0.0, 0.0, 1.0])), 6)
    1.5
    """
    mean = float(error.mean())
    return e_aurc(uncertainty, error) / mean if mean > 0 else float("nan")


def risk_at(uncertainty: Float64s, error: Float64s, coverage: float) -> float:
    """Return the mean error of the surest `coverage` of the queries (at least one).

    >>> risk_at(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 0.0, 1.0, 1.0]), 0.75)
    0.3333333333333333
    """
    taken = max(1, round(coverage * len(error)))
    return float(selective_risk(uncertainty, error)[taken - 1])
