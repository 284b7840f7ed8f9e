"""Variance scores against their definition."""

import numpy as np
import pytest

from index.answers.result_building import variance_scores
from index.search.vectors import Vectors
from tests.index.samples import gaussians


def test_the_variance_score_is_a_share_of_the_expected_squared_distance() -> None:
    items, queries = gaussians(20), gaussians(3, seed=1)
    found = np.array([[0, 5], [7, 7], [19, -1]])
    scores = variance_scores(Vectors(items), queries, found)
    random = np.random.default_rng(0)
    for q in range(3):
        for j in range(2):
            row = max(found[q, j], 0)
            mean = [g.mean[i].astype(float) for g, i in ((queries, q), (items, row))]
            spread = [g.variance[i].astype(float) for g, i in ((queries, q), (items, row))]
            drawn = [random.normal(m, np.sqrt(s), (40_000, 8)) for m, s in zip(mean, spread, strict=True)]
            expected = ((drawn[0] - drawn[1]) ** 2).sum(axis=1).mean()
            share = (spread[0].sum() + spread[1].sum()) / expected
            assert scores[q, j] == pytest.approx(share, rel=0.02)


def test_the_score_of_an_image_to_itself_is_all_variance() -> None:
    items = gaussians(3)
    assert variance_scores(Vectors(items), items[:1], np.array([[0]]))[0, 0] == 1.0
