"""The view in memory follows the store row by row, and what it handed out does not move."""

from pathlib import Path

import numpy as np

from index.answers.view import FEW, begins_with, follow, read_view
from index.gallery.store import STORE, Records
from tests.index.samples import gaussians, part, sample


def test_percentiles_count_what_lies_below(tmp_path: Path) -> None:
    records = Records.create(tmp_path / STORE, {"dim": "8"})
    rows = sample(200)
    records.add(rows)
    view = read_view(records, normalise=True)
    records.remove(rows.ids[:50])
    assert follow(view, records, normalise=True)
    asked = gaussians(FEW + 30, seed=4).uncertainty
    expected = [(rows.gaussians.uncertainty[50:] < u).mean() * 100 for u in asked]
    np.testing.assert_allclose(view.percentiles(asked[:FEW]), expected[:FEW])
    np.testing.assert_allclose(view.percentiles(asked), expected)
    np.testing.assert_allclose(view.percentiles(asked[:2]), expected[:2])
    records.remove(rows.ids)
    assert follow(view, records, normalise=True)
    assert view.percentiles(asked[:2]) == [None, None]
    records.close()


def test_a_view_that_follows_equals_one_read_anew(tmp_path: Path) -> None:
    records = Records.create(tmp_path / STORE, {"dim": "8"})
    rows = sample(60)
    records.add(part(rows, slice(0, 20)))
    view = read_view(records, normalise=True)
    records.add(part(rows, slice(20, 60)))
    records.remove(rows.ids[5:30])
    records.add(part(sample(60, seed=3), slice(0, 5)), replace=True)
    assert follow(view, records, normalise=True)
    fresh = read_view(records, normalise=True)
    assert [view.ids[i] for i in np.flatnonzero(view.alive)] == fresh.ids
    np.testing.assert_array_equal(view.rows[view.alive], fresh.rows)
    np.testing.assert_array_equal(view.items[view.alive].mean, fresh.items.mean)
    assert view.generation == fresh.generation == 4
    assert view.positions(np.array([-1, 21, 31, 10_000])).tolist() == [20]
    records.compact()
    assert not follow(view, records, normalise=True)
    records.close()


def test_a_saved_index_is_known_by_its_rows_and_checksums(tmp_path: Path) -> None:
    records = Records.create(tmp_path / STORE, {"dim": "8"})
    records.add(sample(10))
    view = read_view(records, normalise=True)
    assert begins_with(view, view.rows[:4], view.crc[:4])
    assert begins_with(view, view.rows, view.crc)
    assert not begins_with(view, view.rows[1:4], view.crc[1:4])
    assert not begins_with(view, view.rows[:4], view.crc[:4] + 1)
    assert not begins_with(view, view.rows[:0], view.crc[:0])
    assert not begins_with(view, np.arange(1, 20), np.zeros(19, np.int64))
    records.close()
