"""Write locks: one process through a lock file, and one thread while no search runs.

`WriterLock` is the operating system's advisory lock on a file that names its holder; the
system lets go when the process ends, however it ends. `ReadWriteLock` lets many searches run
together and gives a write the gallery alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from vssl.errors import VsslError
from vssl.files import take_lock


class LockedError(VsslError):
    """The gallery cannot be written to: another process does, another part of this one, or no process may."""

    code = "gallery_locked"
    status = 409


class WriterLock:
    """The right to write, held until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        """Take the lock or raise LockedError that names its holder: pid, host, since."""
        try:
            self._file = take_lock(path)
        except BlockingIOError:
            raise LockedError(
                f"{path.parent} is being written by {_describe(path.read_bytes())}; close it there, send it the "
                "change (a server takes PUT /gallery/ID), or open the gallery for reading"
            ) from None
        except OSError as error:
            raise LockedError(
                f"{path.parent} cannot be written to: {error.strerror}; give this user the right to, or open the "
                "gallery for reading"
            ) from None
        words = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(words).encode(), 0)

    def release(self) -> None:
        """Let go; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _describe(holder: bytes) -> str:
    try:
        words = json.loads(holder)
        own = (words["pid"], words["host"]) == (os.getpid(), socket.gethostname())
        return f"{'this ' * own}process {words['pid']} on {words['host']} since {words['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class ReadWriteLock:
    """Many readers or one writer, between threads; a waiting writer goes before new readers."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._readers = 0
        self._writing = False
        self._waiting = 0

    @property
    def waiting_writers(self) -> int:
        """How many threads wait to hold the lock alone."""
        return self._waiting

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock together with other readers."""
        with self._change:
            self._change.wait_for(lambda: not self._writing and not self._waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._change:
                self._readers -= 1
                self._change.notify_all()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._change:
            self._waiting += 1
            try:
                self._change.wait_for(lambda: not self._writing and not self._readers)
            finally:
                self._waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._change:
                self._writing = False
                self._change.notify_all()
