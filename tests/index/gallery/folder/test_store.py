"""The store of record: all or nothing, durable, versioned, checksummed, and clear about trouble."""

import numpy as np
import pytest

from index.answers.filters import parse_filter
from index.gallery.folder.database import vector_checksum
from index.gallery.folder.store import Store
from tests.index.brute import raw
from tests.index.samples import part, sample
from vssl.errors import ExistsError, FormatError, InputError


def test_rows_come_back_as_they_went_in(store: Store) -> None:
    rows = sample(40)
    assert store.add(rows) == 1
    batch = store.read()
    assert batch.ids == rows.ids
    assert batch.labels == rows.labels
    assert batch.paths == rows.paths
    np.testing.assert_array_equal(batch.gaussians.mean, rows.gaussians.mean)
    np.testing.assert_array_equal(batch.gaussians.variance, rows.gaussians.variance)
    np.testing.assert_array_equal(batch.uncertainty, rows.gaussians.uncertainty)
    assert batch.rows.tolist() == list(range(1, 41))
    assert len(store.read(after=38).ids) == 2


def test_a_row_number_is_never_used_twice(store: Store) -> None:
    rows = sample(4)
    store.add(rows)
    store.remove(["i3"])
    store.add(part(rows, slice(3, 4)))
    store.add(part(rows, slice(0, 1)), replace=True)
    batch = store.read()
    assert dict(zip(batch.ids, batch.rows.tolist(), strict=True)) == {"i1": 2, "i2": 3, "i3": 5, "i0": 6}
    assert sorted(store.removed(since=0).tolist()) == [1, 4]
    assert store.removed(since=3).tolist() == [1]


def test_an_id_that_is_there_refuses_the_whole_batch(store: Store) -> None:
    store.add(part(sample(5), slice(2, 5)))
    with pytest.raises(ExistsError, match=r"3 of 5 ids are in the gallery already .*--replace"):
        store.add(sample(5))
    assert store.count() == 3
    assert store.generation() == 1


def test_an_id_given_twice_is_refused(store: Store) -> None:
    rows = sample(3)
    rows.ids[2] = "i0"
    with pytest.raises(InputError, match="'i0' is given twice"):
        store.add(rows, replace=True)
    assert store.count() == 0


def test_removing_counts_what_was_there(store: Store) -> None:
    store.add(sample(5))
    assert store.remove(["i1", "i1", "i4", "nobody"]) == 2
    assert store.read().ids == ["i0", "i2", "i3"]
    with raw(store.path) as other:
        assert other.execute("SELECT count(*) FROM vectors").fetchone() == (3,)


def test_metadata_is_flat_and_finite(store: Store) -> None:
    rows = sample(2)
    store.add(rows, [{"year": 2020, "make": None}, {"year": 2021}])
    assert store.get("i0")[1] == {"year": 2020, "make": None}
    for bad in ({"a b": 1}, {"label": 1}, {"x": [1]}, {"x": float("nan")}, {"x": float("inf")}):
        with pytest.raises(InputError, match="metadata"):
            store.add(sample(1, prefix="j"), [bad])  # type: ignore[list-item]
    with pytest.raises(InputError, match="found 1 entries for 2 rows"):
        store.add(sample(2, prefix="j"), [{}])
    assert store.count() == 2


def test_a_filter_selects_rows(store: Store) -> None:
    store.add(sample(6, groups=3), [{"year": 2000 + i} for i in range(6)])
    assert store.select(parse_filter({"label": "group1"})).tolist() == [2, 5]
    assert store.select(parse_filter({"year": {">=": 2002, "<": 2004}})).tolist() == [3, 4]
    assert store.select(parse_filter({})).tolist() == [1, 2, 3, 4, 5, 6]
    assert store.select(parse_filter({"or": []})).tolist() == []


def test_an_absent_item_is_named(store: Store) -> None:
    with pytest.raises(InputError, match="no item 'x'"):
        store.get("x")


def test_compaction_forgets_removals_and_keeps_rows(store: Store) -> None:
    store.add(sample(500, 8))
    store.remove([f"i{i}" for i in range(400)])
    with raw(store.path) as other:
        (pages,) = other.execute("PRAGMA page_count").fetchone()
    generation = store.compact()
    assert store.removed(since=0).tolist() == []
    assert store.fact("compacted") == str(generation)
    assert store.read().rows.tolist() == list(range(401, 501))
    with raw(store.path) as other:
        assert other.execute("PRAGMA page_count").fetchone()[0] < pages


def test_a_flipped_bit_in_a_vector_is_found(store: Store) -> None:
    store.add(sample(3))
    with raw(store.path) as other:
        mean, variance, row = other.execute(
            "SELECT mean, variance, row FROM vectors WHERE row = 2"
        ).fetchone()
    damaged = bytes([mean[0] ^ 1]) + mean[1:]
    assert (
        vector_checksum(row, damaged, variance)
        != vector_checksum(row, mean, variance)
        != vector_checksum(row + 1, mean, variance)
    )
    with raw(store.path) as other:
        other.execute("UPDATE vectors SET mean = ? WHERE row = 2", (damaged,))
    with pytest.raises(FormatError, match="'i1' do not match their checksum"):
        store.read()


CHANGES = {
    "label": "'cat '",
    "id": "'zz'",
    "path": "'elsewhere'",
    "uncertainty": "uncertainty / 2",
    "metadata": "'{\"a\": 2}'",
}


@pytest.mark.parametrize("column", CHANGES)
def test_what_a_row_says_answers_for_itself(store: Store, column: str) -> None:
    store.add(sample(3), metadata=[{"a": 1}] * 3)
    with raw(store.path) as other:
        other.execute(f"UPDATE items SET {column} = {CHANGES[column]} WHERE row = 2")
    for read in (store.read, store.columns):
        with pytest.raises(FormatError, match="row 2 do not match their checksum"):
            read()


def test_a_fact_answers_for_itself(store: Store) -> None:
    with raw(store.path) as other:
        other.execute("UPDATE facts SET value = '3' WHERE name = 'dim'")
    with pytest.raises(FormatError, match="its dim does not match its checksum"):
        Store(store.path)


def test_a_row_that_went_is_missed(store: Store) -> None:
    store.add(sample(3))
    with raw(store.path) as other:
        other.execute("DELETE FROM items WHERE row = 2")
    for read in (store.read, store.columns):
        with pytest.raises(FormatError, match="is damaged"):
            read()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_flipped_bit_in_the_schema_is_found(store: Store, read_only: bool) -> None:
    """SQLite quotes it in a message that is no UTF-8."""
    store.add(sample(3))
    store.close()
    data = bytearray(store.path.read_bytes())
    data[data.index(b"CREATE TABLE facts") + 7] ^= 0x80
    store.path.write_bytes(data)
    with pytest.raises(FormatError, match=r"is damaged|cannot be read"):
        Store(store.path, read_only=read_only)
