"""Images from elsewhere are told apart, and one class at a time is normal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from index.evaluation.dataset import Corpus
from index.evaluation.evaluate import Beside, Settings, evaluate
from index.evaluation.ood import rank_foreign
from tests.index.samples import MODEL, card, sample
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import MismatchError

QUICK = Settings(k=5, resamples=20)


def corpus(rows: Rows) -> Corpus:
    return Corpus(Path("x"), rows.ids, list(rows.labels), rows.gaussians, card(), MODEL)


GALLERY, QUERIES = corpus(sample(200)), corpus(sample(50, seed=1, prefix="q"))
RANDOM = np.random.default_rng(0)
FOREIGN = replace(
    QUERIES,
    ids=[f"f{i}" for i in range(50)],
    labels=[None] * 50,
    gaussians=GaussianEmbedding(
        RANDOM.normal(0, 1.5, (50, 8)).astype(np.float32), np.full((50, 8), 0.5, np.float32)
    ),
)


def test_every_score_tells_foreign_images_apart() -> None:
    metrics = evaluate(GALLERY, QUERIES, QUICK, Beside(foreign=FOREIGN))["metrics"]
    unsure = [*QUERIES.gaussians.uncertainty, *FOREIGN.gaussians.uncertainty]
    assert metrics["ood_auroc"] == pytest.approx(roc_auc_score([0] * 50 + [1] * 50, unsure))
    for name in ("ood_auroc_knn", "ood_auroc_mahalanobis"):
        assert 0.7 < metrics[name] <= 1
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
    assert 0 <= metrics["ood_fpr95"] <= 1


def test_the_same_images_cannot_be_told_apart() -> None:
    same = replace(QUERIES, ids=FOREIGN.ids)
    metrics = evaluate(GALLERY, QUERIES, QUICK, Beside(foreign=same))["metrics"]
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
    normal = corpus(
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


def test_percentiles_are_uniform_for_normal_images_and_high_for_foreign_ones() -> None:
    normal = rank_foreign(GALLERY, QUERIES)
    foreign = rank_foreign(GALLERY, FOREIGN)
    assert [row["id"] for row in foreign] == FOREIGN.ids
    for kind in ("knn_percentile", "likelihood_percentile"):
        assert 30 < np.mean([row[kind] for row in normal]) < 70
    assert np.mean([row["knn_percentile"] for row in foreign]) > 70
    own = rank_foreign(GALLERY, GALLERY)
    assert 40 < np.mean([row["knn_percentile"] for row in own]) < 60


def test_another_model_is_refused() -> None:
    with pytest.raises(MismatchError):
        evaluate(GALLERY, QUERIES, QUICK, Beside(foreign=replace(FOREIGN, model_id="b" * 64)))
