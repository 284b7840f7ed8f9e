"""The short way to a plain PNG's pixels: those of Image.open, or none at all."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from vssl.errors import ImageError
from vssl.images.decode import DecodeLimits, decode
from vssl.images.plain_png import read_plain_png
from vssl.images.preprocess import Preprocess, load_image


def picture(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([x * 7 + y, x + y * 5, x * y], -1) % 200 + random.integers(0, 40, (height, width, 3))
    return Image.fromarray(waves.astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG", **options)
    return sink.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def beside(data: bytes, extra: bytes, before: bytes = b"IDAT") -> bytes:
    """Put a chunk before the first one of a kind."""
    at = data.index(before) - 4
    return data[:at] + extra + data[at:]


def opened(data: bytes) -> np.ndarray | None:
    """Decode by Image.open alone: what every other reader sees."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except Exception:
        return None


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(0, 99),
    st.integers(0, 9),
    st.booleans(),
)
def test_its_pixels_are_those_of_image_open(
    width: int, height: int, seed: int, level: int, optimize: bool
) -> None:
    data = encoded(picture(width, height, seed), compress_level=level, optimize=optimize)
    found = read_plain_png(data)
    assert found is not None
    np.testing.assert_array_equal(np.asarray(found), np.asarray(picture(width, height, seed)))
    np.testing.assert_array_equal(np.asarray(found), opened(data))


def test_pixels_in_several_chunks_and_harmless_ones_before_them() -> None:
    width = 40
    data = encoded(picture(width, 30))
    start = data.index(b"IDAT") - 4
    packed = data[start + 8 : data.index(b"IEND") - 8]
    parts = b"".join(chunk(b"IDAT", packed[n : n + 100]) for n in range(0, len(packed), 100))
    harmless = chunk(b"gAMA", bytes(4)) + chunk(b"pHYs", bytes(9)) + chunk(b"sRGB", b"\0")
    split = data[:start] + harmless + parts + chunk(b"IEND", b"") + b"what follows the end is not read"
    found = read_plain_png(split)
    assert found is not None
    np.testing.assert_array_equal(np.asarray(found), np.asarray(picture(width, 30)))


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "1", "I;16"])
def test_other_modes_go_the_long_way(mode: str) -> None:
    image = picture(9, 7).convert("L").convert("I;16") if mode == "I;16" else picture(9, 7, mode=mode)
    assert read_plain_png(encoded(image)) is None


def test_what_could_turn_blend_or_animate_it_goes_the_long_way() -> None:
    image = picture(9, 7)
    exif = Image.Exif()
    exif[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n 8\n")
    frames = encoded(image, save_all=True, append_images=[picture(9, 7, 1)])
    for data in (
        encoded(image, exif=exif),
        encoded(image, pnginfo=text),
        encoded(image, transparency=(1, 2, 3)),
        encoded(image, icc_profile=b"profile"),
        beside(encoded(image), chunk(b"eXIf", bytes(exif.tobytes())), b"IEND"),
        beside(encoded(image), chunk(b"gAMA", b"\0")),
        frames,
    ):
        assert read_plain_png(data) is None
    turned = decode(beside(encoded(image), chunk(b"eXIf", exif.tobytes()[6:]), b"IEND"))
    assert turned.size == (7, 9)


def test_a_chunk_among_the_pixels_goes_the_long_way() -> None:
    data = encoded(picture(40, 30), compress_level=0)
    start = data.index(b"IDAT") - 4
    packed = data[start + 8 : data.index(b"IEND") - 8]
    halves = [chunk(b"IDAT", packed[:900]), chunk(b"gAMA", bytes(4)), chunk(b"IDAT", packed[900:])]
    assert read_plain_png(data[:start] + b"".join(halves) + chunk(b"IEND", b"")) is None


def test_interlaced_and_large_ones_go_the_long_way() -> None:
    data = encoded(picture(9, 7))
    form = data[:28] + b"\1"
    assert read_plain_png(form + zlib.crc32(form[12:]).to_bytes(4, "big") + data[33:]) is None
    assert read_plain_png(encoded(picture(257, 256))) is None
    assert read_plain_png(encoded(picture(256, 256))) is not None
    assert read_plain_png(encoded(picture(20, 20)), max_pixels=399) is None


def test_too_many_pixels_are_still_refused() -> None:
    with pytest.raises(ImageError, match="found 20 x 20 = 400 pixels"):
        decode(encoded(picture(20, 20)), DecodeLimits(max_pixels=399))


SOUND = encoded(picture(12, 11), compress_level=1)


@settings(deadline=None, max_examples=400)
@example(0, 0, len(SOUND) - 5)
@given(st.integers(0, len(SOUND) - 1), st.integers(1, 255), st.integers(0, len(SOUND)))
def test_damaged_ones_are_never_seen_differently(at: int, flip: int, end: int) -> None:
    """A flipped byte, with the checksums made right again or not, and a cut."""
    flipped = SOUND[:at] + bytes([SOUND[at] ^ flip]) + SOUND[at + 1 :]
    for data in (flipped, healed(flipped), SOUND[:end], healed(flipped)[:end]):
        found = read_plain_png(data)
        if found is not None:
            np.testing.assert_array_equal(np.asarray(found), opened(data))


def healed(data: bytes) -> bytes:
    """Return the file with every chunk's checksum as its bytes ask for."""
    out, place = data[:8], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        body = data[place + 4 : place + 8 + length]
        out += data[place : place + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        place += 12 + length
    return out + data[place:]


def test_a_thumbnail_of_the_models_size_passes_through_bit_for_bit() -> None:
    found = load_image(encoded(picture(32, 32)), Preprocess(size=32, resize=32))
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, np.asarray(picture(32, 32)))
