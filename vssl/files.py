"""Bytes -> a file that is always whole on the disk: the old one or the new one; and a lock between processes."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write; what was written takes the place of `path` when the block ends well.

    The bytes lie in `.NAME.tmp` beside it until they are flushed to the disk. When the block raises,
    `path` stays as it was and the temporary file is removed.
    """
    partial = path.with_name(f".{path.name}.tmp")
    try:
        with partial.open("wb") as file:
            yield file
        put_in_place(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file, as `atomic_write` does."""
    with atomic_write(path) as file:
        file.write(data)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write an object as JSON with sorted keys, as `atomic_write` does."""
    write_bytes(path, (json.dumps(values, indent=2, sort_keys=True) + "\n").encode())


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `path`, where nothing is, when the block ends well.

    The files in it must be flushed by the block. When the block raises, the folder is removed.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        put_in_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def put_in_place(partial: Path, final: Path) -> None:
    """Flush a finished file or folder, then rename it to `final` so that a power cut keeps the new name.

    `final` may be a file or an empty folder. The files in a folder must be flushed before.
    """
    flush(partial)
    partial.replace(final)
    flush(final.parent)


def flush(path: Path) -> None:
    """Flush a file's bytes, or a folder's list of names, to the disk."""
    if sys.platform == "win32" and path.is_dir():
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def take_lock(path: Path, *, shared: bool = False, wait: bool = False) -> int:
    """Lock a folder, or a file that is made when it is not there; `os.close` what is returned to let go.

    The lock also ends with the process, however that ends. Windows has no such locks: nothing is
    held there.

    Args:
        path: what is locked.
        shared: hold it together with others that share it.
        wait: wait for the holder to let go.

    Raises:
        BlockingIOError: another holds the lock and `wait` is false.
    """
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o644)
    if sys.platform == "win32":
        return handle
    import fcntl

    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle
