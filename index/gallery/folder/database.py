"""One SQLite file in WAL mode <-> named facts and transactions that are durable when they return.

Every write is one transaction, flushed to the disk before the call returns, and raises the
generation by one. SQLite's errors become ours, with what to do. Facts, records and vectors have checksums.
"""

from __future__ import annotations

import contextlib
import shlex
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from index.gallery.protocol import StorageError
from vssl.embeddings.manifest import MANIFEST
from vssl.errors import ExistsError, FormatError, InputError

STORE_FORMAT = 2
FACTS = "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;"
SET = (
    "INSERT INTO facts VALUES (?, ?, ?) "
    "ON CONFLICT (name) DO UPDATE SET value = excluded.value, sum = excluded.sum"
)


class Database:
    """One connection to the file of a gallery; calls from several threads take turns.

    SCHEMA: the tables of a new file.
    """

    SCHEMA = FACTS

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open an existing store; raises InputError or FormatError when there is none to read."""
        if not path.is_file():
            place = path.parent  # which is taken, perhaps by the embeddings to build of
            if str(place).startswith("milvus:"):
                raise InputError(
                    f"{str(place)!r} is in Milvus, and expected is the folder of a gallery; copy it into one with: "
                    "vssl gallery move milvus:URI#NAME FOLDER"
                )
            source = place if (place / MANIFEST).is_file() else "EMBEDDINGS"
            build = shlex.join(["vssl", "index", str(source), "GALLERY" if place.exists() else str(place)])
            raise InputError(f"no gallery at {str(place)!r}: found no {path.name}; build one with: {build}")
        self.path = path
        self._lock = threading.RLock()
        with sqlite_errors(path):
            self._db = _connect(path, read_only=read_only)
            try:
                self._db.execute("PRAGMA synchronous = FULL")
                stored = self._db.execute("SELECT value FROM facts WHERE name = 'format'").fetchone()
            except BaseException:
                self._db.close()
                raise
        found = stored and stored[0]
        if found != str(STORE_FORMAT):
            self._db.close()
            raise FormatError(
                f"{path.parent}: found gallery format {found}, expected {STORE_FORMAT}; open it with the "
                "version of vssl that wrote it, or build it again: vssl index EMBEDDINGS GALLERY"
            )
        self.dim = int(self.fact("dim") or 0)

    @classmethod
    def create(cls, path: Path, facts: Mapping[str, str]) -> Self:
        """Write an empty store; `facts` must hold `dim`. Raises ExistsError when one is there."""
        if path.exists():
            raise ExistsError(f"{path.parent} is a gallery already; choose another place or add --overwrite")
        first = {"format": str(STORE_FORMAT), "generation": "0", "next_row": "1", "compacted": "0"}
        with sqlite_errors(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            # One transaction: a store is either whole or has no format and is refused.
            db.executescript(f"BEGIN; {cls.SCHEMA}")
            db.executemany(SET, [(*fact, fact_sum(*fact)) for fact in (*first.items(), *facts.items())])
            db.execute("COMMIT")
        return cls(path)

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        with self._lock:
            self._db.close()

    def fact(self, name: str) -> str | None:
        """Return one fact (`generation`, `model_id`, `card`, ...), or None."""
        with self._lock, sqlite_errors(self.path):
            found = self._db.execute("SELECT value, sum FROM facts WHERE name = ?", (name,)).fetchone()
        if found is None:
            return None
        if fact_sum(name, found[0]) != found[1]:
            raise FormatError(
                f"{self.path} is damaged: its {name} does not match its checksum; put a snapshot in its place, or "
                "build the gallery again: vssl index EMBEDDINGS GALLERY"
            )
        return str(found[0])

    def generation(self) -> int:
        """Return how many writes the store has seen."""
        return int(self.fact("generation") or 0)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Hold one unchanging view of the store for several reads."""
        with self._lock, sqlite_errors(self.path):
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[int]:
        """One durable transaction; yields the generation that it makes."""
        with self._lock, sqlite_errors(self.path):
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
        self._db.execute(SET, (name, value, fact_sum(name, value)))

    def set_fact(self, name: str, value: str) -> None:
        """Write a fact without a new generation: it describes the rows, it does not change them."""
        with self._lock, sqlite_errors(self.path):
            self._set(name, value)

    def set_facts(self, facts: Mapping[str, str], *, dropping: str) -> int:
        """Write facts that change answers, and drop those whose name begins with `dropping`, as one write.

        Returns the new generation: readers elsewhere see it, and take all of the facts or none.
        """
        with self._transaction() as generation:
            for name, value in facts.items():
                self._set(name, value)
            self._db.execute("DELETE FROM facts WHERE substr(name, 1, ?) = ?", (len(dropping), dropping))
        return generation

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy of the store while others read and write it."""
        with self._lock, sqlite_errors(path), contextlib.closing(sqlite3.connect(path)) as copy:
            self._db.backup(copy)
            copy.execute("PRAGMA journal_mode = WAL")


def fact_sum(name: str, value: object) -> int:
    """Return the CRC-32 of a fact."""
    return zlib.crc32(f"{name}\0{value}".encode("utf-8", "surrogatepass"))


def record_checksum(record: Sequence[Any]) -> int:
    """Return the CRC-32 of a row's number, id, label, path, uncertainty and metadata."""
    return zlib.crc32(repr(tuple(record)).encode("utf-8", "surrogatepass"))


def vector_checksum(row: int, mean: bytes, variance: bytes) -> int:
    """Return the CRC-32 of a row's number and vectors."""
    return zlib.crc32(variance, zlib.crc32(mean, row & 0xFFFFFFFF))


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
def sqlite_errors(path: Path) -> Iterator[None]:
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
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter: a text in SQLite's own message
        raise FormatError(
            f"{path} is damaged: {error}; put a snapshot in its place, or build the gallery again: "
            "vssl index EMBEDDINGS GALLERY"
        ) from error
