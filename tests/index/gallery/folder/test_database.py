"""One file: each write is whole, durable or refused, and readers see one moment."""

import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from index.gallery.folder.store import STORE, Store
from index.gallery.protocol import StorageError
from tests.index.samples import sample
from vssl.errors import ExistsError, FormatError, InputError


@pytest.fixture
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, sqlite3.Connection]]:
    """A store, and the connection that it opened."""
    made: list[sqlite3.Connection] = []
    real = sqlite3.connect
    Store.create(tmp_path / "connected.db", {"dim": "8"}).close()
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: made.append(real(*a, **k)) or made[-1])
    opened = Store(tmp_path / "connected.db")
    monkeypatch.undo()
    yield opened, made[-1]
    opened.close()


def test_writes_are_flushed_at_each_commit(connection: tuple[Store, sqlite3.Connection]) -> None:
    assert connection[1].execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection[1].execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


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


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no gallery at .* vssl index EMBEDDINGS GALLERY$"):
        Store(tmp_path / STORE)
    (tmp_path / "manifest.json").touch()
    with pytest.raises(InputError, match=f"vssl index {tmp_path} GALLERY$"):
        Store(tmp_path / STORE)
    with pytest.raises(InputError, match=f"vssl index EMBEDDINGS {tmp_path / 'new'}$"):
        Store(tmp_path / "new" / STORE)
    (tmp_path / STORE).write_bytes(b"not a database" * 100)
    with pytest.raises(FormatError, match="damaged"):
        Store(tmp_path / STORE)
    (tmp_path / "empty.db").write_bytes(b"")
    with pytest.raises(FormatError):
        Store(tmp_path / "empty.db")


def test_another_format_version_is_refused(store: Store) -> None:
    store.set_fact("format", "3")
    with pytest.raises(FormatError, match="found gallery format 3, expected 2"):
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
from index.gallery.protocol import StorageError
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
