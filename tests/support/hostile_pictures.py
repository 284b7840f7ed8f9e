"""Small files whose decoding costs far more than they weigh, each built from its format's own description."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(png: bytes, extra: bytes) -> bytes:
    """Put chunks before the pixels of a PNG file."""
    place = png.index(b"IDAT") - 4
    return png[:place] + extra + png[place:]


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def scan_bomb(width: int, height: int, scans: int) -> bytes:
    """A progressive grey JPEG: one scan of averages, then scans that say "nothing" for runs of 32,767 blocks."""
    blocks = -(-width // 8) * -(-height // 8)
    runs, left = "", blocks
    while left > 0:
        run = max(1 << 14, min(left, (1 << 15) - 1))
        runs += "0" + format(run - (1 << 14), "014b")  # the one code of the table below, then 14 bits
        left -= run
    runs += "1" * (-len(runs) % 8)
    nothing = int(runs, 2).to_bytes(len(runs) // 8, "big").replace(b"\xff", b"\xff\0")
    table = bytes([1] + [0] * 15)
    head = (
        b"\xff\xd8"
        + jpeg_segment(0xDB, b"\0" + bytes([1] * 64))
        + jpeg_segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")
        + jpeg_segment(0xC4, b"\0" + table + b"\0")
        + jpeg_segment(0xC4, b"\x10" + table + b"\xe0")
    )
    averages = jpeg_segment(0xDA, b"\1\1\0\0\0\0") + bytes(-(-blocks // 8))
    first, refinement = (jpeg_segment(0xDA, b"\1\1\0\1\x3f" + bytes([bits])) + nothing for bits in (1, 0x10))
    return head + averages + first + refinement * (scans - 2) + b"\xff\xd9"


def rle_bmp(width: int, height: int) -> bytes:
    """An 8-bit run-length coded BMP: four bytes a row, whatever the width."""
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 256, 256) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(head)) + head + b"\1\7\0\0" * height


def bmp_with_empty_alpha(pixels: np.ndarray) -> bytes:
    """RGB pixels (H, W, 3) uint8 -> a 32-bit BMP with an alpha mask whose alpha bytes are all zero."""
    height, width, _ = pixels.shape
    body = np.dstack([pixels[::-1, :, ::-1], np.zeros((height, width), np.uint8)]).tobytes()
    head = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(body), 2835, 2835, 0, 0)
    head += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body


def gif_with_comment(blocks: int) -> bytes:
    """A GIF with a comment of so many one-byte blocks before its picture."""
    sink = io.BytesIO()
    Image.new("P", (8, 8)).save(sink, "GIF")
    data = sink.getvalue()
    place = data.index(b",", 13)
    return data[:place] + b"\x21\xfe" + b"\1a" * blocks + b"\0" + data[place:]
