"""Accuracy on labelled pictures, each against the others, agrees with scikit-learn's slow way."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from export.accuracy import BLOCK, accuracy, auroc, leave_one_out_knn, nearest_others
from vssl.gaussian import GaussianEmbedding


def groups(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    classes = np.arange(count) % 3
    return (random.normal(size=(count, 5)) + 2 * np.eye(5)[classes]).astype(np.float32), classes


def test_auroc_agrees_with_scikit_learn_ties_included() -> None:
    random = np.random.default_rng(0)
    score, correct = random.integers(0, 8, 200).astype(float), random.random(200) < 0.3
    assert auroc(score, correct) == pytest.approx(roc_auc_score(correct, score))
    assert auroc(score, np.ones(200, bool)) is None


def test_leave_one_out_knn_agrees_with_scikit_learn() -> None:
    mean, classes = groups(60)
    right = 0
    for row in range(60):
        others = np.arange(60) != row
        judge = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
        right += judge.fit(mean[others], classes[others]).predict(mean[row : row + 1])[0] == classes[row]
    assert leave_one_out_knn(mean, classes) == pytest.approx(right / 60)


def test_the_nearest_others_are_those_of_one_whole_matrix_beyond_a_block_too() -> None:
    mean, _ = groups(BLOCK + 70)
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    cosines, rows = nearest_others(mean, 3)
    np.testing.assert_array_equal(rows[:, 0], similarity.argmax(axis=1))
    np.testing.assert_allclose(cosines, -np.sort(-similarity, axis=1)[:, :3], atol=1e-5)


def test_accuracy_needs_labels_for_all_and_two_of_them() -> None:
    mean, classes = groups(60)
    gaussians = GaussianEmbedding(mean, np.full_like(mean, 0.1))
    names: list[str | None] = [f"class {number}" for number in classes]
    found = accuracy(gaussians, names)
    assert found is not None
    assert found.images == 60
    assert found.knn_top1 == leave_one_out_knn(mean, classes)
    nearest = nearest_others(mean, 1)[1][:, 0]
    expected = roc_auc_score(classes[nearest] == classes, -gaussians.uncertainty)
    assert found.r_auroc == pytest.approx(expected)
    assert accuracy(gaussians, [*names[:-1], None]) is None
    assert accuracy(gaussians, ["one"] * 60) is None
    assert accuracy(gaussians[:20], names[:20]) is None
