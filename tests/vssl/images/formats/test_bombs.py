"""What a picture costs to decode is bounded by what was sent, not by what it claims."""

from __future__ import annotations

import io
import struct
import time

import numpy as np
import pytest
from PIL import Image

from tests.support.hostile_pictures import (
    gif_with_comment,
    jpeg_segment,
    png_chunk,
    rle_bmp,
    scan_bomb,
    with_chunks,
)
from tests.support.tiny_model import picture
from vssl.errors import ImageError
from vssl.images.decode import decode
from vssl.images.formats.bombs import MAX_SCANS


def encoded(kind: str, size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(picture(0, size)).save(sink, kind, **options)
    return sink.getvalue()


def refusal(data: bytes) -> ImageError:
    """Return the error, which must come in less than the CPU time of an ordinary large picture."""
    began = time.process_time()
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert time.process_time() - began < 0.5
    return caught.value


def tiff(tags: list[tuple[int, int, int, int]], body: bytes) -> bytes:
    """A little-endian TIFF of one folder of (tag, type, count, value) entries, the body after it."""
    folder = b"".join(struct.pack("<HHII", *entry) for entry in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + folder + bytes(4) + body


class TestScans:
    @pytest.mark.parametrize("size", [(8000, 7992), (128, 120)])
    def test_thousands_of_scans_are_refused_before_decoding(self, size: tuple[int, int]) -> None:
        error = refusal(scan_bomb(*size, 8000))
        assert (error.code, error.status) == ("too_many_pixels", 422)
        assert "scans" in str(error)

    def test_as_many_as_the_bound_are_read(self) -> None:
        assert decode(scan_bomb(128, 120, MAX_SCANS)).size == (128, 120)
        assert refusal(scan_bomb(128, 120, MAX_SCANS + 1)).code == "too_many_pixels"

    def test_a_progressive_photo_is_read(self) -> None:
        data = encoded("JPEG", (640, 480), progressive=True, quality=95)
        assert decode(data).size == (640, 480)

    def test_scans_of_a_trailer_do_not_count(self) -> None:
        """Phones append films to their photos; chance puts many scan markers into them."""
        assert decode(encoded("JPEG") + b"\xff\xda" * 10_000).size == (64, 48)

    def test_scans_of_a_thumbnail_do_not_count(self) -> None:
        data = encoded("JPEG")
        hidden = jpeg_segment(0xE9, b"\xff\xda" * 10_000)
        assert decode(data[:2] + hidden + data[2:]).size == (64, 48)

    def test_scans_within_a_tiff_count_too(self) -> None:
        bomb = scan_bomb(128, 120, 3000)
        fields = {256: 128, 257: 120, 258: 8, 259: 7, 262: 1, 277: 1, 278: 120, 279: len(bomb)}
        tags = [(tag, 4, 1, value) for tag, value in fields.items()]
        place = 8 + 2 + 12 * (len(tags) + 1) + 4
        assert refusal(tiff([*tags, (273, 4, 1, place)], bomb)).code == "too_many_pixels"


class TestClaimedParts:
    @pytest.mark.parametrize(
        "extra",
        [b"\xff" * 1_000_000, b"\xff\xe5\0\2" * 300_000, b"\xff\xe5\0\2" + bytes(1_000_000)],
        ids=["fill bytes", "empty segments", "stray bytes"],
    )
    def test_segments_of_a_jpeg_are_bounded(self, extra: bytes) -> None:
        data = encoded("JPEG")
        assert refusal(data[:2] + extra + data[2:]).code == "undecodable"

    def test_exif_segments_are_bounded(self) -> None:
        data, exif = encoded("JPEG"), jpeg_segment(0xE1, b"Exif\0\0" + bytes(8))
        assert decode(data[:2] + exif * 3 + data[2:]).size == (64, 48)
        assert "EXIF" in str(refusal(data[:2] + exif * 5000 + data[2:]))

    def test_a_large_profile_in_many_segments_is_read(self) -> None:
        data = encoded("JPEG", icc_profile=bytes(3_000_000))
        assert decode(data).size == (64, 48)

    def test_chunks_of_a_png_are_bounded(self) -> None:
        assert refusal(with_chunks(encoded("PNG"), png_chunk(b"abCd", b"") * 100_000)).code == "undecodable"

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
    def test_what_follows_a_picture_does_not_count(self, kind: str) -> None:
        for trailer in (bytes(1_000_000), b"\xff\xda" * 100_000, b"\xff" * 1_000_000):
            assert decode(encoded(kind) + trailer).size == (64, 48)

    def test_blocks_of_a_gif_are_bounded(self) -> None:
        assert decode(gif_with_comment(20_000)).size == (8, 8)
        assert refusal(gif_with_comment(1_000_000)).code == "undecodable"

    def test_run_length_coded_pixels_are_bounded(self) -> None:
        assert decode(rle_bmp(300, 200)).size == (300, 200)
        assert refusal(rle_bmp(8000, 8000)).code == "too_many_pixels"

    def test_tiles_larger_than_any_picture_are_refused(self) -> None:
        fields = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: 32768, 323: 32768, 324: 8, 325: 8}
        error = refusal(tiff([(tag, 4, 1, value) for tag, value in fields.items()], bytes(64)))
        assert (error.code, "tiles" in str(error)) == ("too_many_pixels", True)

    def test_strips_that_lie_over_each_other_are_refused(self) -> None:
        """Sixty-four strips of the same bytes: each would be decoded again."""
        strips, body = 64, np.arange(2000, dtype=np.uint8).tobytes()
        fields = {256: 100, 257: 64 * 20, 258: 8, 259: 1, 262: 1, 277: 1, 278: 20}
        first = 8 + 2 + 12 * (len(fields) + 2) + 4
        tags = [(tag, 4, 1, value) for tag, value in fields.items()]
        tags += [(273, 4, strips, first + 2000), (279, 4, strips, first + 2000 + 4 * strips)]
        tables = struct.pack(f"<{strips}I", *[first] * strips) + struct.pack(f"<{strips}I", *[2000] * strips)
        error = refusal(tiff(tags, body + tables))
        assert (error.code, "strips" in str(error)) == ("undecodable", True)
