"""Encoded bytes -> an ImageError when decoding them would cost far more than they weigh.

A picture of a few kilobytes can claim thousands of scans, chunks or tiles, and a decoder believes it.
Everything here counts such claims from the file's structure, in time that grows with a bound of ours
and not with the claim, and before a pixel is decoded. Honest files stay far below every bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from vssl.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

MAX_SCANS = 100
"""Scans of a JPEG file. Encoders write 1 to 20; the format knows no bound."""

MAX_SCANNED_PIXELS = 2**31
"""Scans times pixels: 32 scans of 64 million pixels, about a second and a half of decoding."""

MAX_BLOCKS = 50_000
"""Segments, chunks or sub-blocks that Pillow reads one by one in Python, about 50 ms."""

CHUNK_BYTES = 12
"""The least that a PNG chunk takes: its length, type and checksum."""

MAX_EXIF_SEGMENTS = 64
"""EXIF segments of a JPEG file, 4 MB; Pillow joins them in quadratic time."""

MAX_RLE_PIXELS = 2**23
"""Pixels of a run-length coded BMP file, which Pillow decodes in Python: about half a second."""

_SCAN = b"\xff\xda"
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_BARE = frozenset([0x01, 0xD8, 0xD9, *range(0xD0, 0xD8)])  # markers without a length
_TILE_SIDES = (322, 323)  # TIFF tags TileWidth, TileLength
_BYTE_COUNTS = (279, 325)  # StripByteCounts, TileByteCounts
_COMPRESSION, _JPEG_IN_TIFF = 259, (6, 7)


def check_structure(data: bytes) -> None:
    """Count what is read one by one before the size is known; raises ImageError `undecodable` beyond a bound."""
    if data.startswith(b"\xff\xd8\xff"):
        exif = 0
        for count, (marker, start) in enumerate(_jpeg_segments(data)):
            exif += marker == 0xE1 and data.startswith(b"Exif\0\0", start)
            _bound(count, MAX_BLOCKS, "segments")
            _bound(exif, MAX_EXIF_SEGMENTS, "EXIF segments")
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        if len(data) > CHUNK_BYTES * MAX_BLOCKS:  # a smaller file has no room for so many
            _bound(_count(png_chunks(data)), MAX_BLOCKS, "chunks")
    elif data.startswith((b"GIF87a", b"GIF89a")):
        _bound(_count(_gif_blocks(data)), MAX_BLOCKS, "blocks before its picture")


def check_work(picture: Image.Image, data: bytes, max_pixels: int) -> None:
    """Compare what an opened picture would make its decoder do with what its size explains.

    Raises ImageError: `too_many_pixels` for scans, tiles or run-length coding beyond the bounds,
    `undecodable` for strips that overlap.
    """
    pixels = picture.width * picture.height
    if picture.format in ("JPEG", "MPO"):
        _check_scans(data, pixels)
    elif picture.format == "BMP":
        if picture.info.get("compression") in (1, 2) and pixels > MAX_RLE_PIXELS:
            raise ImageError(
                "too_many_pixels",
                f"found a run-length coded BMP of {pixels} pixels, expected at most {MAX_RLE_PIXELS}",
            )
    elif picture.format == "TIFF":
        _check_tiff(picture, data, pixels, max_pixels)


def png_chunks(data: bytes) -> Iterable[tuple[bytes, int, int]]:
    """Yield (type, start, end) of each chunk of a PNG file, with its length and checksum, up to what is cut."""
    place = 8
    while place + CHUNK_BYTES <= len(data):
        end = place + CHUNK_BYTES + int.from_bytes(data[place : place + 4], "big")
        if end > len(data):
            return
        kind = data[place + 4 : place + 8]
        yield kind, place, end
        if kind == b"IEND":
            return  # what follows is no part of the file
        place = end


def _check_scans(data: bytes, pixels: int) -> None:
    most = min(MAX_SCANS, max(1, MAX_SCANNED_PIXELS // max(1, pixels)))
    if data.count(_SCAN) <= most:  # an upper bound, found at once: thumbnails and trailers count too
        return
    scans = _count(_jpeg_scans(data), most)
    if scans > most:
        raise ImageError(
            "too_many_pixels",
            f"found over {most} scans of {pixels} pixels, expected at most {most}",
        )


def _check_tiff(picture: Image.Image, data: bytes, pixels: int, max_pixels: int) -> None:
    tags = getattr(picture, "tag_v2", {})
    width, length = (_number(tags.get(tag)) for tag in _TILE_SIDES)
    if width * length > max(max_pixels, 1 << 16):
        raise ImageError(
            "too_many_pixels",
            f"found tiles of {width} x {length} pixels, expected at most {max_pixels} pixels",
        )
    for tag in _BYTE_COUNTS:
        counts = tags.get(tag, ())
        total = sum(counts) if isinstance(counts, tuple) else 0
        if total > 2 * len(data):
            raise ImageError(
                "undecodable",
                f"damaged TIFF image: found strips of {total} bytes in a file of {len(data)} bytes",
            )
    if tags.get(_COMPRESSION) in _JPEG_IN_TIFF:
        tiles = sum(len(v) for tag in _BYTE_COUNTS if isinstance(v := tags.get(tag), tuple)) or 1
        scans, most = data.count(_SCAN), MAX_SCANS * tiles
        if scans > most or scans * (pixels // tiles) > MAX_SCANNED_PIXELS:
            raise ImageError(
                "too_many_pixels", f"found {scans} scans in {tiles} tiles of {pixels} pixels in all"
            )


def _jpeg_segments(data: bytes) -> Iterable[tuple[int, int]]:
    """Yield (marker, start of its content) as Pillow reads them: up to the first scan; 0 for a stray byte."""
    place = 2
    while place + 1 < len(data):
        if data[place] != 0xFF or data[place + 1] in (0, 0xFF):
            yield 0, place
            place += 1
            continue
        marker = data[place + 1]
        yield marker, place + 4
        if marker == 0xDA:
            return
        place += 2 if marker in _BARE else 2 + int.from_bytes(data[place + 2 : place + 4], "big")


def _jpeg_scans(data: bytes) -> Iterable[int]:
    """Yield where each scan of the first picture begins."""
    place = 2
    while found := _MARKER.search(data, place):
        place, marker = found.end(), data[found.end() - 1]
        if marker == 0xD9:
            return
        if marker == 0xDA:
            yield place
        if marker not in _BARE:
            place += int.from_bytes(data[place : place + 2], "big")


def _gif_blocks(data: bytes) -> Iterable[int]:
    """Yield the start of each sub-block that lies before the first picture of a GIF file."""
    if len(data) < 13:
        return
    place = 13 + (3 << (data[10] & 7) + 1 if data[10] & 128 else 0)
    while place + 1 < len(data) and data[place] != 0x2C:
        yield place
        if data[place] != 0x21:
            place += 1
            continue
        place += 2
        while place < len(data) and data[place]:
            yield place
            place += 1 + data[place]
        place += 1


def _count(items: Iterable[object], most: int = MAX_BLOCKS) -> int:
    """Count items, but no further than one beyond the bound."""
    return sum(1 for _ in islice(items, most + 1))


def _bound(found: int, most: int, what: str) -> None:
    if found > most:
        raise ImageError("undecodable", f"found over {most} {what}, expected at most {most}")


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
