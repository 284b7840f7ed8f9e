"""A match probability means what it says, and is not given where it could not."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from index.calibration.match import MatchModel, fit_match
from vssl.errors import FormatError


def pairs(count: int, seed: int = 0):
    """Distances and uncertainties of pairs whose chance to match is a known logistic curve."""
    random = np.random.default_rng(seed)
    distance, query, item = random.uniform(0, 1, count), *np.exp(random.normal(-3, 1, (2, count)))
    logit = 3 - 6 * distance - 0.8 * (np.log(query) + 3) - 0.3 * (np.log(item) + 3)
    probability = 1 / (1 + np.exp(-logit))
    return distance, query, item, random.uniform(size=count) < probability, probability


def test_the_known_curve_is_found() -> None:
    distance, query, item, same, truth = pairs(20_000)
    model = fit_match(distance, query, item, same, signed=True)
    assert model is not None
    assert np.abs(model.probability(distance, query, item) - truth).max() < 0.05
    assert model.calibration_error < 0.03
    assert model.pairs == 20_000


def test_it_agrees_with_an_independent_fit() -> None:
    distance, query, item, same, _ = pairs(3000, seed=1)
    model = fit_match(distance, query, item, same, signed=True)
    assert model is not None
    columns = np.stack([distance, np.log(query), np.log(item)], axis=1)
    columns = (columns - columns.mean(0)) / columns.std(0)
    # scikit-learn's penalty is |w|^2 / 2C for a summed loss: the same ridge per pair.
    other = LogisticRegression(C=1 / (1e-3 * len(same)), tol=1e-10, max_iter=1000).fit(columns, same)
    expected = other.predict_proba(columns)[:, 1]
    np.testing.assert_allclose(model.probability(distance, query, item), expected, atol=1e-5)


def test_a_distance_that_is_never_negative_enters_by_its_logarithm() -> None:
    random = np.random.default_rng(0)
    distance = np.exp(random.normal(-2, 1, 20_000))
    truth = 1 / (1 + np.exp(3 * (np.log(distance) + 2)))
    same, flat = random.uniform(size=20_000) < truth, np.full(20_000, 0.1)
    model = fit_match(distance, flat, flat, same)
    assert model is not None
    assert np.abs(model.probability(distance, flat, flat) - truth).max() < 0.03
    raw = fit_match(distance, flat, flat, same, signed=True)
    assert raw is not None
    assert raw.calibration_error > 3 * model.calibration_error
    copies = model.probability(np.array([0.0, -1e-17, 1e-9]), flat[:1], flat[:1])
    assert (copies == copies[0]).all()
    assert 0.99 < copies[0] <= 1


def test_few_pairs_use_the_distance_alone() -> None:
    model = fit_match(*pairs(200)[:4])
    assert model is not None
    assert len(model.coefficients) == 2


def test_nothing_is_claimed_without_evidence() -> None:
    distance, query, item, same, _ = pairs(1000)
    few = slice(0, 40)
    assert fit_match(distance[few], query[few], item[few], same[few]) is None
    assert fit_match(distance, query, item, np.ones(1000, bool)) is None
    assert fit_match(distance, query, item, np.zeros(1000, bool)) is None
    assert fit_match(-distance, query, item, same) is None  # nearer would mean less likely


def test_separated_kinds_give_finite_probabilities() -> None:
    distance = np.concatenate([np.zeros(100), np.ones(100)])
    same = distance == 0
    model = fit_match(distance, np.full(200, 0.1), np.full(200, 0.1), same)
    assert model is not None
    found = model.probability(np.array([0.0, 1.0, 1e9]), np.array([0.1]), np.array([0.1]))
    assert found[0] > 0.9
    assert found[1] < 0.1
    assert np.isfinite(found).all()


def test_the_model_travels_as_json() -> None:
    model = fit_match(*pairs(1000)[:4])
    assert model is not None
    assert MatchModel.from_json(model.to_json()) == model
    with pytest.raises(FormatError, match="match calibration"):
        MatchModel.from_json('{"pairs": 1}')
