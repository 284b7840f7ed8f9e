"""A small, plain PNG file -> its picture, by the shortest way through the same decoder.

For a thumbnail, Pillow spends more time on reading a PNG file's chunks than on its pixels. What is
plain (8-bit RGB, not interlaced, nothing in it that could turn, blend or animate the picture, every
checksum right) is handed to Pillow's own decoder at once, so its pixels are those of `Image.open`.
Whatever else there is, is left to `Image.open`.
"""

from __future__ import annotations

import struct
from zlib import crc32

from PIL import Image

MAX_PIXELS = 256 * 256
"""Above, the pixels take so long that the chunks no longer matter."""

_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_FORM = b"\x08\x02\0\0\0"  # 8 bits, RGB, deflate, the five filters, not interlaced
_HARMLESS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"sBIT": 3, b"bKGD": 6, b"tIME": 7}
"""Chunks that change no pixel as it is decoded here, and their lengths."""


def read_plain_png(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image | None:
    """Decode to mode RGB, or return None: for any other file, a damaged one or one of more pixels."""
    if data[:16] != _HEAD or data[24:29] != _FORM:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    if not 0 < width * height <= min(max_pixels, MAX_PIXELS):
        return None
    pixels: list[bytes] = []
    place = 8
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if data[end : end + 4] != crc32(data[place + 4 : end]).to_bytes(4, "big"):
            return None
        if kind == b"IDAT":
            pixels.append(data[place + 8 : end])
        elif kind == b"IEND":
            return _decoded((width, height), b"".join(pixels))
        elif place > 8 and (pixels or _HARMLESS.get(kind) != length):
            return None
        place = end + 4
    return None


def _decoded(size: tuple[int, int], packed: bytes) -> Image.Image | None:
    try:
        return Image.frombytes("RGB", size, packed, "zip", "RGB", False)
    except ValueError:  # damaged: `Image.open` says how
        return None
