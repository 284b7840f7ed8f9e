"""A match probability means what it says, and is not given where it could not."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from index.calibration.match import MatchModel, Votes, fit_match, votes
from index.metrics.calibration import ece
from index.metrics.uncertainty import r_auroc
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


def test_uncertainties_that_tell_more_than_the_distance_leave_a_curve_of_the_distance_alone() -> None:
    random = np.random.default_rng(5)
    query = random.uniform(0.05, 1.0, 4000)
    # Sure queries find what is right, and nearer; among equally sure ones the nearer is slightly less likely.
    distance = query + 0.3 * random.uniform(size=4000)
    same = random.uniform(size=4000) < 1 / (1 + np.exp(8 * (query - 0.5) - 3 * (distance - query - 0.15)))
    model = fit_match(distance, query, np.full(4000, 0.5), same)
    assert model is not None
    assert len(model.coefficients) == 2
    nearer, farther = model.probability(np.array([0.2, 1.1]), np.array(0.5), np.array(0.5))
    assert nearer > farther + 0.5


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
    for model in (fit_match(*pairs(1000)[:4]), fitted(*searches(1000))):
        assert model is not None
        assert MatchModel.from_json(model.to_json()) == model
    with pytest.raises(FormatError, match="match calibration"):
        MatchModel.from_json('{"pairs": 1}')


def searches(count: int, seed: int = 0):
    """Distances (Q, 20), labels of the neighbours and of the queries: how likely a match is varies by query."""
    random = np.random.default_rng(seed)
    distance = np.sort(np.exp(random.normal(-1, 0.3, (count, 20))), axis=1)
    own, clear = random.integers(20, size=count), random.beta(0.7, 0.5, count)[:, None]
    other = (own[:, None] + random.integers(1, 20, (count, 20))) % 20
    return (
        distance,
        np.where(random.uniform(size=(count, 20)) < clear ** (3 * distance), own[:, None], other),
        own,
    )


def fitted(distance, codes, own):
    said = votes(distance, codes, signed=False)
    heard = Votes(said.log_odds.ravel(), said.is_nearest.ravel(), said.length)
    flat = np.full(distance.size, 0.1)
    return fit_match(distance.ravel(), flat, flat, (codes == own[:, None]).ravel(), heard=heard)


def test_votes_of_the_other_neighbours_tell_right_from_wrong_and_stay_calibrated() -> None:
    model, flat = fitted(*searches(1000)), np.full((1000, 20), 0.1)
    assert model is not None
    distance, codes, own = searches(1000, seed=1)
    same = codes == own[:, None]
    joined = model.probability(distance, flat, flat, model.votes(distance, codes))
    alone = model.probability(distance, flat, flat)
    assert r_auroc(-joined[:, 0], same[:, 0]) > r_auroc(-alone[:, 0], same[:, 0]) + 0.2
    assert ece(joined.ravel(), same.ravel()) < 0.04
    assert ece(joined[:, 0], same[:, 0]) < 0.05
    assert model.calibration_error < 0.04


def test_votes_agree_with_a_slow_count() -> None:
    distance, codes, _ = searches(8)
    codes[2, 4], codes[5, :] = -1, -1
    said = votes(distance, codes, signed=False)
    for query, (reach, labels) in enumerate(zip(distance, codes, strict=True)):
        weight = [
            (reach[0] / one) ** 4 if label >= 0 else 0.0 for one, label in zip(reach, labels, strict=True)
        ]
        for own in range(20):
            others = [other for other in range(20) if other != own]
            agree = sum(weight[one] for one in others if labels[one] == labels[own])
            against = sum(weight[one] for one in others if labels[one] != labels[own])
            expected = np.nan if labels[own] < 0 else np.log((agree + 0.5) / (against + 0.5))
            np.testing.assert_allclose(said.log_odds[query, own], expected)
    assert said.is_nearest[:, 0].all()
    assert not said.is_nearest[:, 1:].any()


def test_a_neighbour_without_votes_is_judged_by_itself() -> None:
    model, flat = fitted(*searches(1000)), np.full((3, 1), 0.1)
    assert model is not None
    distance = np.array([[0.1], [0.3], [0.9]])
    nobody = model.votes(distance, np.array([[0], [-1], [2]]))
    np.testing.assert_array_equal(
        model.probability(distance, flat, flat, nobody), model.probability(distance, flat, flat)
    )


def test_a_model_of_before_is_read_as_it_was_and_not_current() -> None:
    model = fit_match(*pairs(1000)[:4], signed=True)
    assert model is not None
    assert model.is_current
    before = json.loads(model.to_json())
    for name in ("with_votes", "length", "formula"):
        del before[name]
    read = MatchModel.from_json(json.dumps(before))
    assert not read.is_current
    distance, query, item, _, _ = pairs(50)
    assert read.votes(distance[None], np.zeros((1, 50), np.int64)) is None
    np.testing.assert_array_equal(
        read.probability(distance, query, item), model.probability(distance, query, item)
    )
