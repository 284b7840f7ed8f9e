"""Clusters on the sphere are those of a plain loop over rows, and of sklearn where it is certain."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch.nn import functional

from train.models.clusters import nearest_centroid, spherical_kmeans


def slow_kmeans(rows: np.ndarray, centroids: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """One row and one cluster at a time, in float64."""
    centroids = centroids.copy()

    def assign() -> np.ndarray:
        return np.array([int(np.argmax([row @ centroid for centroid in centroids])) for row in rows])

    for _ in range(rounds):
        nearest = assign()
        for cluster in range(len(centroids)):
            members = rows[nearest == cluster]
            if len(members):
                total = members.sum(axis=0)
                centroids[cluster] = total / np.linalg.norm(total)
    return centroids, assign()


def unit_rows(count: int, dim: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.normalize(drawn, dim=1)


def test_equals_a_loop_over_rows_and_clusters() -> None:
    rows = unit_rows(200, 6, 0)
    start = torch.randperm(200, generator=torch.Generator().manual_seed(3))[:7]
    expected = slow_kmeans(rows.numpy(), rows[start].numpy(), 4)
    found = spherical_kmeans(rows, 7, 4, torch.Generator().manual_seed(3))
    np.testing.assert_allclose(found[0].numpy(), expected[0], atol=1e-12)
    np.testing.assert_array_equal(found[1].numpy(), expected[1])


def test_well_separated_groups_are_found() -> None:
    centres = torch.eye(4, dtype=torch.float64)
    truth = torch.arange(4).repeat_interleave(50)
    rows = functional.normalize(centres[truth] + 0.05 * unit_rows(200, 4, 1), dim=1)
    scores = [
        adjusted_rand_score(truth, spherical_kmeans(rows, 4, 10, torch.Generator().manual_seed(s))[1])
        for s in range(8)
    ]
    assert max(scores) == 1.0


def test_a_cluster_that_lost_its_rows_keeps_its_centroid() -> None:
    rows = functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), dim=1)
    centroids, nearest = spherical_kmeans(rows, 6, 3, torch.Generator().manual_seed(0))
    assert len(centroids) == 6  # more clusters than rows: each row starts two
    assert torch.isfinite(centroids).all()
    torch.testing.assert_close(centroids.norm(dim=1), torch.ones(6))
    assert len(nearest.unique()) <= 3


def test_chunks_do_not_change_the_nearest() -> None:
    rows, centroids = unit_rows(9000, 3, 2), unit_rows(5, 3, 4)
    torch.testing.assert_close(nearest_centroid(rows, centroids), (rows @ centroids.T).argmax(dim=1))
