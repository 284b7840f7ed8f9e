"""The weighted vote is the one of the DINO evaluation."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from index.metrics import vote
from index.metrics.vote import class_codes, in_top, votes

RANDOM = np.random.default_rng(0)


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(vote).failed == 0


def test_shares_are_those_of_scikit_learn_with_exponential_weights() -> None:
    items, queries = RANDOM.normal(size=(300, 4)), RANDOM.normal(size=(40, 4))
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    codes = RANDOM.integers(0, 5, 300)
    model = KNeighborsClassifier(20, weights=lambda d: np.exp((1 - d**2 / 2) / 0.07), algorithm="brute")
    expected = model.fit(items, codes).predict_proba(queries)
    cosine = queries @ items.T
    rows = np.argsort(-cosine, axis=1)[:, :20]
    shares = votes(codes[rows], np.take_along_axis(cosine, rows, axis=1) / 0.07, 5)
    np.testing.assert_allclose(shares, expected, rtol=1e-6, atol=1e-9)


def test_missing_neighbours_do_not_vote_and_large_weights_do_not_overflow() -> None:
    codes = np.array([[1, -1], [-1, -1], [0, 1]])
    shares = votes(codes, np.array([[1e4, 9e9], [0.0, 0.0], [-1e5, -1e5]]), 2)
    np.testing.assert_array_equal(shares, [[0, 1], [0, 0], [0.5, 0.5]])
    np.testing.assert_array_equal(votes(np.empty((2, 0), np.int64), np.empty((2, 0)), 3), np.zeros((2, 3)))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_in_top_follows_a_stable_sort(count: int) -> None:
    shares = np.round(RANDOM.dirichlet(np.ones(8), 200), 1)  # with ties and zeros
    truth = RANDOM.integers(-1, 8, 200)
    expected = []
    for row, true in zip(shares, truth, strict=True):
        order = sorted(range(8), key=lambda c: (-row[c], c))[:count]
        expected.append(bool(true in order and row[true] > 0))
    assert in_top(shares, truth, count).tolist() == expected


def test_codes_number_the_labels_in_their_order() -> None:
    assert class_codes(["b", None, "a", "b"]).tolist() == [1, -1, 0, 1]
    assert class_codes([]).tolist() == []
    assert class_codes([]).dtype == np.int64  # numbers to index by, even where there are none
