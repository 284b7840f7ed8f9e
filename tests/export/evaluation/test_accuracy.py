"""Accuracy on labelled pictures, each against the others, agrees with scikit-learn's slow way."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from export.evaluation.accuracy import accuracy
from vssl.embeddings.gaussian import GaussianEmbedding


def groups(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    classes = np.arange(count) % 3
    return (random.normal(size=(count, 5)) + 2 * np.eye(5)[classes]).astype(np.float32), classes


def test_accuracy_agrees_with_scikit_learn() -> None:
    mean, classes = groups(60)
    right, wrong = 0, []
    for row in range(60):
        others = np.arange(60) != row
        judge = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
        right += judge.fit(mean[others], classes[others]).predict(mean[row : row + 1])[0] == classes[row]
        nearest = KNeighborsClassifier(1, metric="cosine").fit(mean[others], classes[others])
        wrong.append(nearest.predict(mean[row : row + 1])[0] != classes[row])
    gaussians = GaussianEmbedding(mean, np.full_like(mean, 0.1))
    found = accuracy(gaussians, [f"class {number}" for number in classes])
    assert found is not None
    assert (found.images, found.knn_top1) == (60, pytest.approx(right / 60))
    assert found.r_auroc == pytest.approx(roc_auc_score(wrong, gaussians.uncertainty))


def test_without_a_wrong_neighbour_there_is_nothing_to_order() -> None:
    mean = np.repeat(np.eye(2, dtype=np.float32), 30, axis=0)
    found = accuracy(GaussianEmbedding(mean, np.full_like(mean, 0.1)), ["a"] * 30 + ["b"] * 30)
    assert found is not None
    assert (found.knn_top1, found.r_auroc) == (1.0, None)


def test_accuracy_needs_labels_for_all_and_two_of_them() -> None:
    mean, classes = groups(60)
    gaussians = GaussianEmbedding(mean, np.full_like(mean, 0.1))
    names: list[str | None] = [f"class {number}" for number in classes]
    assert accuracy(gaussians, [*names[:-1], None]) is None
    assert accuracy(gaussians, ["one"] * 60) is None
    assert accuracy(gaussians[:20], names[:20]) is None
