"""Variance scores against their definition, and what neighbours say of an answer."""

import numpy as np
import pytest

from index.answers.result_building import abstention_inputs, variance_scores, with_abstention
from index.answers.results import Neighbour, SearchResult
from index.calibration.abstention import NEIGHBOURS, fit_rule
from index.search.vectors import Vectors
from tests.index.calibration.test_abstention import draw_inputs
from tests.index.samples import gaussians


def test_the_variance_score_is_a_share_of_the_expected_squared_distance() -> None:
    items, queries = gaussians(20), gaussians(3, seed=1)
    found = np.array([[0, 5], [7, 7], [19, -1]])
    scores = variance_scores(Vectors(items), queries, found)
    random = np.random.default_rng(0)
    for q in range(3):
        for j in range(2):
            row = max(found[q, j], 0)
            mean = [g.mean[i].astype(float) for g, i in ((queries, q), (items, row))]
            spread = [g.variance[i].astype(float) for g, i in ((queries, q), (items, row))]
            drawn = [random.normal(m, np.sqrt(s), (40_000, 8)) for m, s in zip(mean, spread, strict=True)]
            expected = ((drawn[0] - drawn[1]) ** 2).sum(axis=1).mean()
            share = (spread[0].sum() + spread[1].sum()) / expected
            assert scores[q, j] == pytest.approx(share, rel=0.02)


def test_the_score_of_an_image_to_itself_is_all_variance() -> None:
    items = gaussians(3)
    assert variance_scores(Vectors(items), items[:1], np.array([[0]]))[0, 0] == 1.0


def answer(*found: tuple[str | None, float], uncertainty: float = 1.0) -> SearchResult:
    neighbours = [
        Neighbour(str(n), label, "", distance, 0.5, None, 0.1) for n, (label, distance) in enumerate(found)
    ]
    return SearchResult(uncertainty, None, neighbours)


def test_disagreement_is_the_weight_of_those_with_another_label() -> None:
    inputs = abstention_inputs([answer(("cat", 1.0), ("dog", 1.0), ("cat", 2.0), ("dog", 3.0))])
    weight = [1.0, 1.0, np.exp(-1 / 2), np.exp(-2 / 2)]
    assert inputs.disagreement(2.0)[0] == pytest.approx((weight[1] + weight[3]) / sum(weight))
    assert inputs.nearest[0] == 1.0
    assert inputs.agree[0, :4].tolist() == [True, False, True, False]


def test_nothing_disagrees_with_a_single_neighbour() -> None:
    assert abstention_inputs([answer(("cat", 0.5))]).disagreement(1.0)[0] == 0.0


def test_neighbours_without_a_label_have_no_say() -> None:
    some = abstention_inputs([answer((None, 0.1), ("cat", 0.2), (None, 0.3), ("dog", 0.4))])
    alone = abstention_inputs([answer(("cat", 0.2), ("dog", 0.4))])
    np.testing.assert_array_equal(some.distance, alone.distance)
    np.testing.assert_array_equal(some.agree, alone.agree)


def test_neighbours_beyond_those_calibrated_on_have_no_say() -> None:
    near = [("cat", float(n)) for n in range(NEIGHBOURS)]
    few, many = abstention_inputs([answer(*near)]), abstention_inputs([answer(*near, ("dog", 99.0))])
    np.testing.assert_array_equal(few.distance, many.distance)


def test_without_a_labelled_neighbour_there_is_no_answer() -> None:
    rule = fit_rule(*draw_inputs(4000, 0), 0.1)
    sure = answer(*(("cat", 1 + n / 99) for n in range(NEIGHBOURS)), uncertainty=0.5)
    split = answer(*(("cat" if n % 2 else "dog", 1 + n / 99) for n in range(NEIGHBOURS)), uncertainty=0.5)
    found = with_abstention([sure, answer(), split, answer((None, 1.0)), sure], rule, 3)
    assert [one.abstain for one in found] == [False, True, True, True, False]
    assert [len(one.neighbours) for one in found] == [3, 0, 3, 1, 3]
