"""An opened TIFF file -> the page that is its picture, and what its numbers mean; or an ImageError.

TIFF is many formats in one. What Pillow opens but reads as another picture (found by comparing with other
readers) is refused here, with what to save instead: a refusal is seen, a wrong picture is not.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from vssl.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

SUBFILE_TYPE, BITS, COMPRESSION, PHOTOMETRIC = 254, 258, 259, 262  # TIFF tags, here and below
PLANES, SUB_IFDS, SAMPLE_FORMAT = 284, 330, 339

REDUCED_OR_MASK = 0b101
"""Bits of the subfile type: a smaller copy of another page, a transparency mask."""

SIGNED = 2
"""The sample format of signed integers."""

NATIVE = b"II" if sys.byteorder == "little" else b"MM"
"""How a TIFF file of this machine's byte order begins."""

MAX_PREVIEWS = 16
"""Pages before the picture; reading each costs time."""

SAVE_AS = "save it as PNG, or as TIFF of 8 bits"


def open_page(picture: Image.Image) -> None:
    """Turn to the first page that is a picture of its own: some programs put a preview before it.

    Raises ImageError `unsupported_type` for a file that holds nothing but previews in its pages, as raw photos do.
    """
    if not _tag(picture, SUBFILE_TYPE, 0) & REDUCED_OR_MASK:
        return
    if _tag(picture, SUB_IFDS, None) is not None:
        raise ImageError(
            "unsupported_type",
            "found a preview only: a raw photo of a camera; develop it and save it as JPEG",
        )
    for page in range(1, MAX_PREVIEWS):
        try:
            picture.seek(page)
        except EOFError:
            break
        if not _tag(picture, SUBFILE_TYPE, 0) & REDUCED_OR_MASK:
            return
    picture.seek(0)  # all pages are marked, so that the mark says nothing


def check_layout(picture: Image.Image) -> None:
    """Raise ImageError `undecodable` for layouts of numbers that Pillow does not read as they are meant."""
    bits, signed = _bits(picture), is_signed(picture)
    compressed = _tag(picture, COMPRESSION, 1) != 1
    found = None
    if _tag(picture, PLANES, 1) == 2 and (picture.mode == "LA" or (bits > 8 and not compressed)):
        found = f"{bits}-bit planes of mode {picture.mode}"
    elif compressed and _prefix(picture) != NATIVE and (bits > 16 or (bits == 16 and signed)):
        found = f"compressed {bits}-bit numbers in the other byte order"
    if found:
        raise ImageError("undecodable", f"found a TIFF image of {found}, which is not read; {SAVE_AS}")


def is_signed(picture: Image.Image) -> bool:
    """Tell whether the numbers of a TIFF image are signed integers."""
    return bool(_first(_tag(picture, SAMPLE_FORMAT, 1)) == SIGNED)


def number_bits(picture: Image.Image) -> int:
    """Return how many bits the largest number of a TIFF image of integers has: 12 of many cameras, 15 signed."""
    return _bits(picture) - is_signed(picture)


def whole_numbers(picture: Image.Image) -> np.ndarray:
    """Return the numbers (H, W) of greyscale; of TIFF images, Pillow has no mode for signed 8 or unsigned 32 bits."""
    values = np.asarray(picture)
    if values.dtype == np.uint8 and is_signed(picture):
        return values.view(np.int8)
    if values.dtype == np.int32 and _bits(picture) == 32 and not is_signed(picture):
        return values.view(np.uint32)
    return values


def zero_is_white(picture: Image.Image) -> bool:
    """Tell whether small numbers are light, as in scans of text; Pillow has turned images of 8 bits already."""
    return bool(_tag(picture, PHOTOMETRIC, 1) == 0)


def _bits(picture: Image.Image) -> int:
    return int(_first(_tag(picture, BITS, 1)))


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else value


def _prefix(picture: Image.Image) -> bytes:
    return bytes(_tags(picture).prefix)


def _tag(picture: Image.Image, tag: int, otherwise: Any) -> Any:
    return _tags(picture).get(tag, otherwise)


def _tags(picture: Image.Image) -> Any:
    return getattr(picture, "tag_v2", {})
