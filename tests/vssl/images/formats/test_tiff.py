"""TIFF files of many kinds: read as the numbers mean, or refused; never another picture."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from vssl.errors import ImageError
from vssl.images.decode import DecodeLimits, decode

RAMP = np.arange(0, 256, 4).reshape(4, 16)  # light in eight bits; 252 at most
SHORT, LONG = 3, 4


def page(
    rows: bytes, shape: tuple[int, int], order: str, at: int, last: bool, **tags: int | tuple[int, ...]
) -> bytes:
    """One page of a TIFF file that begins at byte `at`: its directory, long values, numbers."""
    height, width = shape
    numbers = {
        "t256": width,
        "t257": height,
        "t258": 8,
        "t259": 1,
        "t262": 1,
        "t273": 0,
        "t277": 1,
        "t278": height,
    }
    numbers |= {"t279": len(rows), **tags}
    names = sorted(numbers, key=lambda name: int(name[1:]))
    head = 2 + 12 * len(names) + 4
    extra = b"".join(
        struct.pack(f"{order}{len(v)}H", *v)
        for n in names
        if isinstance(v := numbers[n], tuple) and len(v) > 2
    )
    data_at = at + head + len(extra)
    out, extra_at = struct.pack(order + "H", len(names)), at + head
    for name in names:
        value = data_at if name == "t273" else numbers[name]
        out += struct.pack(order + "HH", int(name[1:]), LONG if isinstance(value, int) else SHORT)
        if isinstance(value, int):
            out += struct.pack(order + "II", 1, value)
        elif len(value) > 2:
            out += struct.pack(order + "II", len(value), extra_at)
            extra_at += 2 * len(value)
        else:
            out += struct.pack(order + "I", len(value)) + struct.pack(f"{order}{len(value)}H", *value).ljust(
                4, b"\0"
            )
    after = 0 if last else data_at + len(rows)
    return out + struct.pack(order + "I", after) + extra + rows


def tiff(
    rows: bytes, shape: tuple[int, int] = (4, 16), order: str = "<", **tags: int | tuple[int, ...]
) -> bytes:
    """A TIFF file of one page; `tags` like `t258=16`."""
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return start + page(rows, shape, order, 8, last=True, **tags)


def grey(data: bytes) -> np.ndarray:
    found = np.asarray(decode(data)).astype(int)
    assert np.array_equal(found[..., 0], found[..., 1])
    return found[..., 0]


def twelve_bits(values: np.ndarray) -> bytes:
    digits = "".join(format(int(value), "012b") for value in values.ravel())
    return int(digits, 2).to_bytes(len(digits) // 8, "big")


class TestNumbers:
    def test_twelve_bits_of_a_camera_reach_white(self) -> None:
        assert np.abs(grey(tiff(twelve_bits(RAMP * 16), t258=12)) - RAMP).max() == 0

    @pytest.mark.parametrize("order", "<>")
    @pytest.mark.parametrize(
        ("kind", "scale"),
        [
            ("u2", 256),
            ("i1", 0.5),
            ("i2", 128),
            ("i4", 256),
            ("i4", 1 << 23),
            ("f4", 1 / 255),
            ("f4", 1),
        ],
    )
    def test_each_kind_of_number(self, order: str, kind: str, scale: float) -> None:
        rows = (RAMP * scale).astype(order + kind).tobytes()
        form = {"u": 1, "i": 2, "f": 3}[kind[0]]
        assert np.abs(grey(tiff(rows, order=order, t258=8 * int(kind[1]), t339=form)) - RAMP).max() <= 1

    def test_16_or_all_of_32_bits_without_sign(self) -> None:
        for shift in (8, 24):
            rows = (RAMP.astype(np.uint32) << shift).tobytes()
            assert np.array_equal(grey(tiff(rows, t258=32)), RAMP)

    @pytest.mark.parametrize(("kind", "form"), [("i1", 2), ("i2", 2), ("f4", 3)])
    def test_a_measurement_is_stretched_from_its_smallest_to_its_largest(self, kind: str, form: int) -> None:
        rows = (RAMP - 128 if kind == "i1" else RAMP * 100 - 9000).astype("<" + kind).tobytes()
        found = grey(tiff(rows, t258=8 * int(kind[1]), t339=form))
        assert (found[0, 0], found[-1, -1]) == (0, 255)
        assert np.abs(found - RAMP * 255 / 252).max() <= 1

    @pytest.mark.parametrize("wild", [np.nan, np.inf, -np.inf])
    def test_what_is_no_number_changes_no_other_pixel(self, wild: float) -> None:
        values = (RAMP / 255).astype("<f4")
        values[0, 0] = wild
        assert np.abs(grey(tiff(values.tobytes(), t258=32, t339=3)) - RAMP)[1:].max() <= 1

    def test_resampling_may_overshoot_white(self) -> None:
        assert np.abs(grey(tiff((RAMP / 250).astype("<f4").tobytes(), t258=32, t339=3)) - RAMP).max() <= 6

    @pytest.mark.parametrize(("kind", "scale", "form"), [("u1", 1, 1), ("u2", 256, 1), ("f4", 1 / 255, 3)])
    def test_zero_may_be_white(self, kind: str, scale: float, form: int) -> None:
        rows = (RAMP * scale).astype("<" + kind).tobytes()
        assert np.abs(grey(tiff(rows, t258=8 * int(kind[1]), t339=form, t262=0)) - (255 - RAMP)).max() <= 1


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("data", "found"),
        [
            (tiff(bytes(384), t258=(16, 16, 16), t262=2, t277=3, t284=2, t273=8, t279=384), "16-bit planes"),
            (tiff(zlib.compress(bytes(256)), order=">", t258=32, t339=3, t259=8), "compressed 32-bit"),
            (tiff(zlib.compress(bytes(128)), order=">", t258=16, t339=2, t259=8), "compressed 16-bit"),
        ],
        ids=["planes", "floats", "signed"],
    )
    def test_layouts_that_would_show_another_picture(self, data: bytes, found: str) -> None:
        with pytest.raises(ImageError, match=found) as caught:
            decode(data)
        assert caught.value.code == "undecodable"
        assert "save it as PNG" in str(caught.value)

    def test_a_raw_photo_is_not_its_thumbnail(self) -> None:
        with pytest.raises(ImageError, match="raw photo") as caught:
            decode(tiff(bytes(64), t254=1, t330=8))
        assert caught.value.code == "unsupported_type"


class TestPages:
    def two(self, first: int, second: int) -> bytes:
        """A dark page, then a larger light one, each with its subfile type."""
        small = page(bytes(64), (4, 16), "<", 8, last=False, t254=first)
        large = page(b"\xff" * 128, (8, 16), "<", 8 + len(small), last=True, t254=second)
        return b"II*\0\x08\0\0\0" + small + large

    @pytest.mark.parametrize("kind", [1, 4], ids=["a preview", "a mask"])
    def test_what_stands_before_the_picture_is_passed_over(self, kind: int) -> None:
        assert grey(self.two(kind, 0)).shape == (8, 16)

    @pytest.mark.parametrize("second", [0, 1, 2], ids=["a page", "its preview", "of many pages"])
    def test_else_it_is_the_first_page(self, second: int) -> None:
        assert grey(self.two(0, second)).shape == (4, 16)

    def test_a_mark_on_every_page_says_nothing(self) -> None:
        assert grey(self.two(1, 1)).shape == (4, 16)

    def test_the_limits_are_those_of_the_page_that_is_read(self) -> None:
        with pytest.raises(ImageError, match="16 x 8"):
            decode(self.two(1, 0), DecodeLimits(max_pixels=100))
