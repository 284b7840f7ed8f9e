"""R-AUROC is scikit-learn's AUROC of "the nearest other image has another label"."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from train.evaluation.uncertainty import nearest_is_wrong, one_number, r_auroc, variation


def test_the_nearest_other_image_is_scikit_learn_s() -> None:
    random = np.random.default_rng(0)
    codes, labels = random.normal(size=(1500, 6)), random.integers(0, 4, 1500)
    near = NearestNeighbors(n_neighbors=2, metric="cosine", algorithm="brute").fit(codes)
    expected = labels[near.kneighbors(codes)[1][:, 1]] != labels
    found = nearest_is_wrong(torch.from_numpy(codes), torch.from_numpy(labels)).numpy()
    assert (found == expected).mean() > 0.999  # float32 may see a tie the other way


def test_an_uncertainty_that_knows_the_errors_has_one_and_its_opposite_none() -> None:
    random = torch.Generator().manual_seed(1)
    codes = torch.randn(200, 3, generator=random)
    labels = torch.randint(0, 2, (200,), generator=random)
    wrong = nearest_is_wrong(codes, labels).float()
    assert 0 < wrong.mean() < 1
    assert r_auroc(wrong, codes, labels) == 1.0
    assert r_auroc(-wrong, codes, labels) == 0.0
    assert r_auroc(torch.zeros(200), codes, labels) == 0.5


def test_images_of_unknown_label_are_left_out() -> None:
    codes = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.95, 0.05]])
    labels = torch.tensor([0, 0, 1, 0, -1])
    unsure = torch.tensor([0.1, 0.2, 0.8, 0.9, 5.0])
    assert r_auroc(unsure, codes, labels) == 1.0  # the last two see each other first
    assert math.isnan(r_auroc(unsure[:1], codes[:1], labels[:1]))


def test_variation_by_hand() -> None:
    assert variation(torch.tensor([1.0, 3.0])) == pytest.approx(0.5)
    assert variation(torch.ones(4)) == 0.0


def test_the_one_number_rises_with_the_variance_and_not_with_the_scale() -> None:
    mean = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    found = one_number(mean, torch.tensor([[1.0, 1.0], [4.0, 4.0]]))
    # The variance across the mean's direction over its squared norm: 1/25 and 4/25.
    expected = [1 - (1 + t) ** -0.5 for t in (1 / 25, 4 / 25)]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    scaled = one_number(10 * mean, 100 * torch.tensor([[1.0, 1.0], [4.0, 4.0]]))
    torch.testing.assert_close(found, scaled)
