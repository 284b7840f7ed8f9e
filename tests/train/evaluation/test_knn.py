"""Weighted nearest neighbours agree with a loop over all pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from train.evaluation.knn import BLOCK, knn_accuracy, knn_predict, nearest_others


def slow(bank: np.ndarray, labels: list[int], query: np.ndarray, k: int, temperature: float) -> int:
    cosines = [
        float(row @ query) / (math.sqrt(float(row @ row)) * math.sqrt(float(query @ query))) for row in bank
    ]
    votes: dict[int, float] = {}
    for row in sorted(range(len(bank)), key=lambda r: -cosines[r])[:k]:
        votes[labels[row]] = votes.get(labels[row], 0.0) + math.exp(cosines[row] / temperature)
    return max(votes, key=votes.__getitem__)


@pytest.mark.parametrize("k", [1, 5, 20, 500])
def test_agrees_with_a_loop(k: int) -> None:
    random = np.random.default_rng(4)
    bank, queries = random.normal(size=(60, 5)), random.normal(size=(15, 5))
    labels = random.integers(0, 4, 60)
    found = knn_predict(
        torch.from_numpy(bank), torch.from_numpy(labels), torch.from_numpy(queries), 4, k, 0.07
    )
    assert found.tolist() == [slow(bank, labels.tolist(), query, k, 0.07) for query in queries]


def test_accuracy_counts_the_right_ones() -> None:
    bank = torch.eye(3)
    labels = torch.tensor([0, 1, 2])
    queries = torch.tensor([[1.0, 0.1, 0.0], [0.0, 1.0, 0.1], [0.9, 0.0, 1.0], [1.0, 0.0, 0.9]])
    truth = torch.tensor([0, 1, 2, 2])
    assert knn_accuracy(bank, labels, queries, truth, 3, k=1) == pytest.approx(0.75)


def test_the_nearest_others_are_those_of_one_whole_matrix_beyond_a_block_too() -> None:
    codes = torch.randn(BLOCK + 70, 5, generator=torch.Generator().manual_seed(1))
    unit = functional.normalize(codes, dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    cosines, rows = nearest_others(codes, 3)
    assert torch.equal(rows[:, 0], similarity.argmax(dim=1))
    torch.testing.assert_close(cosines, similarity.sort(dim=1, descending=True).values[:, :3])
    assert nearest_others(codes[:3], 20)[1].shape == (3, 2)
