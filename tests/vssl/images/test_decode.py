"""Decoding: every claimed format upright and RGB; everything else an ImageError, nothing a crash."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.hostile_pictures import bmp_with_empty_alpha, png_chunk, with_chunks
from tests.support.tiny_model import picture
from vssl.errors import ImageError
from vssl.images.decode import DecodeLimits, decode, formats
from vssl.images.formats import CLAIMED_FORMATS


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def code_of(data: bytes, limits: DecodeLimits | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, limits or DecodeLimits())
    return caught.value.code


@pytest.mark.parametrize("kind", CLAIMED_FORMATS)
def test_every_claimed_format_decodes_here(kind: str) -> None:
    assert kind in formats()
    image = Image.fromarray(picture(0)).resize((160, 120), Image.Resampling.BICUBIC)
    found = decode(encoded(image, kind))
    assert (found.mode, found.size) == ("RGB", image.size)
    difference = np.abs(np.asarray(found, float) - np.asarray(image, float)).mean()
    assert difference < {"PNG": 1e-9, "BMP": 1e-9, "TIFF": 1e-9, "GIF": 12}.get(kind, 6)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_pictures_are_turned_upright_once(kind: str, orientation: int) -> None:
    upright = Image.fromarray(np.kron(picture(3, (8, 6)), np.ones((8, 8, 1), np.uint8)))
    turned = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    turned |= {2: Image.Transpose.FLIP_LEFT_RIGHT, 4: Image.Transpose.FLIP_TOP_BOTTOM}
    turned |= {5: Image.Transpose.TRANSPOSE, 7: Image.Transpose.TRANSVERSE}
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = (
        {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    )
    data = encoded(upright.transpose(turned[orientation]), kind, exif=exif, **options)
    found = decode(data)
    assert found.size == upright.size
    tolerance = 2 if kind == "JPEG" else 0
    assert np.abs(np.asarray(found, int) - np.asarray(upright, int)).max() <= tolerance


class TestColour:
    def test_transparency_lies_over_the_background(self) -> None:
        image = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
        image.putpixel((1, 1), (0, 0, 255, 255))
        image.putpixel((2, 2), (0, 0, 0, 128))
        found = np.asarray(decode(encoded(image, "PNG"), background=(255, 255, 255)))
        assert found[0, 0].tolist() == [255, 255, 255]
        assert found[1, 1].tolist() == [0, 0, 255]
        assert found[2, 2].tolist() == [127, 127, 127]
        assert np.asarray(decode(encoded(image, "PNG"), background=(1, 2, 3)))[0, 0].tolist() == [1, 2, 3]

    def test_a_large_picture_is_laid_over_the_background_as_a_small_one(self) -> None:
        random = np.random.default_rng(0)
        pixels = random.integers(0, 256, (2600, 1700, 4), np.uint8)
        found = np.asarray(decode(encoded(Image.fromarray(pixels), "PNG", compress_level=0)), int)
        alpha = pixels[..., 3:] / 255
        expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1

    def test_a_transparent_palette_colour_is_background_too(self) -> None:
        image = Image.new("P", (2, 1))
        image.putpalette([10, 20, 30, 40, 50, 60])
        image.putpixel((1, 0), 1)
        found = np.asarray(decode(encoded(image, "PNG", transparency=1)))
        assert found.tolist() == [[[10, 20, 30], [255, 255, 255]]]

    def test_sixteen_bit_grey_keeps_its_high_byte(self) -> None:
        values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
        found = np.asarray(decode(encoded(Image.fromarray(values), "PNG")))[0, :, 0]
        assert found.tolist() == [0, 0, 1, 128, 255]

    @pytest.mark.parametrize(("scale", "expected"), [(1.0, [0, 128, 255]), (255.0, [0, 128, 255])])
    def test_float_grey_is_read_as_0_to_1_or_0_to_255(self, scale: float, expected: list[int]) -> None:
        values = np.array([[0, 0.5, 1]], np.float32) * scale
        found = np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))[0, :, 0]
        assert found.tolist() == expected

    @pytest.mark.parametrize(
        "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "F"]
    )
    def test_every_mode_becomes_rgb(self, mode: str) -> None:
        grey = Image.new("RGB", (6, 5), (128, 128, 128))
        image = Image.fromarray(np.full((5, 6), 0.5, np.float32)) if mode == "F" else None
        image = Image.fromarray(np.full((5, 6), 0x8080, np.uint16)) if mode == "I;16" else image
        image = (
            Image.merge("LAB", [Image.new("L", (6, 5), v) for v in (137, 128, 128)])
            if mode == "LAB"
            else image
        )
        found = np.asarray(decode(encoded(image or grey.convert(mode), "TIFF")), int)
        assert found.shape == (5, 6, 3)
        if mode not in ("1", "P"):  # dithered, and of the nearest web colours
            assert np.abs(found - 128).max() <= 3


class TestAsOtherSoftwareShowsIt:
    def test_a_bmp_whose_alpha_was_never_filled_in_is_opaque(self) -> None:
        pixels = picture(3, (96, 72))
        assert np.array_equal(np.asarray(decode(bmp_with_empty_alpha(pixels))), pixels)

    def test_a_bmp_with_some_alpha_lies_over_the_background(self) -> None:
        data = bytearray(bmp_with_empty_alpha(np.zeros((2, 2, 3), np.uint8)))
        data[-1] = 255  # the last pixel of the top row
        assert np.asarray(decode(bytes(data)))[..., 0].tolist() == [[255, 0], [255, 255]]

    @pytest.mark.parametrize(
        "extra",
        [
            png_chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b'{"node":1}' * 300_000)),
            png_chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(3_000_000))),
            png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(3_000_000))),
            png_chunk(b"pHYs", b"\0"),
            png_chunk(b"acTL", b"\0\0"),
            b"\0\0\0\1tEXtaXXXX",
        ],
        ids=["text", "text in Unicode", "profile", "short entry", "short animation", "wrong checksum"],
    )
    @pytest.mark.parametrize("after", [False, True], ids=["before the pixels", "after them"])
    def test_what_a_png_carries_beside_its_pixels_costs_it_nothing(self, extra: bytes, after: bool) -> None:
        pixels = picture(5, (64, 48))
        data = encoded(Image.fromarray(pixels), "PNG")
        data = data[:-12] + extra + data[-12:] if after else with_chunks(data, extra)
        assert np.array_equal(np.asarray(decode(data)), pixels)

    def test_such_a_png_is_turned_and_blended_all_the_same(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        image = Image.fromarray(np.dstack([picture(1, (8, 6)), np.full((6, 8), 128, np.uint8)]))
        data = encoded(image, "PNG", exif=exif)
        heavy = with_chunks(data, png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000))))
        assert decode(data).size == (6, 8)
        assert np.array_equal(np.asarray(decode(heavy)), np.asarray(decode(data)))

    def test_a_transparent_sixteen_bit_grey_is_background(self) -> None:
        data = encoded(Image.fromarray(np.array([[0, 300, 65535]], np.uint16)), "PNG", transparency=300)
        assert np.asarray(decode(data, background=(9, 9, 9)))[0, :, 0].tolist() == [0, 9, 255]

    def test_a_transparent_sixteen_bit_colour_is_background(self) -> None:
        head = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
        row = b"\0" + struct.pack(">6H", 65535, 0, 0, 0, 65535, 0)
        chunks = [(b"IHDR", head), (b"tRNS", struct.pack(">3H", 65535, 0, 0)), (b"IDAT", zlib.compress(row))]
        data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*c) for c in chunks) + png_chunk(b"IEND", b"")
        assert np.asarray(decode(data)).tolist() == [[[255, 255, 255], [0, 255, 0]]]

    def test_sixteen_bits_where_zero_is_white_are_no_negative(self) -> None:
        grey = Image.fromarray(np.array([[0, 32768, 65535]], np.uint16))
        found = np.asarray(decode(encoded(grey, "TIFF", tiffinfo={262: 0})))
        assert found[0, :, 0].tolist() == [255, 127, 0]


class TestReducedJpeg:
    @pytest.mark.parametrize(
        ("min_side", "height"), [(0, 400), (400, 400), (101, 200), (100, 100), (50, 50), (1, 50)]
    )
    def test_the_shorter_side_stays_at_least_min_side(self, min_side: int, height: int) -> None:
        data = encoded(Image.fromarray(picture(1, (800, 400))), "JPEG")
        assert decode(data, min_side=min_side).size == (2 * height, height)

    def test_it_shows_the_same_picture(self) -> None:
        smooth = Image.fromarray(picture(5, (20, 15))).resize((640, 480), Image.Resampling.BICUBIC)
        data = encoded(smooth, "JPEG", quality=95)
        full, reduced = decode(data), decode(data, min_side=120)
        assert reduced.size == (160, 120)
        difference = np.abs(
            np.asarray(full.resize((160, 120), Image.Resampling.BOX), int) - np.asarray(reduced, int)
        )
        assert difference.mean() < 2

    def test_other_formats_decode_whole(self) -> None:
        assert decode(encoded(Image.new("RGB", (64, 64)), "PNG"), min_side=8).size == (64, 64)


class TestLimits:
    def test_pixels_are_counted_from_the_header(self) -> None:
        header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
        assert code_of(header + chunk(b"IDAT", zlib.compress(b"\0"))) == "too_many_pixels"

    def test_exactly_as_many_as_allowed(self) -> None:
        data = encoded(Image.new("RGB", (10, 10)), "PNG")
        assert decode(data, DecodeLimits(max_pixels=100)).size == (10, 10)
        assert code_of(data, DecodeLimits(max_pixels=99)) == "too_many_pixels"

    def test_bytes_come_first(self) -> None:
        assert code_of(b"x" * 100, DecodeLimits(max_bytes=99)) == "too_many_bytes"
        assert code_of(b"", DecodeLimits()) == "empty"

    @pytest.mark.parametrize("limits", [{"max_pixels": 0}, {"max_pixels": 10**9}, {"max_bytes": 0}])
    def test_limits_that_mean_nothing_are_refused(self, limits: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="expected"):
            DecodeLimits(**limits)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_png_files_orientation_may_stand_behind_its_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(picture(2, (9, 7))), "PNG")
    end = data.index(b"IEND") - 4
    assert decode(data[:end] + chunk(b"eXIf", exif.tobytes()[6:]) + data[end:]).size == (7, 9)


@pytest.mark.parametrize(
    "data", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF\4\0\0\0WEBP"]
)
def test_the_mere_beginning_of_a_claimed_type_is_damaged_not_unsupported(data: bytes) -> None:
    assert code_of(data + b"\0") == "undecodable"


@pytest.mark.parametrize("data", [b"hello", b"<svg/>", b"%PDF-1.4", b"\0" * 64, b"P6 1 1 255 abc"])
def test_what_is_no_claimed_type_says_which_are(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"supported types are JPEG, PNG, WEBP") as caught:
        decode(data)
    assert (caught.value.code, caught.value.status) == ("unsupported_type", 415)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_damaged_bytes_give_a_picture_or_an_image_error(kind: str, data: st.DataObject) -> None:
    whole = bytearray(encoded(Image.fromarray(picture(2)), kind))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(whole)))
    try:
        found = decode(bytes(whole[:end])).mode
    except ImageError as error:
        found = error.code
    assert found in ("RGB", *ImageError.STATUS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "AVIF", "HEIF"])
def test_half_a_picture_is_none(kind: str) -> None:
    data = encoded(Image.fromarray(picture(2, (200, 160))), kind)
    assert code_of(data[: len(data) // 2]) == "undecodable"
