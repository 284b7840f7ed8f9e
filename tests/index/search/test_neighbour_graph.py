"""Each item's nearest others, without itself, against brute force."""

import doctest
from pathlib import Path

import numpy as np

from index.distances import pairwise
from index.gallery.folder.gallery import FolderGallery
from index.search import neighbour_graph
from index.search.neighbour_graph import BLOCK, leave_out_own
from tests.index.samples import MODEL, card, sample


def test_neighbours_are_the_nearest_others_that_are_there(tmp_path: Path) -> None:
    rows = sample(200)
    with FolderGallery.create(tmp_path / "g", card=card(), model_id=MODEL) as gallery:
        gallery.add(rows)
        gallery.remove(rows.ids[20:60])
        near = gallery.neighbourhood(4)
    left = np.r_[0:20, 60:200]
    assert near.ids == [rows.ids[i] for i in left]
    items = rows.gaussians.normalised()[left]
    table = pairwise("cosine", items, items)
    np.fill_diagonal(table, np.inf)
    expected = np.argsort(table, axis=1)[:, :4]
    np.testing.assert_array_equal(near.graph.rows, expected)
    np.testing.assert_allclose(near.graph.distances, np.take_along_axis(table, expected, axis=1), atol=1e-12)
    apart = (items.mean[:, None].astype(float) - items.mean[expected]) ** 2
    spread = items.variance[:, None].astype(float) + items.variance[expected]
    np.testing.assert_allclose(near.graph.separation, (apart / spread).mean(axis=2))
    assert len(near) < BLOCK


def test_too_few_others_are_marked(tmp_path: Path) -> None:
    with FolderGallery.create(tmp_path / "g", card=card(), model_id=MODEL) as gallery:
        gallery.add(sample(3))
        near = gallery.neighbourhood(5)
        assert (near.graph.rows[:, :2] >= 0).all()
        assert (near.graph.rows[:, 2:] == -1).all()
        assert np.isinf(near.graph.distances[:, 2:]).all()
        assert gallery.neighbourhood(0).graph.rows.shape == (3, 0)


def test_the_own_image_is_dropped_wherever_it_stands() -> None:
    rows = np.array([[4, 7, 9], [4, 7, 9], [4, 7, 9], [4, 7, -1]])
    distances = np.array([[0.0, 0.1, 0.2]] * 3 + [[0.0, 0.1, np.inf]])
    kept, found = leave_out_own(distances, rows, np.array([4, 9, -1, 7]), 2)
    np.testing.assert_array_equal(found, [[7, 9], [4, 7], [4, 7], [4, -1]])
    np.testing.assert_array_equal(kept, [[0.1, 0.2], [0.0, 0.1], [0.0, 0.1], [0.0, np.inf]])


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(neighbour_graph).failed == 0
