"""What every source of images gives: items with ids and labels in a stable order, and the bytes of each."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that orders digit runs by value: img_2 before img_10."""
    parts = re.split(r"(\d+)", text)
    return tuple((0, int(p), p) if p.isdecimal() and p.isascii() else (1, 0, p) for p in parts if p)


def printable(name: str) -> str:
    r"""Return a name as valid text: file names may hold bytes that are no UTF-8, shown as \xNN."""
    if name.isascii():
        return name
    return os.fsencode(name).decode("utf-8", "backslashreplace")
