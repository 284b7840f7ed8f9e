"""Whitened means vary alike in every direction, and rank as Mahalanobis by the gallery's covariance does."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from index.calibration import whitening
from index.calibration.whitening import whitened
from index.gallery.folder.gallery import FolderGallery
from index.search.vectors import Vectors
from tests.index.samples import MODEL, card
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows


def stretched(count: int, dim: int = 6, seed: int = 0) -> GaussianEmbedding:
    """Means of which a few directions carry nearly everything."""
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(random.normal(size=(dim, dim)))[0]
    mean = (random.normal(size=(count, dim)) * np.geomspace(1, 0.02, dim)) @ turn + 0.5
    return GaussianEmbedding(mean.astype(np.float32), np.full((count, dim), 0.01, np.float32))


def test_every_direction_counts_alike() -> None:
    items = stretched(3000)
    found = whitened(Vectors(items), np.ones(3000, bool))
    assert found is not None
    np.testing.assert_allclose(np.linalg.norm(found.mean, axis=1), 1, rtol=1e-6)
    before, after = (np.linalg.eigvalsh(np.cov(e.mean.T)) for e in (items.normalised(), found))
    assert before[-1] > 300 * before[0]
    assert after[-1] < 3 * after[0]


def test_it_is_cosine_under_the_inverse_covariance_of_the_living(monkeypatch) -> None:
    monkeypatch.setattr(whitening, "BLOCK", 70)
    items, alive = stretched(400), np.arange(400) % 4 != 0
    found = whitened(Vectors(items), alive)
    assert found is not None
    unit = items.mean / np.linalg.norm(items.mean.astype(np.float64), axis=1, keepdims=True)
    apart = unit - unit[alive].mean(axis=0)
    inverse = np.linalg.inv(np.cov(unit[alive].T, bias=True))
    products = apart @ inverse @ apart.T
    length = np.sqrt(np.diag(products))
    np.testing.assert_allclose(found.mean @ found.mean.T, products / np.outer(length, length), atol=2e-5)


def test_few_items_and_items_that_are_alike_are_left_alone() -> None:
    items = stretched(60)
    assert whitened(Vectors(items), np.ones(60, bool)) is not None
    assert whitened(Vectors(items), np.arange(60) > 0) is None
    same = GaussianEmbedding(np.ones((100, 6), np.float32), np.ones((100, 6), np.float32))
    assert whitened(Vectors(same), np.ones(100, bool)) is None


def test_a_copy_is_nearer_than_what_shares_the_strongest_direction(tmp_path: Path) -> None:
    items = stretched(800, 8)
    mean = items.mean.copy()
    mean[0] = mean[1] * 1.0001
    ids = [f"i{i}" for i in range(800)]
    rows = Rows(ids, ids, [None] * 800, GaussianEmbedding(mean, items.variance))
    with FolderGallery.create(tmp_path / "g", card=card(8), model_id=MODEL) as gallery:
        gallery.add(rows)
        gallery.remove(ids[700:])
        near = gallery.neighbourhood(3, white=True)
        plain = gallery.neighbourhood(3)
    assert near.ids == ids[:700]
    assert near.graph.rows[0, 0] == 1
    assert not np.array_equal(near.graph.rows, plain.graph.rows)
    assert (np.diff(near.graph.distances, axis=1) >= 0).all()
