"""A source spec -> images with ids and labels, in a stable order.

Specs: a folder, one image file, `list:FILE` (one path a line; a file that ends in .jsonl has one
object `{"path", "id", "label"}` a line), `parquet:FILE` (image bytes in a column),
`cifar10:DIR[:train|:test]`, `cifar100:DIR[...]`, `stl10:DIR[...]`, tar shards (`vssl.images.archives`:
`photos.tar`, `shard-{000..012}.tar`) and URLs (`vssl.images.remote`: `s3://bucket/photos`).

The id of a file is its path below the folder, with `/`; its label is the name of the folder
that holds it, and none at the top. Folders are walked in numeric-aware order (`img_2` before
`img_10`). Hidden files and folders are passed over; links to files are followed, links to
folders are not. Every other file is an item: what is no image is reported when it is read.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from vssl.errors import ImageError, InputError

MAX_FILE_BYTES = 1024**3  # never read into memory, whatever the decoder's own limit is


@dataclass(frozen=True)
class ImageItem:
    """One image: id (stable, unique in its source), label (or None), path to show a person."""

    id: str
    label: str | None
    path: str


class ImageSource(Protocol):
    """Images in a fixed order; `read` gives the encoded bytes of one."""

    items: list[ImageItem]

    def read(self, row: int) -> bytes:
        """Return the encoded bytes; raises ImageError when the file cannot be read."""
        ...


@runtime_checkable
class StampedSource(Protocol):
    """A source that can tell, without reading, whether an image changed."""

    def stamp(self, row: int) -> str:
        """Return a text that differs when the image's bytes do (size and time, or a tag)."""
        ...


class FileSource:
    """Image files on disk."""

    def __init__(self, items: list[ImageItem], files: Sequence[Path | str]) -> None:
        self.items = items
        self._files = files

    def read(self, row: int) -> bytes:
        """Return the file's bytes; a pipe or a device is refused, and so is a file beyond `MAX_FILE_BYTES`."""
        try:
            # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
            handle = os.open(self._files[row], os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(handle, "rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise ImageError("unreadable", "not a regular file")
                if found.st_size > MAX_FILE_BYTES:
                    raise ImageError(
                        "too_many_bytes", f"found {found.st_size} bytes, expected at most {MAX_FILE_BYTES}"
                    )
                return file.read()
        except OSError as error:
            raise ImageError("unreadable", f"cannot be read: {error.strerror or error}") from error

    def stamp(self, row: int) -> str:
        """Return the file's size and time of change, empty when it is not there."""
        try:
            found = os.stat(self._files[row])  # noqa: PTH116
        except OSError:
            return ""
        return f"{found.st_size}:{found.st_mtime_ns}"


def open_source(spec: str | Path) -> ImageSource:
    """Open a source by its spec (module docstring). Raises InputError when there is nothing there."""
    text = str(spec)
    kind, _, rest = text.partition(":")
    if kind in ("cifar10", "cifar100", "stl10", "parquet") and rest:
        from vssl.images import datasets

        return datasets.open_dataset(kind, rest)
    if kind == "list" and rest:
        return _file_list(Path(rest))
    if "://" in text:
        from vssl.images import remote

        return remote.open_remote(text)
    from vssl.images import archives

    path = Path(text).expanduser()
    if not path.is_dir() and archives.is_tar(text):
        return archives.open_shards(archives.local_shards(text))
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return FileSource([ImageItem(printable(path.name), None, printable(str(path)))], [path])
    raise InputError(
        f"no images at {text!r}: found no such file or folder; expected an image folder, an image file, "
        "list:FILE, parquet:FILE, cifar10:DIR, cifar100:DIR, stl10:DIR, tar shards or a URL"
    )


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that orders digit runs by value: img_2 before img_10."""
    parts = re.split(r"(\d+)", text)
    return tuple((0, int(p), p) if p.isdecimal() and p.isascii() else (1, 0, p) for p in parts if p)


def _folder(root: Path) -> FileSource:
    # Plain strings: a million Path objects would take seconds and most of a gigabyte.
    base = os.path.join(root, "")  # noqa: PTH118
    files = list(_walk(base))
    if not files:
        raise InputError(
            f"no images in {str(root)!r}: the folder holds no files; expected a folder of images"
        )
    items = []
    for file in files:
        relative = file[len(base) :].replace(os.sep, "/")
        label = relative.rpartition("/")[0].rpartition("/")[2] or None
        items.append(ImageItem(printable(relative), label and printable(label), printable(file)))
    return FileSource(items, files)


def _walk(folder: str) -> Iterator[str]:
    """Files first, then folders, each in natural order."""
    try:
        with os.scandir(folder) as scanned:
            entries = [e for e in scanned if not e.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot list {folder!r}: {error.strerror}") from error
    entries.sort(key=lambda e: (natural_key(e.name), e.name))
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False) and not (entry.is_symlink() and entry.is_dir()):
            yield entry.path
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)


def _file_list(file: Path) -> FileSource:
    """Paths relative to the list's folder; in a plain list ids are the lines, labels their folders."""
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError as error:
        raise InputError(f"cannot read the list {str(file)!r}: {error.strerror}") from error
    entries = [_entry(line, file) for line in lines if line.strip()]
    if not entries:
        raise InputError(f"the list {str(file)!r} is empty; expected one image path a line")
    if len({id_ for _, id_, _ in entries}) != len(entries):
        raise InputError(f"the list {str(file)!r} names an id twice; expected each once")
    files = [file.parent / path for path, _, _ in entries]
    items = [
        ImageItem(id_, label, printable(str(path)))
        for (_, id_, label), path in zip(entries, files, strict=True)
    ]
    return FileSource(items, files)


def _entry(line: str, file: Path) -> tuple[str, str, str | None]:
    """One line -> (path, id, label)."""
    if file.suffix != ".jsonl":
        line = line.rstrip("\r")
        return line, printable(line), printable(Path(line).parent.name) or None
    try:
        entry = json.loads(line)
        return str(entry["path"]), printable(str(entry["id"])), entry.get("label")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{str(file)!r}: found the line {line[:80]!r}, expected {{"path": ..., "id": ..., "label": ...}} ({error})'
        ) from None


def printable(name: str) -> str:
    r"""Return a name as valid text: file names may hold bytes that are no UTF-8, shown as \xNN."""
    if name.isascii():
        return name
    return os.fsencode(name).decode("utf-8", "backslashreplace")
