"""Retrieval metrics against loops that follow their definitions word by word."""

from __future__ import annotations

import doctest

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as shapes
from scipy import stats

from index.metrics import retrieval

RELEVANT = shapes.arrays(np.bool_, st.tuples(st.integers(1, 8), st.integers(1, 12)))


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(retrieval).failed == 0


@given(RELEVANT, st.integers(1, 12))
def test_a_hit_is_any_relevant_neighbour_among_the_first_k(relevant: np.ndarray, k: int) -> None:
    expected = [float(any(row[:k])) for row in relevant.tolist()]
    assert retrieval.hit_at(relevant, k).tolist() == expected


@given(RELEVANT, st.data())
def test_average_precision_at_r_follows_its_sum(relevant: np.ndarray, data: st.DataObject) -> None:
    width = relevant.shape[1]
    totals = np.array(
        data.draw(st.lists(st.integers(1, width), min_size=len(relevant), max_size=len(relevant)))
    )
    expected = []
    for row, total in zip(relevant, totals, strict=True):
        found = [row[: i + 1].mean() for i in range(total) if row[i]]
        expected.append(sum(found) / total)
    np.testing.assert_allclose(retrieval.average_precision_at_r(relevant, totals), expected, rtol=1e-12)


def test_a_query_without_relevant_items_has_no_precision() -> None:
    with np.errstate(all="raise"):
        assert np.isnan(retrieval.average_precision_at_r(np.array([[True]]), np.array([0]))).all()


def test_skewness_is_that_of_scipy_and_zero_without_spread() -> None:
    counts = np.random.default_rng(0).geometric(0.3, 500)
    assert abs(retrieval.skewness(counts) - stats.skew(counts)) < 1e-12
    assert abs(retrieval.skewness(np.array([0, 0, 0, 1])) - 2 / 3**0.5) < 1e-12
    assert retrieval.skewness(np.full(5, 3)) == 0.0


def test_occurrences_count_every_neighbour_once() -> None:
    rows = np.random.default_rng(0).integers(-1, 30, (20, 10))
    expected = [(rows == item).sum() for item in range(30)]
    assert retrieval.occurrences(rows, 30).tolist() == expected
