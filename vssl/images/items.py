"""What every source of images gives: items with ids and labels in a stable order, and the bytes of each."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import product
from pathlib import PurePath
from typing import Protocol, runtime_checkable

from vssl.errors import ImageError, InputError, shown
from vssl.files import is_leftover

MAX_TEXT = 1024  # characters of an id or a label; a longer text is a caption
MAX_RANGE = 100_000  # names that one spec may stand for
MAX_FILE_BYTES = 1024**3  # never read into memory, whatever the decoder's own limit is


def check_size(size: int) -> None:
    """Raise ImageError for a file that is too large to read into memory."""
    if size > MAX_FILE_BYTES:
        raise ImageError("too_many_bytes", f"found {size} bytes, expected at most {MAX_FILE_BYTES}")


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
    """Return the paths that a spec with ranges in braces names: `a-{08..10}.tar` gives three.

    Raises InputError for ranges that run backwards or name more than `MAX_RANGE` paths.
    """
    parts = re.split(r"\{(\d{1,18})\.\.(\d{1,18})\}", spec)  # text, first, last, text, first, ...
    bounds = list(zip(parts[1::3], parts[2::3], strict=True))
    ranges = [range(int(first), int(last) + 1) for first, last in bounds]
    if not 0 < math.prod(map(len, ranges)) <= MAX_RANGE:
        raise InputError(
            f"{shown(spec)} names no path, or too many; expected 1 to {MAX_RANGE}, such as {{000..012}}"
        )
    widths = [len(first) for first, _ in bounds]
    return [
        parts[0]
        + "".join(f"{n:0{w}d}{text}" for n, w, text in zip(numbers, widths, parts[3::3], strict=True))
        for numbers in product(*ranges)
    ]


def is_hidden(path: PurePath) -> bool:
    """Tell whether a path below a source is passed over: a hidden name in it, or what systems leave behind."""
    return any((part.startswith(".") and part != "..") or is_leftover(part) for part in path.parts)


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
