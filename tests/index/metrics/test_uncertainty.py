"""Uncertainty metrics against scikit-learn and their definitions."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from sklearn import metrics as sk

from index.metrics import uncertainty

RANDOM = np.random.default_rng(0)
SCORE = np.round(RANDOM.normal(size=300), 1)  # with ties
RIGHT = RANDOM.random(300) < 0.7 - 0.2 * np.tanh(SCORE)
ERROR = (~RIGHT).astype(np.float64)


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(uncertainty).failed == 0


def test_r_auroc_is_that_of_scikit_learn() -> None:
    assert uncertainty.r_auroc(SCORE, RIGHT) == pytest.approx(1 - sk.roc_auc_score(RIGHT, SCORE), rel=1e-12)
    assert np.isnan(uncertainty.r_auroc(SCORE, np.ones(300, bool)))


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95, 1.0])
def test_false_positives_are_read_off_the_roc_curve(share: float) -> None:
    false, true, _ = sk.roc_curve(RIGHT, SCORE, drop_intermediate=False)
    assert uncertainty.false_positives_at(SCORE, RIGHT, share) == pytest.approx(
        false[true >= share - 1e-12].min()
    )
    assert np.isnan(uncertainty.false_positives_at(SCORE, np.ones(300, bool)))


def test_selective_risk_is_the_mean_over_every_order_of_ties() -> None:
    risks = []
    for _ in range(3000):
        order = np.lexsort((RANDOM.random(300), SCORE))
        risks.append(np.cumsum(ERROR[order]) / np.arange(1, 301))
    measured, error = np.mean(risks, axis=0), np.std(risks, axis=0) / 3000**0.5
    assert (np.abs(uncertainty.selective_risk(SCORE, ERROR) - measured) <= 6 * error + 1e-9).all()


def test_areas_follow_from_the_selective_risk() -> None:
    order = np.argsort(RANDOM.normal(size=300))
    score = np.empty(300)
    score[order] = np.arange(300)
    risk = [ERROR[order][: i + 1].mean() for i in range(300)]
    best = [np.sort(ERROR)[: i + 1].mean() for i in range(300)]
    assert uncertainty.aurc(score, ERROR) == pytest.approx(np.mean(risk))
    assert uncertainty.e_aurc(score, ERROR) == pytest.approx(np.mean(risk) - np.mean(best))
    assert uncertainty.ause(score, ERROR) == pytest.approx((np.mean(risk) - np.mean(best)) / ERROR.mean())
    undetected = [ERROR[order][: i + 1].sum() / 300 for i in range(300)]
    assert uncertainty.augrc(score, ERROR) == pytest.approx(np.mean(undetected))
    assert uncertainty.risk_at(score, ERROR, 0.8) == pytest.approx(ERROR[order][:240].mean())


def test_a_negative_at_the_threshold_is_a_false_positive() -> None:
    score, positive = np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, False, False])
    assert uncertainty.false_positives_at(score, positive, 1.0) == 0.5


def test_the_risk_at_no_coverage_is_that_of_the_surest() -> None:
    assert uncertainty.risk_at(np.array([0.2, 0.1]), np.array([1.0, 0.0]), 0.0) == 0.0


def test_the_oracle_has_no_excess_and_nothing_wrong_has_no_sparsification() -> None:
    assert uncertainty.e_aurc(ERROR, ERROR) == 0.0
    assert uncertainty.ause(ERROR, ERROR) == 0.0
    assert np.isnan(uncertainty.ause(SCORE, np.zeros(300)))
