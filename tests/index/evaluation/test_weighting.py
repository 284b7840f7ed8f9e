"""Weights that read the variance do what their formula says, at a temperature that calibrates."""

from __future__ import annotations

import numpy as np
import pytest

from index.distances import DistanceParameters, fit_prior, pairwise
from index.evaluation.vote import votes
from index.evaluation.weighting import (
    TEMPERATURES,
    WEIGHTINGS,
    Ballot,
    ballot,
    fit_temperature,
    log_weights,
    probabilities,
)
from index.metrics.calibration import ece
from tests.index.regimes import gaussians

ITEMS, QUERIES = gaussians(50, 6, regime="wide"), gaussians(8, 6, regime="wide", seed=1)
CODES = np.random.default_rng(0).integers(0, 3, 50)
COSINE = 1 - pairwise("cosine", QUERIES, ITEMS)
ROWS = np.argsort(-COSINE, axis=1)[:, :10]
BALLOT = ballot(QUERIES, ITEMS, CODES, ROWS, np.take_along_axis(COSINE, ROWS, axis=1))


def test_a_ballot_gathers_what_the_found_items_are() -> None:
    np.testing.assert_array_equal(BALLOT.codes, CODES[ROWS])
    np.testing.assert_allclose(BALLOT.trace, ITEMS.variance.sum(axis=1)[ROWS], rtol=1e-6)
    np.testing.assert_allclose(
        BALLOT.likelihood, -np.take_along_axis(pairwise("mls", QUERIES, ITEMS), ROWS, axis=1)
    )
    np.testing.assert_allclose(
        BALLOT.ratio, -np.take_along_axis(pairwise("posterior", QUERIES, ITEMS), ROWS, axis=1)
    )
    fitted = {name: DistanceParameters(alpha=0.5) for name in ("mls", "posterior")}
    fitted["posterior"] = fit_prior(ITEMS, parameters=fitted["posterior"])
    other = ballot(QUERIES, ITEMS, CODES, ROWS, BALLOT.cosine, fitted)
    for name, found in (("mls", other.likelihood), ("posterior", other.ratio)):
        expected = np.take_along_axis(pairwise(name, QUERIES, ITEMS, fitted[name]), ROWS, axis=1)
        np.testing.assert_allclose(found, -expected)
    np.testing.assert_array_equal(BALLOT.nearest(4).ratio, BALLOT.ratio[:, :4])
    np.testing.assert_array_equal(BALLOT.nearest(4).codes, BALLOT.codes[:, :4])
    missing = ballot(QUERIES, ITEMS, CODES, np.full((8, 2), -1), np.full((8, 2), -np.inf))
    assert (missing.codes == -1).all()
    assert (votes(missing.codes, log_weights("likelihood", missing, 1.0), 3) == 0).all()


def test_weights_follow_their_formulas() -> None:
    weight = {kind: np.exp(log_weights(kind, BALLOT, 0.5)) for kind in WEIGHTINGS}
    np.testing.assert_allclose(weight["cosine"], np.exp(BALLOT.cosine / 0.5))
    np.testing.assert_allclose(weight["inverse-variance"], np.exp(BALLOT.cosine / 0.5) / BALLOT.trace)
    np.testing.assert_allclose(
        weight["attenuated"], np.exp(BALLOT.cosine * (1 - ITEMS.uncertainty)[ROWS] / 0.5), rtol=1e-6
    )
    np.testing.assert_allclose(weight["likelihood"], np.exp(BALLOT.likelihood) ** 2)
    np.testing.assert_allclose(weight["posterior"], np.exp(BALLOT.ratio) ** 2)


@pytest.mark.parametrize("true", [TEMPERATURES[6], TEMPERATURES[12]])
def test_the_fitted_temperature_is_the_one_that_drew_the_classes(true: float) -> None:
    random = np.random.default_rng(0)
    count, k, classes = 3000, 20, 4
    codes = random.integers(0, classes, (count, k))
    cosine = random.uniform(-0.5, 1, (count, k))
    ones = np.ones_like(cosine)
    made = Ballot(codes, cosine, ones, ones, cosine, cosine)
    chance = probabilities(votes(codes, cosine / true, classes), k)
    truth = np.array([random.choice(classes, p=row) for row in chance])
    fitted = fit_temperature("cosine", made, truth, classes)
    assert 0.7 < fitted / true < 1.5
    found = probabilities(votes(codes, log_weights("cosine", made, fitted), classes), k)
    assert ece(found.max(axis=1), found.argmax(axis=1) == truth) < 0.03


def test_probabilities_sum_to_one_and_none_is_zero() -> None:
    shares = np.array([[1.0, 0.0], [0.0, 0.0]])
    found = probabilities(shares, 4)
    assert found.min() > 0
    assert found[0].sum() == pytest.approx(1)
