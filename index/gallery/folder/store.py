"""Rows <-> `store.db`, the store of record: one SQLite file in WAL mode.

Each write is one durable transaction and raises the generation by one (index.gallery.folder.database). A row
number is never used twice: replacing an item gives it a new row, so a row's vectors never change,
and an index derived from the store can only lag behind it, not contradict it. Removed rows are
listed until compaction. A row has two checksums: of its vectors, and of everything else.
Shape letters: N rows, D embedding dimension.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from index.answers.filters import Filter, Scalar, to_sql
from index.answers.metadata_columns import check_columns, counted, parsed
from index.answers.validation import Metadata, checked_metadata
from index.answers.view import ItemColumns
from index.arrays import Int64s
from index.gallery.folder.database import FACTS, Database, record_checksum, sqlite_errors, vector_checksum
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import ExistsError, FormatError, InputError

STORE = "store.db"
REBUILD = "build the gallery again: vssl index EMBEDDINGS GALLERY"
READ = (
    "SELECT row, id, label, path, uncertainty, metadata, sum, crc, mean, variance "
    "FROM items LEFT JOIN vectors USING (row)"
)
# Checksums without the vectors they lie behind: a gallery of mapped vectors reads these alone.
CHECKSUMS = "CREATE INDEX IF NOT EXISTS checksums ON vectors (row, crc)"
ITEMS = f"""
CREATE TABLE items (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    label TEXT,
    path TEXT NOT NULL,
    uncertainty REAL NOT NULL,
    metadata TEXT NOT NULL,
    sum INTEGER NOT NULL
);
CREATE TABLE vectors (row INTEGER PRIMARY KEY, mean BLOB NOT NULL, variance BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE removed (row INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
{CHECKSUMS};
"""
RECORD = "row, id, label, path, uncertainty, metadata"  # what `record_checksum` covers
CHUNK = 4096  # rows read at once


@dataclass(eq=False)
class Batch(ItemColumns):
    """N stored rows with their vectors (N, D) as they were added."""

    gaussians: GaussianEmbedding


class Store(Database):
    """The items of a gallery, and its facts."""

    SCHEMA = FACTS + ITEMS

    def count(self) -> int:
        """Return the number of items."""
        with self._lock, sqlite_errors(self.path):
            return int(self._db.execute("SELECT count(*) FROM items").fetchone()[0])

    def read(self, *, after: int = 0) -> Batch:
        """Return the rows numbered above `after`. Raises FormatError for a damaged row."""
        with self._lock:
            return _joined(list(self.stream(after=after)), self.dim)

    def stream(self, *, after: int = 0) -> Iterator[Batch]:
        """Yield the rows numbered above `after`, some thousands at once; hold a `snapshot` meanwhile."""
        with self._lock, sqlite_errors(self.path):
            cursor = self._db.execute(f"{READ} WHERE row > ? ORDER BY row", (after,))
            shared: dict[object, object] = {}
            count = 0
            while chunk := cursor.fetchmany(CHUNK):
                count += len(chunk)
                yield self._batch(chunk, shared)
            held = "SELECT count(*) FROM vectors WHERE row > ?"
            if count != self._db.execute(held, (after,)).fetchone()[0]:
                raise FormatError(f"{self.path} is damaged: some vectors have no item; {REBUILD}")

    def columns(self) -> ItemColumns:
        """Return all rows without their vectors, which are not read. Raises FormatError where one has none."""
        with self._lock, sqlite_errors(self.path):
            rows, ids, labels, paths, uncertainty = [], [], [], [], []
            shared: dict[str | None, str | None] = {}
            cursor = self._db.execute(f"SELECT {RECORD}, sum FROM items ORDER BY row")
            for *record, sum_ in cursor:
                self._check(record, sum_)
                row, id_, label, path, value, _ = record
                rows.append(row)
                ids.append(id_)
                labels.append(shared.setdefault(label, label))
                paths.append(path)
                uncertainty.append(value)
            sums = self._db.execute("SELECT row, crc FROM vectors ORDER BY row").fetchall()
        table = np.array(sums, np.int64).reshape(-1, 2)
        if not np.array_equal(table[:, 0], rows):
            raise FormatError(f"{self.path} is damaged: {len(rows)} items, {len(table)} vectors; {REBUILD}")
        return ItemColumns(table[:, 0], table[:, 1], ids, labels, paths, np.array(uncertainty, np.float32))

    def _batch(self, chunk: Sequence[tuple[Any, ...]], shared: dict[object, object]) -> Batch:
        """Check and stack rows; equal labels become one object."""
        means, variances = bytearray(), bytearray()
        for *record, sum_, crc, mean, variance in chunk:
            self._check(record, sum_)
            row, id_ = record[:2]
            if mean is None or vector_checksum(row, mean, variance) != crc:
                raise FormatError(
                    f"{self.path} is damaged: the vectors of {id_!r} do not match their checksum; remove it "
                    f"from the last snapshot's copy, or {REBUILD}"
                )
            means += mean
            variances += variance
        rows, ids, labels, paths, uncertainty, _, _, crcs, _, _ = zip(*chunk, strict=True)
        shape = (len(rows), self.dim)
        return Batch(
            np.array(rows, np.int64),
            np.array(crcs, np.int64),
            list(ids),
            [shared.setdefault(label, label) for label in labels],  # type: ignore[misc]
            list(paths),
            np.array(uncertainty, np.float32),
            GaussianEmbedding(
                *(np.frombuffer(numbers, np.float32).reshape(shape) for numbers in (means, variances))
            ),
        )

    def _check(self, record: Sequence[Any], found: int) -> None:
        """Raise FormatError unless a row's record fits its checksum."""
        if record_checksum(record) != found:
            raise FormatError(
                f"{self.path} is damaged: id, label, path, uncertainty or metadata of row {record[0]} do not match "
                f"their checksum; put a snapshot in its place, or {REBUILD}"
            )

    def metadata(self) -> list[dict[str, Scalar]]:
        """Return the metadata of all items in row order."""
        with self._lock, sqlite_errors(self.path):
            found = self._db.execute("SELECT metadata FROM items ORDER BY row")
            return list(parsed(text for (text,) in found))

    def metadata_of(self, rows: Sequence[int] | None = None) -> dict[int, dict[str, Scalar]]:
        """Return by row number the metadata of those items that have some: of these rows, or of all."""
        some = "SELECT row, metadata FROM items WHERE metadata != '{}'"
        among = "" if rows is None else " AND row IN (SELECT value FROM json_each(?))"
        with self._lock, sqlite_errors(self.path):
            found = self._db.execute(some + among, () if rows is None else (json.dumps(rows),)).fetchall()
            return dict(zip([row for row, _ in found], parsed(text for _, text in found), strict=True))

    def columns_of_metadata(self) -> dict[str, dict[str, int]]:
        """Return the names in all items' metadata, and how many values of each kind they hold."""
        with self._lock, sqlite_errors(self.path):
            found = self._db.execute("SELECT metadata FROM items WHERE metadata != '{}'")
            return counted(parsed(text for (text,) in found))

    def removed(self, *, since: int) -> Int64s:
        """Return the rows removed after generation `since` (and after the last compaction)."""
        with self._lock, sqlite_errors(self.path):
            gone = self._db.execute("SELECT row FROM removed WHERE generation > ?", (since,))
            return np.array([row for (row,) in gone], np.int64)

    def select(self, tree: Filter) -> Int64s:
        """Return the rows that a filter keeps, ascending.

        Raises InputError for a column, or a type of value, that no item has.
        """
        check_columns(tree, self._holds, self._names)
        condition, parameters = to_sql(tree)
        with self._lock, sqlite_errors(self.path):
            cursor = self._db.execute(f"SELECT row FROM items WHERE {condition} ORDER BY row", parameters)
            return np.array([row for (row,) in cursor], np.int64)

    def _holds(self, tree: Filter) -> bool:
        """Whether any item fits a filter."""
        condition, parameters = to_sql(tree)
        query = f"SELECT EXISTS (SELECT 1 FROM items WHERE {condition})"
        with self._lock, sqlite_errors(self.path):
            return bool(self._db.execute(query, parameters).fetchone()[0])

    def _names(self) -> list[str]:
        """Return names of metadata, of the first items."""
        query = (
            "SELECT DISTINCT key FROM (SELECT metadata FROM items LIMIT 10000), json_each(metadata) LIMIT 50"
        )
        with self._lock, sqlite_errors(self.path):
            return [name for (name,) in self._db.execute(query)]

    def get(self, id_: str) -> tuple[Batch, dict[str, Scalar]]:
        """Return one item and its metadata. Raises InputError when there is none of that id."""
        with self.snapshot():
            found = self._db.execute(f"{READ} WHERE id = ?", (id_,)).fetchall()
            if not found:
                raise InputError(f"the gallery holds no item {id_!r}")
            batch = self._batch(found, {})
            (metadata,) = self._db.execute("SELECT metadata FROM items WHERE id = ?", (id_,)).fetchone()
        return batch, json.loads(metadata)

    def add(self, rows: Rows, metadata: Sequence[Metadata] | None = None, *, replace: bool = False) -> int:
        """Add N rows, all or none; returns the new generation.

        Raises InputError for an id named twice or metadata that is not flat, ExistsError for an id
        that the store holds when `replace` is false.
        """
        notes = [json.dumps(entry) for entry in checked_metadata(rows, metadata)]
        uncertainty = rows.gaussians.uncertainty.tolist()
        with self._transaction() as generation:
            first = int(self.fact("next_row") or 1)
            self._set("next_row", str(first + len(rows)))
            if replace:
                self._delete([(id_,) for id_ in rows.ids], generation)
            numbers = range(first, first + len(rows))
            records = zip(numbers, rows.ids, rows.labels, rows.paths, uncertainty, notes, strict=True)
            try:
                self._db.executemany(
                    "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?)",
                    ((*record, record_checksum(record)) for record in records),
                )
            except sqlite3.IntegrityError:
                raise ExistsError(self._taken(rows.ids, first)) from None
            self._db.executemany("INSERT INTO vectors VALUES (?, ?, ?, ?)", _vectors(first, rows.gaussians))
        return generation

    def _taken(self, ids: Sequence[str], first: int) -> str:
        """Say which ids were there before this change, whose own rows start at `first`."""
        known = "SELECT 1 FROM items WHERE id = ? AND row < ?"
        have = [i for i in ids if self._db.execute(known, (i, first)).fetchone()]
        names = ", ".join(repr(i) for i in have[:3]) + (", ..." if len(have) > 3 else "")
        return (
            f"{len(have)} of {len(ids)} ids are in the gallery already ({names}); replace them with --replace"
        )

    def _delete(self, ids: Sequence[tuple[str]], generation: int) -> int:
        before = self._db.total_changes
        self._db.executemany(f"INSERT INTO removed SELECT row, {generation:d} FROM items WHERE id = ?", ids)
        gone = self._db.total_changes - before
        self._db.executemany("DELETE FROM vectors WHERE row = (SELECT row FROM items WHERE id = ?)", ids)
        self._db.executemany("DELETE FROM items WHERE id = ?", ids)
        return gone

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items by id, all in one transaction; returns how many there were."""
        with self._transaction() as generation:
            return self._delete([(id_,) for id_ in dict.fromkeys(ids)], generation)

    def compact(self) -> int:
        """Give the space of removed rows back to the disk; returns the new generation."""
        with self._transaction() as generation:
            self._db.execute("DELETE FROM removed")
            self._db.execute(CHECKSUMS)  # an earlier version had no such list
            self._set("compacted", str(generation))
        with self._lock, sqlite_errors(self.path):
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return generation


def _joined(parts: Sequence[Batch], dim: int) -> Batch:
    """Return several batches as one."""
    if len(parts) == 1:
        return parts[0]
    none = np.empty((0, dim), np.float32)
    columns = ItemColumns.concatenate(parts)
    gaussians = [GaussianEmbedding(none, none), *(part.gaussians for part in parts)]
    return Batch(**vars(columns), gaussians=GaussianEmbedding.concatenate(gaussians))


def _vectors(first: int, gaussians: GaussianEmbedding) -> Iterator[tuple[int, bytes, bytes, int]]:
    for row, pair in enumerate(zip(gaussians.mean, gaussians.variance, strict=True), start=first):
        mean, variance = (numbers.tobytes() for numbers in pair)
        yield row, mean, variance, vector_checksum(row, mean, variance)
