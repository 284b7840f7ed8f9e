"""A shortlist is evaluated until its top k is certain, and never passes for certain before."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.regimes import gaussians, shifted
from index.search.certificate import merge, refine, slack


def test_no_rounding_error_exceeds_the_slack() -> None:
    items, queries = shifted(gaussians(500, 40), 3.0), shifted(gaussians(20, 40, seed=9), 3.0)
    random = np.random.default_rng(0)
    phi, psi = queries.mean.astype(np.float64), items.mean.astype(np.float64)
    single = np.stack(
        [
            (psi.astype(np.float32) * row).cumsum(axis=1, dtype=np.float32)[:, -1]
            for row in phi.astype(np.float32)
        ]
    )
    error = np.abs(single - phi @ psi.T).max(axis=1)
    assert (error > 0).all()
    assert (error <= slack(phi, np.zeros(len(phi)), np.abs(psi).max(axis=0))).all()
    assert np.isinf(slack(random.normal(size=(1, 40)) * 1e30, np.zeros(1), np.full(40, 1e20))).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), k=st.integers(1, 12), doubt=st.integers(0, 4))
def test_the_top_k_is_exact_whenever_it_is_certain(seed: int, count: int, k: int, doubt: int) -> None:
    """Bounds lie up to `doubt` halves below the distances; the shortlist is cut in the middle."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 9, (3, count)) / 2.0  # with ties, exact in float32
    bounds = truth - random.integers(0, doubt + 1, truth.shape) / 2.0
    order = np.argsort(bounds, axis=1)[:, : max(1, count // 2)]
    scores = -np.take_along_axis(bounds, order, axis=1)
    found, certain = refine(
        scores.astype(np.float32),
        order,
        k,
        everything=False,
        evaluate=lambda queries, rows: np.take_along_axis(truth[queries], rows, axis=1),
        nearest_left=lambda queries, score: -score,
    )
    expected = np.lexsort((np.broadcast_to(np.arange(count), truth.shape), truth), axis=-1)[:, :k]
    for q in np.flatnonzero(certain):
        np.testing.assert_array_equal(found.rows[q], expected[q])
    assert (found.evaluated <= order.shape[1]).all()


def test_a_bound_that_separates_stops_the_evaluation_early() -> None:
    truth = np.arange(100.0)[None]
    order = np.arange(100)[None]
    found, certain = refine(
        -truth.astype(np.float32),
        order,
        10,
        everything=True,
        evaluate=lambda queries, rows: np.take_along_axis(truth[queries], rows, axis=1),
        nearest_left=lambda queries, score: -score,
    )
    assert certain.all()
    assert found.evaluated[0] == 16
    np.testing.assert_array_equal(found.rows[0], np.arange(10))


def test_equal_distances_go_to_the_lower_row() -> None:
    distances, rows = merge(np.array([[2.0, 1.0, 1.0, 1.0]]), np.array([[0, 9, 4, 7]]), 3)
    np.testing.assert_array_equal(rows, [[4, 7, 9]])
    np.testing.assert_array_equal(distances, [[1.0, 1.0, 1.0]])
