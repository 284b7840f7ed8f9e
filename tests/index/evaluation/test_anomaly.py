"""Foreign images score higher, as brute force says, and nobody is his own neighbour."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from sklearn.covariance import EmpiricalCovariance

from index.distances import pairwise
from index.evaluation.anomaly import SHRINKAGE, mahalanobis, score
from index.search.exact import ExactIndex
from tests.index.regimes import gaussians

ITEMS, QUERIES = gaussians(80, 6), gaussians(9, 6, seed=1)
INDEX = ExactIndex.build("cosine", ITEMS)
UNSURE = QUERIES.uncertainty.astype(np.float64)


@pytest.mark.parametrize("k", [1, 2, 7])
def test_scores_are_means_over_the_nearest(k: int) -> None:
    found = score(INDEX, QUERIES, UNSURE, k=k)
    cosine, mls = pairwise("cosine", QUERIES, ITEMS), pairwise("mls", QUERIES, ITEMS)
    rows = np.argsort(cosine, axis=1)[:, :k]
    np.testing.assert_allclose(found.knn, np.take_along_axis(cosine, rows, axis=1).mean(axis=1))
    likelihood = special.logsumexp(-np.take_along_axis(mls, rows, axis=1), axis=1) - np.log(k)
    np.testing.assert_allclose(found.likelihood, -likelihood)


def test_the_own_image_is_left_out_and_only_kept_ones_are_asked() -> None:
    itself = score(INDEX, ITEMS[:5], np.zeros(5), k=1)
    others = score(INDEX, ITEMS[:5], np.zeros(5), k=1, own=np.arange(5))
    np.testing.assert_allclose(itself.knn, 0, atol=1e-12)
    assert (others.knn > 1e-6).all()
    keep = np.arange(80) >= 40
    kept = score(INDEX, QUERIES, UNSURE, keep=keep)
    alone = score(ExactIndex.build("cosine", ITEMS[40:]), QUERIES, UNSURE)
    np.testing.assert_allclose(kept.knn, alone.knn)
    np.testing.assert_allclose(kept.likelihood, alone.likelihood)


def test_with_fewer_normal_images_than_asked_for_all_of_them_count() -> None:
    few = score(ExactIndex.build("cosine", ITEMS[:2]), QUERIES, UNSURE, k=5)
    np.testing.assert_allclose(few.knn, pairwise("cosine", QUERIES, ITEMS[:2]).mean(axis=1))
    none = score(INDEX, QUERIES, UNSURE, keep=np.zeros(80, bool))
    assert np.isinf(none.knn).all()
    assert np.isinf(none.likelihood).all()


def test_mahalanobis_is_that_of_scikit_learn() -> None:
    mean = ITEMS.mean.astype(np.float64)
    one = np.full(80, -1)
    model = EmpiricalCovariance().fit(mean)
    covariance = model.covariance_ * 80 / 79
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / 6 * np.eye(6)
    gap = QUERIES.mean - mean.mean(axis=0)
    expected = np.sqrt(np.einsum("qi,ij,qj->q", gap, np.linalg.inv(shrunk), gap))
    np.testing.assert_allclose(mahalanobis(ITEMS, one, QUERIES), expected, rtol=1e-6)


def test_mahalanobis_asks_the_nearest_class() -> None:
    codes = np.arange(80) % 3 - (np.arange(80) % 5 == 0)  # some unknown
    found = mahalanobis(ITEMS, codes, QUERIES)
    assert (found > 0).all()
    centre = ITEMS.mean[codes == 1].mean(axis=0, keepdims=True)
    near = type(QUERIES)(centre.astype(np.float32), QUERIES.variance[:1])
    assert mahalanobis(ITEMS, codes, near)[0] == pytest.approx(0, abs=1e-3)
