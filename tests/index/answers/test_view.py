"""The view in memory follows the store row by row, and what it handed out does not move."""

from pathlib import Path

import numpy as np

from index.answers.filters import parse_filter
from index.answers.view import FEW, MASKS, begins_with
from index.gallery.folder.store import STORE, Store
from index.gallery.folder.store_view import follow, read_view
from tests.index.samples import gaussians, part, sample


def test_percentiles_count_what_lies_below(tmp_path: Path) -> None:
    store = Store.create(tmp_path / STORE, {"dim": "8"})
    rows = sample(200)
    store.add(rows)
    view = read_view(store, normalise=True)
    store.remove(rows.ids[:50])
    assert follow(view, store, normalise=True)
    asked = gaussians(FEW + 30, seed=4).uncertainty
    expected = [(rows.gaussians.uncertainty[50:] < u).mean() * 100 for u in asked]
    np.testing.assert_allclose(view.percentiles(asked[:FEW]), expected[:FEW])
    np.testing.assert_allclose(view.percentiles(asked), expected)
    np.testing.assert_allclose(view.percentiles(asked[:2]), expected[:2])
    store.remove(rows.ids)
    assert follow(view, store, normalise=True)
    assert view.percentiles(asked[:2]) == [None, None]
    store.close()


def test_a_view_that_follows_equals_one_read_again(tmp_path: Path) -> None:
    store = Store.create(tmp_path / STORE, {"dim": "8"})
    rows = sample(60)
    store.add(part(rows, slice(0, 20)))
    view = read_view(store, normalise=True)
    store.add(part(rows, slice(20, 60)))
    store.remove(rows.ids[5:30])
    store.add(part(sample(60, seed=3), slice(0, 5)), replace=True)
    assert follow(view, store, normalise=True)
    fresh = read_view(store, normalise=True)
    assert [view.ids[i] for i in np.flatnonzero(view.alive)] == fresh.ids
    np.testing.assert_array_equal(view.rows[view.alive], fresh.rows)
    np.testing.assert_array_equal(view.items[view.alive].mean, fresh.items.mean)
    assert view.generation == fresh.generation == 4
    assert view.positions(np.array([-1, 21, 31, 10_000])).tolist() == [20]
    store.compact()
    assert not follow(view, store, normalise=True)
    store.close()


def test_a_saved_index_is_known_by_its_rows_and_checksums(tmp_path: Path) -> None:
    store = Store.create(tmp_path / STORE, {"dim": "8"})
    store.add(sample(10))
    view = read_view(store, normalise=True)
    assert begins_with(view, view.rows[:4], view.crc[:4])
    assert begins_with(view, view.rows, view.crc)
    assert not begins_with(view, view.rows[1:4], view.crc[1:4])
    assert not begins_with(view, view.rows[:4], view.crc[:4] + 1)
    assert not begins_with(view, view.rows[:0], view.crc[:0])
    assert not begins_with(view, np.arange(1, 20), np.zeros(19, np.int64))
    store.close()


def test_the_choices_of_the_last_filters_are_remembered(tmp_path: Path) -> None:
    store = Store.create(tmp_path / STORE, {"dim": "8"})
    store.add(sample(3))
    view = read_view(store, normalise=True)
    trees = [parse_filter({"uncertainty": number}) for number in range(MASKS + 5)]
    for tree in trees:
        view.cache_mask(tree, np.ones(3, bool))
    assert list(view.chosen) == trees[5:]
    store.add(sample(1, prefix="j"))
    assert follow(view, store, normalise=True)
    assert not view.chosen
    store.close()
