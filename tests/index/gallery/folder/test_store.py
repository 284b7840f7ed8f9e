"""The store of record: all or nothing, durable, versioned, checksummed, and clear about trouble."""

import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from index.answers.filters import parse_filter
from index.gallery.folder.database import StorageError
from index.gallery.folder.store import STORE, Store, checksum
from tests.index.brute import raw
from tests.index.samples import part, sample
from vssl.errors import ExistsError, FormatError, InputError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.create(tmp_path / STORE, {"dim": "8", "model_id": "m"})
    yield made  # type: ignore[misc]
    made.close()


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


@pytest.fixture
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, sqlite3.Connection]]:
    """A store, and the connection that it opened."""
    made: list[sqlite3.Connection] = []
    honest = sqlite3.connect
    Store.create(tmp_path / "connected.db", {"dim": "8"}).close()
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: made.append(honest(*a, **k)) or made[-1])
    opened = Store(tmp_path / "connected.db")
    monkeypatch.undo()
    yield opened, made[-1]
    opened.close()


def test_writes_are_flushed_at_each_commit(connection: tuple[Store, sqlite3.Connection]) -> None:
    assert connection[1].execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection[1].execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


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


def test_a_reader_sees_one_moment(store: Store) -> None:
    store.add(sample(2))
    reader = Store(store.path, read_only=True)
    with reader.snapshot():
        assert reader.generation() == 1
        store.add(sample(1, prefix="j"))
        assert reader.generation() == 1
        assert len(reader.read().ids) == 2
    assert len(reader.read().ids) == 3
    reader.close()


def test_a_copy_is_whole_while_the_store_is_written(store: Store, tmp_path: Path) -> None:
    store.add(sample(200))
    store.copy_to(tmp_path / "copy.db")
    store.remove(["i0"])
    copy = Store(tmp_path / "copy.db")
    assert copy.count() == 200
    copy.close()


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
        checksum(row, damaged, variance) != checksum(row, mean, variance) != checksum(row + 1, mean, variance)
    )
    with raw(store.path) as other:
        other.execute("UPDATE vectors SET mean = ? WHERE row = 2", (damaged,))
    with pytest.raises(FormatError, match="'i1' do not match their checksum"):
        store.read()


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no gallery at .* vssl index"):
        Store(tmp_path / STORE)
    (tmp_path / STORE).write_bytes(b"not a database" * 100)
    with pytest.raises(FormatError, match="damaged"):
        Store(tmp_path / STORE)
    (tmp_path / "empty.db").write_bytes(b"")
    with pytest.raises(FormatError):
        Store(tmp_path / "empty.db")


def test_another_format_version_is_refused(store: Store) -> None:
    store.set_fact("format", "2")
    with pytest.raises(FormatError, match="found gallery format 2, expected 1"):
        Store(store.path)


def test_creating_over_a_store_is_refused(store: Store) -> None:
    with pytest.raises(ExistsError):
        Store.create(store.path, {"dim": "8"})


def test_a_full_database_loses_nothing(connection: tuple[Store, sqlite3.Connection]) -> None:
    store, own = connection
    store.add(sample(10))
    pages = own.execute("PRAGMA page_count").fetchone()[0]
    own.execute(f"PRAGMA max_page_count = {pages + 3}")
    with pytest.raises(StorageError, match="nothing of this change was kept"):
        store.add(sample(5000, prefix="j"))
    assert store.count() == 10
    own.execute("PRAGMA max_page_count = 1000000")
    store.add(sample(10, prefix="k"))
    assert store.count() == 20


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from index.gallery.folder.database import StorageError
from index.gallery.folder.store import Store
from tests.index.samples import sample
store = Store(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
for batch in range(100):
    try:
        store.add(sample(200, prefix=f"b{batch}-"))
        print(batch, flush=True)
    except StorageError as error:
        print("full", error, flush=True)
        break
"""


def test_a_file_system_that_refuses_to_grow_loses_nothing(store: Store) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(store.path)], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("full cannot write")
    acknowledged = {f"b{batch}-{i}" for batch in lines[:-1] for i in range(200)}
    reopened = Store(store.path)
    assert acknowledged
    assert set(reopened.read().ids) == acknowledged
    reopened.close()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 400_000


def test_a_read_only_medium_can_be_read(store: Store, tmp_path: Path) -> None:
    store.add(sample(3))
    store.close()
    folder = store.path.parent
    address = f"{store.path.as_uri()}?mode=ro&immutable=1"
    connection = sqlite3.connect(address, uri=True)
    assert connection.execute("SELECT count(*) FROM items").fetchone() == (3,)
    connection.close()
    folder.chmod(0o555)
    try:
        reader = Store(store.path, read_only=True)
        assert reader.count() == 3
        reader.close()
    finally:
        folder.chmod(0o755)
