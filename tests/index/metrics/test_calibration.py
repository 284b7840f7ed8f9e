"""Calibration metrics against scikit-learn and against known probabilities."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from index.metrics import calibration

RANDOM = np.random.default_rng(0)
PROBABILITY = RANDOM.random(3000)
OUTCOME = RANDOM.random(3000) < PROBABILITY


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(calibration).failed == 0


def test_the_reliability_diagram_is_that_of_scikit_learn() -> None:
    predicted, observed, share = calibration.reliability(PROBABILITY, OUTCOME, 10)
    expected_observed, expected_predicted = calibration_curve(
        OUTCOME, PROBABILITY, n_bins=10, strategy="quantile"
    )
    np.testing.assert_allclose(predicted, expected_predicted, atol=2e-3)
    np.testing.assert_allclose(observed, expected_observed, atol=1e-2)
    np.testing.assert_allclose(share, 0.1)


def test_equal_probabilities_fill_the_bins_in_their_order() -> None:
    probability = np.tile([0.25, 0.75], 200)
    outcome = np.arange(400) < 200
    predicted, observed, _ = calibration.reliability(probability, outcome, 4)
    assert (predicted.tolist(), observed.tolist()) == ([0.25, 0.25, 0.75, 0.75], [1, 0, 1, 0])


def test_true_probabilities_are_calibrated_and_shifted_ones_off_by_the_shift() -> None:
    assert calibration.ece(PROBABILITY, OUTCOME) < 0.05  # 15 bins of 200: 0.03 by chance
    assert calibration.ece(np.full(3000, OUTCOME.mean() + 0.2), OUTCOME) == pytest.approx(0.2, abs=0.02)
    assert calibration.ece(np.array([0.75]), np.array([True])) == 0.25
    assert np.isnan(calibration.ece(np.empty(0), np.empty(0, bool)))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
def test_the_calibration_error_is_a_mean_gap(drawn: list[tuple[float, bool]], bins: int) -> None:
    probability, outcome = np.array([p for p, _ in drawn]), np.array([o for _, o in drawn])
    error = calibration.ece(probability, outcome, bins)
    assert 0 <= error <= 1
    assert error >= abs(probability.mean() - outcome.mean()) - 1e-9
    assert calibration.ece(probability, outcome, 1) == pytest.approx(abs(probability.mean() - outcome.mean()))
