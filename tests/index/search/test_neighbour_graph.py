"""Each item's nearest others, without itself, against brute force."""

from pathlib import Path

import numpy as np

from index.distances import pairwise
from index.gallery.gallery import Gallery
from index.search.neighbour_graph import BLOCK
from tests.index.samples import MODEL, card, sample


def test_neighbours_are_the_nearest_others_that_are_there(tmp_path: Path) -> None:
    rows = sample(200)
    with Gallery.create(tmp_path / "g", card=card(), model_id=MODEL) as gallery:
        gallery.add(rows)
        gallery.remove(rows.ids[20:60])
        near = gallery.neighbourhood(4)
    left = np.r_[0:20, 60:200]
    assert near.ids == [rows.ids[i] for i in left]
    items = rows.gaussians.normalised()[left]
    table = pairwise("cosine", items, items)
    np.fill_diagonal(table, np.inf)
    expected = np.argsort(table, axis=1)[:, :4]
    np.testing.assert_array_equal(near.rows, expected)
    np.testing.assert_allclose(near.distances, np.take_along_axis(table, expected, axis=1), atol=1e-12)
    apart = (items.mean[:, None].astype(float) - items.mean[expected]) ** 2
    spread = items.variance[:, None].astype(float) + items.variance[expected]
    np.testing.assert_allclose(near.separation, (apart / spread).mean(axis=2))
    assert len(near) < BLOCK


def test_too_few_others_are_marked(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", card=card(), model_id=MODEL) as gallery:
        gallery.add(sample(3))
        near = gallery.neighbourhood(5)
        assert (near.rows[:, :2] >= 0).all()
        assert (near.rows[:, 2:] == -1).all()
        assert np.isinf(near.distances[:, 2:]).all()
        assert gallery.neighbourhood(0).rows.shape == (3, 0)
