"""Bytes -> a file that is always whole on the disk: the old one or the new one; and a lock between processes.

A path or a text file of a person -> what they meant: see `user_path`, `read_text`, `own_names`.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from vssl.errors import InputError, shown, shown_path

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16 does, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""The byte order marks that editors write at the beginning of a text file, and what they say."""

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|milvus:")  # as `Path` writes a URL, with one slash

LEFTOVERS = frozenset([
    "lost+found", "Thumbs.db", "ehthumbs.db", "desktop.ini", "Desktop.ini", "$RECYCLE.BIN",
    "System Volume Information", "__MACOSX", "Icon\r", ".DS_Store", ".localized", ".Spotlight-V100", ".Trashes",
    ".fseventsd", ".TemporaryItems", ".directory", "@eaDir", "#recycle", ".snapshot", ".zfs",
])  # fmt: skip
"""Names that file systems and file managers put into folders."""


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write; what was written takes the place of `path` when the block ends well.

    The bytes lie in `.NAME.tmp` next to it until they are flushed to the disk. When the block raises,
    `path` stays as it was and the temporary file is removed.
    """
    partial = path.with_name(f".{path.name}.tmp")
    try:
        with partial.open("wb") as file:
            yield file
        put_in_place(partial, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names no file
        raise
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
    """Give an empty folder to fill; it becomes `path`, which `is_free`, when the block ends well.

    The files in it must be flushed by the block. When the block raises, the folder is removed. One that a
    killed process left beside `path` is removed by the next: every folder is locked while it is filled.
    """
    require_local(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    lock = _locked_folder(partial)
    if lock is None:  # nothing told whether an earlier process of this number left it
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    try:
        yield partial
        put_in_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _locked_folder(path: Path) -> int | None:
    """Make a folder and lock it; None where folders cannot be locked, as on Windows and some network disks."""
    while True:
        path.mkdir(exist_ok=True)
        if sys.platform == "win32":
            return None
        try:
            lock = take_lock(path, wait=True, create=False)
        except FileNotFoundError:
            continue  # another took it for abandoned before it was locked
        except OSError:
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        os.close(lock)


def _remove_abandoned(path: Path) -> None:
    """Remove the folders beside `path` that were to become it, and that no process holds a lock of any more."""
    if sys.platform == "win32":
        return
    name = re.compile(rf"\.{re.escape(path.name)}\.\d+\.tmp")
    for folder in [entry for entry in path.parent.iterdir() if name.fullmatch(entry.name)]:
        with suppress(OSError):  # it is locked, or gone, or cannot be locked
            lock = take_lock(folder, create=False)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def put_in_place(partial: Path, final: Path) -> None:
    """Flush a finished file or folder, then rename it to `final` so that a power cut keeps the new name.

    `final` may be a file, or a folder that `is_free`: one that cannot be replaced, because it is a mount point
    or holds a system's leftovers, is filled instead. The files in a folder must be flushed before.
    """
    flush(partial)
    try:
        partial.replace(final)
    except OSError:
        if not (partial.is_dir() and final.is_dir() and is_free(final)):
            raise
        for name in own_names(partial):
            shutil.move(partial / name, final / name)
        partial.rmdir()
        flush(final)
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


def take_lock(path: Path, *, shared: bool = False, wait: bool = False, create: bool = True) -> int:
    """Lock a folder or a file; `os.close` what is returned to let go.

    The lock also ends with the process, however that ends. Windows has no such locks: nothing is
    held there.

    Args:
        path: what is locked.
        shared: hold it together with others that share it.
        wait: wait for the holder to let go.
        create: make a file where there is nothing.

    Raises:
        BlockingIOError: another holds the lock and `wait` is false.
        FileNotFoundError: there is nothing and `create` is false.
    """
    made = create and not path.is_dir()
    handle = os.open(path, os.O_RDWR | os.O_CREAT if made else os.O_RDONLY, 0o644)
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


def user_path(given: str | Path) -> Path:
    """Return a path as a person wrote it, `~` in its place.

    Raises InputError for what can be no path here: no such user's home, too long a name, a link to itself,
    a folder that may not be entered. Whether there is anything at the path is not asked.
    """
    try:
        path = Path(given).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except RuntimeError:
        raise InputError(f"{shown(str(given))}: this machine knows no home folder of that user") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(str(given))}: {getattr(error, 'strerror', None) or error}") from None
    return path


def require_local(path: Path) -> None:
    """Raise InputError for an output that is a URL or in Milvus, which would be a folder `s3:` here."""
    if ADDRESS.match(str(path)):
        raise InputError(
            f"{shown_path(path)}: found an address, expected a place on a disk of this machine; write there, then copy "
            "it (a gallery with: vssl gallery move FOLDER milvus:URI#NAME)"
        )


def read_text(path: Path, what: str, *, errors: str = "strict") -> str:
    r"""Return a text file as any editor saved it: UTF-8 or UTF-16, with a byte order mark or without.

    what: the file's name in messages; errors: of decoding UTF-8, as for `bytes.decode`. Line ends become
    `\n`. Raises InputError when the file cannot be read or is in another encoding.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {what} {shown(str(path))}: {reason}") from error
    try:
        text = decoded_text(data, errors)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{what} {shown(str(path))}: line {line} is no UTF-8 text; save the file as UTF-8"
        ) from error
    if "\0" in text:
        raise InputError(f"{what} {shown(str(path))} holds zero bytes and is no text; save the file as UTF-8")
    return text.replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")


def decoded_text(data: bytes, errors: str = "strict") -> str:
    """Decode a text as any editor saved it, by its byte order mark; UTF-8 without one, with `errors` passed on."""
    mark, encoding = next(((m, e) for m, e in MARKS if data.startswith(m)), (b"", "utf-8"))
    return data[len(mark) :].decode(encoding, errors if encoding == "utf-8" else "strict")


def parse_json(text: str) -> Any:
    """Return the value of a person's JSON; raises ValueError with what is wrong, also for a key that is given twice."""
    return json.loads(text, object_pairs_hook=_each_once)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)} is given twice")
    return values


def own_names(folder: Path) -> list[str]:
    """Return the names in a folder, sorted, without what systems leave there (`LEFTOVERS`)."""
    return sorted(name for name in os.listdir(folder) if not is_leftover(name))  # noqa: PTH208


def is_free(path: Path) -> bool:
    """Tell whether an output may be written here: nothing is there, or a folder that holds nothing of anyone's."""
    return not os.path.lexists(path) or (path.is_dir() and not own_names(path))


def is_leftover(name: str) -> bool:
    """Tell whether a system put a file or folder of this name there, and no person or program."""
    return name in LEFTOVERS or name.startswith(("._", ".nfs", ".Trash-"))
