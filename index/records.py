"""Rows <-> `store.db`, the store of record: one SQLite file in WAL mode.

Every write is one transaction, flushed to the disk before the call returns, and raises the
generation by one. A row number is never used twice: replacing an item gives it a new row, so
a row's vectors never change, and an index derived from the store can only lag behind it, not
contradict it. Rows that went are listed until compaction. Each row carries a checksum.
Shape letters: N rows, D embedding dimension.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.admission import Metadata, admitted
from index.filters import Filter, Scalar, to_sql
from vssl.errors import ExistsError, FormatError, InputError, VsslError
from vssl.gaussian import Floats, GaussianEmbedding
from vssl.store import Rows

GALLERY_FORMAT = 1
STORE = "store.db"

SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE items (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    label TEXT,
    path TEXT NOT NULL,
    uncertainty REAL NOT NULL,
    metadata TEXT NOT NULL
);
CREATE TABLE vectors (row INTEGER PRIMARY KEY, mean BLOB NOT NULL, variance BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE removed (row INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
"""


class StorageError(VsslError):
    """The disk refused a write: it is full, or the file cannot be written."""

    code = "storage"
    status = 507


@dataclass(frozen=True, eq=False)
class Batch:
    """N stored rows in row order: columns of length N, vectors (N, D) as they were added."""

    rows: NDArray[np.int64]
    ids: list[str]
    labels: list[str | None]
    paths: list[str]
    uncertainty: Floats
    crc: NDArray[np.int64]
    gaussians: GaussianEmbedding


class Records:
    """One connection to a store; calls from several threads take turns."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open an existing store; raises InputError or FormatError when there is none to read."""
        if not path.is_file():
            raise InputError(
                f"no gallery at {str(path.parent)!r}: found no {path.name}; build one with: "
                f"vssl index EMBEDDINGS {path.parent}"
            )
        self.path = path
        self._turn = threading.RLock()
        with _speaking(path):
            self._db = _connect(path, read_only=read_only)
            try:
                self._db.execute("PRAGMA synchronous = FULL")
                found = self.fact("format")
            except BaseException:
                self._db.close()
                raise
        if found != str(GALLERY_FORMAT):
            self._db.close()
            raise FormatError(
                f"{path.parent}: found gallery format {found}, expected {GALLERY_FORMAT}; open it with the "
                "version of vssl that wrote it, or build it again: vssl index EMBEDDINGS GALLERY"
            )
        self.dim = int(self.fact("dim") or 0)

    @classmethod
    def create(cls, path: Path, facts: Mapping[str, str]) -> Records:
        """Write an empty store; `facts` must hold `dim`. Raises ExistsError when one is there."""
        if path.exists():
            raise ExistsError(f"{path.parent} is a gallery already; choose another place or add --overwrite")
        first = {"format": str(GALLERY_FORMAT), "generation": "0", "next_row": "1", "compacted": "0"}
        with _speaking(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            # One transaction: a store is either whole or has no format and is refused.
            db.executescript(f"BEGIN; {SCHEMA}")
            db.executemany("INSERT INTO facts VALUES (?, ?)", [*first.items(), *facts.items()])
            db.execute("COMMIT")
        return cls(path)

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        with self._turn:
            self._db.close()

    # --- reading -----------------------------------------------------------------------

    def fact(self, name: str) -> str | None:
        """Return one fact (`generation`, `model_id`, `card`, ...), or None."""
        with self._turn:
            found = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def generation(self) -> int:
        """Return how many writes the store has seen."""
        return int(self.fact("generation") or 0)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Hold one unchanging view of the store for several reads."""
        with self._turn, _speaking(self.path):
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("COMMIT")

    def count(self) -> int:
        """Return the number of items."""
        with self._turn:
            return int(self._db.execute("SELECT count(*) FROM items").fetchone()[0])

    def read(self, *, after: int = 0) -> Batch:
        """Return the rows numbered above `after`. Raises FormatError for a damaged row."""
        with self._turn, _speaking(self.path):
            cursor = self._db.execute(
                "SELECT row, id, label, path, uncertainty, crc, mean, variance FROM items "
                "LEFT JOIN vectors USING (row) WHERE row > ? ORDER BY row",
                (after,),
            )
            return self._batch(cursor)

    def _batch(self, cursor: sqlite3.Cursor) -> Batch:
        columns: list[list[object]] = [[] for _ in range(6)]
        means, variances = bytearray(), bytearray()
        while chunk := cursor.fetchmany(4096):
            for row, id_, *_, crc, mean, variance in chunk:
                if mean is None or checksum(row, mean, variance) != crc:
                    raise FormatError(
                        f"{self.path} is damaged: the vectors of {id_!r} do not match their checksum; remove it "
                        "from the last snapshot's copy, or build the gallery again: vssl index EMBEDDINGS GALLERY"
                    )
                means += mean
                variances += variance
            for column, values in zip(columns, zip(*chunk, strict=True), strict=False):
                column.extend(values)
        rows, ids, labels, paths, uncertainty, crc = columns
        shape = (len(rows), self.dim)
        return Batch(
            np.array(rows, np.int64),
            ids,  # type: ignore[arg-type]
            labels,  # type: ignore[arg-type]
            paths,  # type: ignore[arg-type]
            np.array(uncertainty, np.float32),
            np.array(crc, np.int64),
            GaussianEmbedding(
                np.frombuffer(means, np.float32).reshape(shape),
                np.frombuffer(variances, np.float32).reshape(shape),
            ),
        )

    def metadata(self) -> list[dict[str, Scalar]]:
        """Return the metadata of all items in row order."""
        with self._turn, _speaking(self.path):
            cursor = self._db.execute("SELECT metadata FROM items ORDER BY row")
            return [json.loads(text) for (text,) in cursor]

    def removed(self, *, since: int) -> NDArray[np.int64]:
        """Return the rows that went after generation `since` (and after the last compaction)."""
        with self._turn, _speaking(self.path):
            cursor = self._db.execute("SELECT row FROM removed WHERE generation > ?", (since,))
            return np.array([row for (row,) in cursor], np.int64)

    def select(self, tree: Filter) -> NDArray[np.int64]:
        """Return the rows that a filter keeps, ascending."""
        condition, parameters = to_sql(tree)
        with self._turn, _speaking(self.path):
            cursor = self._db.execute(f"SELECT row FROM items WHERE {condition} ORDER BY row", parameters)
            return np.array([row for (row,) in cursor], np.int64)

    def get(self, id_: str) -> tuple[Batch, dict[str, Scalar]]:
        """Return one item and its metadata. Raises InputError when there is none of that id."""
        with self.snapshot():
            cursor = self._db.execute(
                "SELECT row, id, label, path, uncertainty, crc, mean, variance FROM items "
                "LEFT JOIN vectors USING (row) WHERE id = ?",
                (id_,),
            )
            batch = self._batch(cursor)
            if not batch.ids:
                raise InputError(f"the gallery holds no item {id_!r}")
            (metadata,) = self._db.execute("SELECT metadata FROM items WHERE id = ?", (id_,)).fetchone()
        return batch, json.loads(metadata)

    # --- writing -----------------------------------------------------------------------

    @contextlib.contextmanager
    def _write(self) -> Iterator[int]:
        """One durable transaction; yields the generation that it makes."""
        with self._turn, _speaking(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                generation = self.generation() + 1
                self._set("generation", str(generation))
                yield generation
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _set(self, name: str, value: str) -> None:
        self._db.execute(
            "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, value),
        )

    def note(self, name: str, value: str) -> None:
        """Write a fact without a new generation: it describes the rows, it does not change them."""
        with self._turn, _speaking(self.path):
            self._set(name, value)

    def add(self, rows: Rows, metadata: Sequence[Metadata] | None = None, *, replace: bool = False) -> int:
        """Add N rows, all or none; returns the new generation.

        Raises InputError for an id named twice or metadata that is not flat, ExistsError for an id
        that the store holds when `replace` is false.
        """
        notes = [json.dumps(entry) for entry in admitted(rows, metadata)]
        means, variances = rows.gaussians.mean, rows.gaussians.variance
        uncertainty = rows.gaussians.uncertainty.tolist()
        with self._write() as generation:
            first = int(self.fact("next_row") or 1)
            self._set("next_row", str(first + len(rows)))
            if replace:
                self._forget([(id_,) for id_ in rows.ids], generation)
            try:
                self._db.executemany(
                    "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)",
                    zip(
                        range(first, first + len(rows)),
                        rows.ids,
                        rows.labels,
                        rows.paths,
                        uncertainty,
                        notes,
                        strict=True,
                    ),
                )
            except sqlite3.IntegrityError:
                raise ExistsError(self._taken(rows.ids, first)) from None
            self._db.executemany("INSERT INTO vectors VALUES (?, ?, ?, ?)", _vectors(first, means, variances))
        return generation

    def _taken(self, ids: Sequence[str], first: int) -> str:
        """Say which ids were there before this change, whose own rows start at `first`."""
        known = "SELECT 1 FROM items WHERE id = ? AND row < ?"
        have = [i for i in ids if self._db.execute(known, (i, first)).fetchone()]
        names = ", ".join(repr(i) for i in have[:3]) + (", ..." if len(have) > 3 else "")
        return (
            f"{len(have)} of {len(ids)} ids are in the gallery already ({names}); replace them with --replace"
        )

    def _forget(self, ids: Sequence[tuple[str]], generation: int) -> int:
        before = self._db.total_changes
        self._db.executemany(f"INSERT INTO removed SELECT row, {generation:d} FROM items WHERE id = ?", ids)
        gone = self._db.total_changes - before
        self._db.executemany("DELETE FROM vectors WHERE row = (SELECT row FROM items WHERE id = ?)", ids)
        self._db.executemany("DELETE FROM items WHERE id = ?", ids)
        return gone

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items by id, all in one transaction; returns how many there were."""
        with self._write() as generation:
            return self._forget([(id_,) for id_ in dict.fromkeys(ids)], generation)

    def compact(self) -> int:
        """Give the space of removed rows back to the disk; returns the new generation."""
        with self._write() as generation:
            self._db.execute("DELETE FROM removed")
            self._set("compacted", str(generation))
        with self._turn, _speaking(self.path):
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return generation

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy of the store while others read and write it."""
        with self._turn, _speaking(path), contextlib.closing(sqlite3.connect(path)) as copy:
            self._db.backup(copy)
            copy.execute("PRAGMA journal_mode = WAL")


def checksum(row: int, mean: bytes, variance: bytes) -> int:
    """Return the CRC-32 of a row's number and vectors."""
    return zlib.crc32(variance, zlib.crc32(mean, row & 0xFFFFFFFF))


def _vectors(first: int, means: Floats, variances: Floats) -> Iterator[tuple[int, bytes, bytes, int]]:
    for offset, (mean, variance) in enumerate(zip(means, variances, strict=True)):
        row, mean_bytes, variance_bytes = first + offset, mean.tobytes(), variance.tobytes()
        yield row, mean_bytes, variance_bytes, checksum(row, mean_bytes, variance_bytes)


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    mode = "ro" if read_only else "rw"
    address = f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=30)
    if read_only:
        try:
            db.execute("SELECT 1 FROM facts").fetchone()
        except sqlite3.OperationalError:
            # A read-only medium cannot hold the shared memory file of WAL; nothing writes there either.
            db.close()
            db = sqlite3.connect(
                f"{address}&immutable=1", uri=True, isolation_level=None, check_same_thread=False
            )
    return db


@contextlib.contextmanager
def _speaking(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "full" in text or "I/O" in text or "readonly" in text or "locked" in text:
            raise StorageError(
                f"cannot write {path}: {text}; nothing of this change was kept and all before it is there. "
                "Free some space or rights on the disk and repeat the command"
            ) from error
        raise FormatError(f"{path} cannot be read: {text}") from error
    except sqlite3.DatabaseError as error:
        raise FormatError(
            f"{path} is damaged: {error}; put a snapshot in its place, or build the gallery again: "
            "vssl index EMBEDDINGS GALLERY"
        ) from error
