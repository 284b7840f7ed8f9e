"""Images from elsewhere score higher, as brute force says, and are told apart; one class at a time is normal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import special
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import roc_auc_score

from benchmarks.regimes import gaussians
from index.distances import pairwise
from index.evaluation.dataset import Dataset
from index.evaluation.evaluate import Settings, SideData, evaluate
from index.evaluation.ood import SHRINKAGE, mahalanobis, rank_anomalies, score
from index.search.exact import ExactIndex
from tests.index.samples import MODEL, card, sample
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import MismatchError

QUICK = Settings(k=5, resamples=20)


def dataset(rows: Rows) -> Dataset:
    return Dataset("x", rows.ids, list(rows.labels), rows.gaussians, card(), MODEL)


GALLERY, QUERIES = dataset(sample(200)), dataset(sample(50, seed=1, prefix="q"))
RANDOM = np.random.default_rng(0)
ELSEWHERE = replace(
    QUERIES,
    ids=[f"f{i}" for i in range(50)],
    labels=[None] * 50,
    gaussians=GaussianEmbedding(
        RANDOM.normal(0, 1.5, (50, 8)).astype(np.float32), np.full((50, 8), 0.5, np.float32)
    ),
)


def test_every_score_tells_images_from_elsewhere_apart() -> None:
    metrics = evaluate(GALLERY, QUERIES, QUICK, SideData(ood=ELSEWHERE))["metrics"]
    unsure = [*QUERIES.gaussians.uncertainty, *ELSEWHERE.gaussians.uncertainty]
    assert metrics["ood_auroc"] == pytest.approx(roc_auc_score([0] * 50 + [1] * 50, unsure))
    for name in ("ood_auroc_knn", "ood_auroc_mahalanobis"):
        assert 0.7 < metrics[name] <= 1
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
    assert 0 <= metrics["ood_fpr95"] <= 1


def test_the_same_images_cannot_be_told_apart() -> None:
    same = replace(QUERIES, ids=ELSEWHERE.ids)
    metrics = evaluate(GALLERY, QUERIES, QUICK, SideData(ood=same))["metrics"]
    assert metrics["ood_auroc_knn"] == pytest.approx(0.5)


def test_one_class_asks_only_images_of_that_class() -> None:
    report = evaluate(GALLERY, QUERIES, replace(QUICK, one_class=True))
    assert report["counts"]["one_class_runs"] == 6
    member = np.array([label == "group0" for label in GALLERY.labels])
    unit = [
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in (QUERIES.gaussians.mean, GALLERY.gaussians.mean)
    ]
    nearest = np.sort(1 - unit[0] @ unit[1][member].T, axis=1)[:, :2].mean(axis=1)
    expected = roc_auc_score([label != "group0" for label in QUERIES.labels], nearest)
    assert report["metrics"]["one_class_knn:group0"] == pytest.approx(expected, abs=1e-6)
    per_class = [report["metrics"][f"one_class_knn:group{i}"] for i in range(6)]
    assert report["metrics"]["one_class_knn"] == pytest.approx(np.mean(per_class))


def test_a_gallery_of_one_class_is_one_run() -> None:
    rows = sample(200)
    chosen = [i for i in range(200) if rows.labels[i] == "group2"]
    normal = dataset(
        Rows(
            [rows.ids[i] for i in chosen],
            [""] * len(chosen),
            ["group2"] * len(chosen),
            rows.gaussians[chosen],
        )
    )
    report = evaluate(normal, QUERIES, replace(QUICK, one_class=True))
    assert report["counts"]["one_class_runs"] == 1
    assert report["metrics"]["one_class_knn"] == report["metrics"]["one_class_knn:group2"] > 0.8


def test_percentiles_are_uniform_for_normal_images_and_high_for_others() -> None:
    normal = rank_anomalies(GALLERY, QUERIES)
    others = rank_anomalies(GALLERY, ELSEWHERE)
    assert [row["id"] for row in others] == ELSEWHERE.ids
    for kind in ("knn_percentile", "likelihood_percentile"):
        assert 30 < np.mean([row[kind] for row in normal]) < 70
    assert np.mean([row["knn_percentile"] for row in others]) > 70
    own = rank_anomalies(GALLERY, GALLERY)
    assert 40 < np.mean([row["knn_percentile"] for row in own]) < 60


def test_another_model_is_refused() -> None:
    with pytest.raises(MismatchError):
        evaluate(GALLERY, QUERIES, QUICK, SideData(ood=replace(ELSEWHERE, model_id="b" * 64)))


ITEMS, ASKED = gaussians(80, 6), gaussians(9, 6, seed=1)
INDEX = ExactIndex.build("cosine", ITEMS)
ASKED_UNSURE = ASKED.uncertainty.astype(np.float64)


@pytest.mark.parametrize("k", [1, 2, 7])
def test_scores_are_means_over_the_nearest(k: int) -> None:
    found = score(INDEX, ASKED, ASKED_UNSURE, k=k)
    cosine, mls = pairwise("cosine", ASKED, ITEMS), pairwise("mls", ASKED, ITEMS)
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
    kept = score(INDEX, ASKED, ASKED_UNSURE, keep=keep)
    alone = score(ExactIndex.build("cosine", ITEMS[40:]), ASKED, ASKED_UNSURE)
    np.testing.assert_allclose(kept.knn, alone.knn)
    np.testing.assert_allclose(kept.likelihood, alone.likelihood)


def test_with_fewer_normal_images_than_asked_for_all_of_them_count() -> None:
    few = score(ExactIndex.build("cosine", ITEMS[:2]), ASKED, ASKED_UNSURE, k=5)
    np.testing.assert_allclose(few.knn, pairwise("cosine", ASKED, ITEMS[:2]).mean(axis=1))
    most = score(ExactIndex.build("cosine", ITEMS[:2]), ASKED, ASKED_UNSURE, k=10**9)
    np.testing.assert_array_equal(most.knn, few.knn)
    none = score(INDEX, ASKED, ASKED_UNSURE, keep=np.zeros(80, bool))
    assert np.isinf(none.knn).all()
    assert np.isinf(none.likelihood).all()


def test_mahalanobis_is_that_of_scikit_learn() -> None:
    mean = ITEMS.mean.astype(np.float64)
    one = np.full(80, -1)
    model = EmpiricalCovariance().fit(mean)
    covariance = model.covariance_ * 80 / 79
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / 6 * np.eye(6)
    gap = ASKED.mean - mean.mean(axis=0)
    expected = np.sqrt(np.einsum("qi,ij,qj->q", gap, np.linalg.inv(shrunk), gap))
    np.testing.assert_allclose(mahalanobis(ITEMS, one, ASKED), expected, rtol=1e-6)


def test_mahalanobis_asks_the_nearest_class() -> None:
    codes = np.arange(80) % 3 - (np.arange(80) % 5 == 0)  # some unknown
    found = mahalanobis(ITEMS, codes, ASKED)
    assert (found > 0).all()
    centre = ITEMS.mean[codes == 1].mean(axis=0, keepdims=True)
    near = type(ASKED)(centre.astype(np.float32), ASKED.variance[:1])
    assert mahalanobis(ITEMS, codes, near)[0] == pytest.approx(0, abs=1e-3)
