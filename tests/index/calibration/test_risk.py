"""Risk of an answer: distance, dissent of the neighbours and uncertainty joined, as a rank in the gallery."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from index.calibration.risk import FEWEST, RiskModel, fit_risk
from index.metrics.uncertainty import r_auroc
from index.search.exact import ExactIndex
from index.search.neighbour_graph import leave_out_own
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import FormatError

Found = tuple[NDArray[np.float64], NDArray[np.int64]]


def photos(count: int, seed: int = 0) -> tuple[Vectors, NDArray[np.int64]]:
    """Items (N, 16) of twelve kinds that overlap, and their kinds."""
    random = np.random.default_rng(seed)
    kinds = random.integers(12, size=count)
    middles = 1.6 * np.random.default_rng(7).standard_normal((12, 16))
    means = (middles[kinds] + random.standard_normal((count, 16))).astype(np.float32)
    return Vectors(GaussianEmbedding(means, np.ones_like(means))), kinds


def among_themselves(items: Vectors, k: int = 20) -> Found:
    index, rows = ExactIndex.build("cosine", items), np.arange(len(items))
    return leave_out_own(*index.search(items[rows], k + 1), rows, k)


def fitted(items: Vectors, found: Found, unsure: NDArray[np.float32]) -> RiskModel:
    model = fit_risk(items.mean, items, *found, unsure, unsure)
    assert model is not None
    return model


def test_joined_it_foretells_wrong_neighbours_better_than_the_distance_alone() -> None:
    items, kinds = photos(1500)
    found = among_themselves(items)
    correct = kinds[found[1][:, 0]] == kinds
    unsure = np.full(len(items), 0.5, np.float32)
    scores = fitted(items, found, unsure).scores(items, *found, unsure, unsure)
    assert r_auroc(scores, correct) > r_auroc(found[0][:, 0], correct) + 0.02


@pytest.mark.parametrize(("differ", "weights"), [(True, (1.0, 0.75, 1.5)), (False, (1.0, 1.0, 1.0))])
def test_uncertainty_weighs_most_where_images_differ_in_it(
    differ: bool, weights: tuple[float, float, float]
) -> None:
    items, _ = photos(800)
    found = among_themselves(items)
    unsure = np.random.default_rng(1).uniform(0.1, 0.9, 800).astype(np.float32)
    unsure = unsure if differ else np.full(800, 0.5, np.float32)
    model = fitted(items, found, unsure)
    for part, weight in enumerate(weights):
        alone = np.where(np.arange(3) == part, model.scale, np.inf)
        scores = replace(model, scale=alone).scores(items, *found, unsure, unsure)
        assert scores.std() == pytest.approx(weight, rel=1e-6)


def pairs_among_strangers(
    kinds: int = 400, each: int = 3, seed: int = 0
) -> tuple[Vectors, NDArray[np.int64]]:
    """Items of many kinds of few images: what is right lies near, and all further ones are of other kinds."""
    random = np.random.default_rng(seed)
    middles, own = random.standard_normal((kinds, 16)), np.repeat(np.arange(kinds), each)
    spread = 0.3 * np.exp(0.5 * random.standard_normal((kinds, 1)))[own]
    means = (middles[own] + spread * random.standard_normal((len(own), 16))).astype(np.float32)
    return Vectors(GaussianEmbedding(means, np.ones_like(means))), own


def test_where_kinds_have_few_images_it_is_not_worse_than_the_distance() -> None:
    items, kinds = pairs_among_strangers()
    found = among_themselves(items)
    correct = kinds[found[1][:, 0]] == kinds
    assert 0.6 < correct.mean() < 0.95
    unsure = np.random.default_rng(2).random(len(items)).astype(np.float32)  # that says nothing
    scores = fitted(items, found, unsure).scores(items, *found, unsure, unsure)
    assert r_auroc(scores, correct) > r_auroc(found[0][:, 0], correct) - 0.01


def test_far_neighbours_say_nothing_and_take_nothing_from_what_is_said() -> None:
    items, _ = photos(800)
    found, unsure = among_themselves(items), np.full(800, 0.5, np.float32)
    model = fitted(items, found, unsure)
    far = found[0].copy()
    far[:, 5:] *= 1e6
    few = model.scores(items, far[:, :6], found[1][:, :6], unsure, unsure)
    cut = model.scores(items, far[:, :5], found[1][:, :5], unsure, unsure)
    # Only the share of neighbours that lie about as near has changed, and that makes it less risky.
    assert (few <= cut + 1e-9).all()


def test_a_distance_that_may_be_negative_is_joined_whatever_its_zero_and_unit() -> None:
    items, _ = photos(800)
    distances, rows = among_themselves(items)
    unsure = np.full(800, 0.5, np.float32)
    scores = []
    for shifted in (distances, 40 * (distances - 5.0)):
        model = fit_risk(items.mean, items, shifted, rows, unsure, unsure, signed=True)
        assert model is not None
        scores.append(model.scores(items, shifted, rows, unsure, unsure))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)


def test_a_model_of_before_is_read_and_not_current() -> None:
    items, _ = photos(500)
    found, unsure = among_themselves(items), np.full(500, 0.5, np.float32)
    model = fitted(items, found, unsure)
    assert model.is_current
    before = json.loads(model.to_json())
    del before["length"]
    assert not RiskModel.from_json(json.dumps(before)).is_current


def test_it_is_the_share_of_the_gallerys_own_answers_that_are_safer() -> None:
    items, _ = photos(800)
    found, unsure = among_themselves(items), np.random.default_rng(1).random(800).astype(np.float32)
    model = fitted(items, found, unsure)
    risk, scores = (f(items, *found, unsure, unsure) for f in (model.risk, model.scores))
    safer = (scores[None, :] < scores[:, None]).mean(axis=1)
    np.testing.assert_allclose(risk, safer, atol=0.01)


def test_a_farther_nearest_and_an_unsurer_query_are_riskier() -> None:
    items, _ = photos(800)
    found, unsure = among_themselves(items), np.full(800, 0.5, np.float32)
    model = fitted(items, found, unsure)
    near = model.scores(items, *found, unsure, unsure)
    assert (model.scores(items, 2 * found[0], found[1], unsure, unsure) > near).all()
    assert (model.scores(items, *found, unsure + 0.4, unsure) > near).all()


def test_neighbours_that_are_missing_do_not_dissent() -> None:
    items, _ = photos(800)
    found, unsure = among_themselves(items), np.full(800, 0.5, np.float32)
    model = fitted(items, found, unsure)
    distances, rows = (part.copy() for part in found)
    distances[:, 5:], rows[:, 5:] = np.inf, -1
    few = model.scores(items, distances, rows, unsure, unsure)
    cut = model.scores(items, distances[:, :5], rows[:, :5], unsure, unsure)
    np.testing.assert_allclose(few, cut)


def test_it_is_kept_as_text() -> None:
    items, _ = photos(500)
    found, unsure = among_themselves(items), np.full(500, 0.5, np.float32)
    model = fitted(items, found, unsure)
    again = RiskModel.from_json(model.to_json())
    np.testing.assert_array_equal(
        again.risk(items, *found, unsure, unsure), model.risk(items, *found, unsure, unsure)
    )
    with pytest.raises(FormatError, match="vssl gallery compact"):
        RiskModel.from_json('{"directions": 1}')


def test_few_items_have_none() -> None:
    items, _ = photos(FEWEST - 1)
    assert fit_risk(items.mean, items, *among_themselves(items), np.zeros(1), np.zeros(1)) is None
