"""What every source of images gives: items with ids and labels in a stable order, and the bytes of each."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from vssl.errors import shown

MAX_TEXT = 1024  # characters of an id or a label; a longer text is a caption
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


def expand(spec: str) -> list[str]:
    """Return the paths that a spec with ranges in braces names: `a-{08..10}.tar` gives three."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", spec)
    if not found:
        return [spec]
    first, last = found.groups()
    numbers = range(int(first), int(last) + 1)
    return [
        name
        for n in numbers
        for name in expand(f"{spec[: found.start()]}{n:0{len(first)}d}{spec[found.end() :]}")
    ]


def one_text(value: object, what: str) -> str | None:
    """Return a label or an id as the text that it is stored as: numbers become their digits, None stays none.

    Raises ValueError for what is no single value, no valid text, or longer than `MAX_TEXT` characters.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"the {what} {shown(value)} is neither a text nor a number")
    text = printable(str(value))
    if len(text) > MAX_TEXT:
        raise ValueError(f"the {what} {shown(text)} is longer than {MAX_TEXT} characters")
    return text


def printable(name: str) -> str:
    r"""Return a name as valid text: file names may hold bytes that are no UTF-8, shown as \xNN.

    Raises ValueError for half a surrogate pair, which no file name holds.
    """
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
