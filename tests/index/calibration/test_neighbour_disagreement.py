"""What neighbours tell of an answer: hand-computed, and worth more than the query alone."""

from __future__ import annotations

import numpy as np
import pytest

from index.answers.results import Neighbour, SearchResult
from index.calibration.abstention import fit_rule
from index.calibration.neighbour_disagreement import NEIGHBOURS, Evidence


def answer(*found: tuple[str | None, float], uncertainty: float = 1.0) -> SearchResult:
    neighbours = [
        Neighbour(str(n), label, "", distance, 0.5, None, 0.1) for n, (label, distance) in enumerate(found)
    ]
    return SearchResult(uncertainty, None, neighbours)


def test_dissent_is_the_weight_of_those_who_bear_another_label() -> None:
    evidence = Evidence.of([answer(("cat", 1.0), ("dog", 1.0), ("cat", 2.0), ("dog", 3.0))])
    weight = [1.0, 1.0, np.exp(-1 / 2), np.exp(-2 / 2)]
    assert evidence.dissent(2.0)[0] == pytest.approx((weight[1] + weight[3]) / sum(weight))
    assert evidence.nearest[0] == 1.0
    assert evidence.agree[0, :4].tolist() == [True, False, True, False]


def test_nobody_dissents_from_one_who_stands_alone() -> None:
    assert Evidence.of([answer(("cat", 0.5))]).dissent(1.0)[0] == 0.0


def test_neighbours_without_a_label_have_no_say() -> None:
    some = Evidence.of([answer((None, 0.1), ("cat", 0.2), (None, 0.3), ("dog", 0.4))])
    alone = Evidence.of([answer(("cat", 0.2), ("dog", 0.4))])
    np.testing.assert_array_equal(some.distance, alone.distance)
    np.testing.assert_array_equal(some.agree, alone.agree)


def test_neighbours_beyond_those_calibrated_on_have_no_say() -> None:
    near = [("cat", float(n)) for n in range(NEIGHBOURS)]
    few, many = Evidence.of([answer(*near)]), Evidence.of([answer(*near, ("dog", 99.0))])
    np.testing.assert_array_equal(few.distance, many.distance)


def test_the_pace_is_half_of_what_lies_between_the_first_and_the_last() -> None:
    evidence = Evidence(np.ones(3), np.array([[1.0, 3.0], [1.0, 5.0], [2.0, 12.0]]), np.ones((3, 2), bool))
    assert evidence.pace() == 2.0  # of 2, 4 and 10


def draw(count: int, seed: int) -> tuple[Evidence, np.ndarray]:
    """Queries whose neighbours' doubt alone says how likely the first is wrong."""
    random = np.random.default_rng(seed)
    doubt = random.random(count)
    distance = np.sort(random.random((count, NEIGHBOURS)), axis=1) + 1.0
    agree = random.random((count, NEIGHBOURS)) > doubt[:, None]
    agree[:, 0] = True
    return Evidence(random.random(count), distance, agree), random.random(count) < 0.8 * doubt**2


def test_a_rule_that_hears_the_neighbours_answers_where_others_cannot() -> None:
    evidence, wrong = draw(4000, 0)
    rule = fit_rule(evidence, wrong, 0.1)
    assert rule.thresholds["uncertainty"].coverage == rule.thresholds["distance"].coverage == 0.0
    assert rule.thresholds["dissent"].coverage > 0.3
    assert rule.best.score in ("dissent", "together")
    asked, outcome = draw(4000, 1)
    taken = rule.answers(asked)
    assert taken.mean() > 0.3
    assert outcome[taken].mean() <= 0.1


def test_without_a_labelled_neighbour_there_is_no_answer() -> None:
    rule = fit_rule(*draw(4000, 0), 0.1)
    sure = answer(*(("cat", 1 + n / 99) for n in range(NEIGHBOURS)), uncertainty=0.5)
    split = answer(*(("cat" if n % 2 else "dog", 1 + n / 99) for n in range(NEIGHBOURS)), uncertainty=0.5)
    assert rule.abstains([sure, answer(), split, answer((None, 1.0)), sure]) == [
        False,
        True,
        True,
        True,
        False,
    ]
