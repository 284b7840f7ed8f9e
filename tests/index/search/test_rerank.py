"""Ranking candidates equals sorting the table of definitions, whatever the blocks."""

import numpy as np
import pytest

from index.distances import NAMES, DistanceParameters, fit_prior, pairwise
from index.search import rerank as module
from index.search.rerank import rerank, scan
from index.search.vectors import Vectors
from tests.index.samples import gaussians

ITEMS, QUERIES = gaussians(60).normalised(), gaussians(7, seed=1).normalised()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("block", [1, 100, 1 << 21])
def test_the_nearest_candidates_are_the_definitions(
    name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "CACHED", block)
    parameters = fit_prior(ITEMS) if name == "posterior" else DistanceParameters()
    table = pairwise(name, QUERIES, ITEMS, parameters)
    random = np.random.default_rng(0)
    candidates = np.stack([random.permutation(60)[:20] for _ in range(7)])
    candidates[:, 3] = -1
    distances, rows = rerank(name, parameters, Vectors(ITEMS), QUERIES, candidates, 5)
    every = np.sort(random.permutation(60)[:33])
    scanned = scan(name, parameters, Vectors(ITEMS), QUERIES, every, 5)
    for q in range(7):
        real = candidates[q][candidates[q] >= 0]
        expected = real[np.argsort(table[q][real])][:5]
        assert rows[q].tolist() == expected.tolist()
        np.testing.assert_allclose(distances[q], table[q][expected], rtol=1e-9, atol=1e-12)
        assert scanned[1][q].tolist() == every[np.argsort(table[q][every])][:5].tolist()


def test_fewer_candidates_than_asked_end_in_none() -> None:
    candidates = np.array([[4, -1, -1]])
    found = rerank("cosine", DistanceParameters(), Vectors(ITEMS), QUERIES[:1], candidates, 3)
    assert found[1].tolist() == [[4, -1, -1]]
    assert np.isinf(found[0][0, 1:]).all()
    for rows in (np.array([], np.int64), np.array([2, 9])):
        distances, found_rows = scan("cosine", DistanceParameters(), Vectors(ITEMS), QUERIES[:2], rows, 4)
        assert distances.shape == found_rows.shape == (2, 4)
        assert (np.sort(found_rows, axis=1)[:, 4 - len(rows) :] == rows).all()
        assert (found_rows[:, len(rows) :] == -1).all()
