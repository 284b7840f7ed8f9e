"""One recipe from bytes to pixels, compared with a slow resize written out by hand."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.tiny_model import picture
from vssl.errors import FormatError, ImageError
from vssl.images.decode import DecodeLimits
from vssl.images.preprocess import Preprocess, load_image, resize_picture


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def slow_weights(source: int, target: int, low: float, high: float) -> np.ndarray:
    """The (target, source) matrix of an anti-aliased triangle filter over the interval low..high."""
    scale = (high - low) / target
    support = max(scale, 1.0)
    rows = []
    for t in range(target):
        centre = low + (t + 0.5) * scale
        weights = np.array([max(0.0, 1 - abs((s + 0.5 - centre) / support)) for s in range(source)])
        rows.append(weights / weights.sum())
    return np.array(rows)


@pytest.mark.parametrize(("width", "height"), [(40, 30), (30, 41), (64, 64), (17, 90)])
@pytest.mark.parametrize(("size", "resize"), [(16, 16), (16, 20), (32, 36)])
def test_it_is_an_antialiased_resize_and_a_centre_crop(
    width: int, height: int, size: int, resize: int
) -> None:
    pixels = picture(1, (width, height))
    recipe = Preprocess(size=size, resize=resize, interpolation="bilinear")
    side = min(width, height) * size / resize
    across = slow_weights(width, size, (width - side) / 2, (width + side) / 2)
    down = slow_weights(height, size, (height - side) / 2, (height + side) / 2)
    expected = np.einsum("th,hwc,sw->tsc", down, pixels.astype(float), across)
    found = load_image(png(pixels), recipe)
    assert np.abs(found - expected).max() <= 1.5  # Pillow rounds to 8 bits between the two passes


def test_stretch_takes_the_whole_picture() -> None:
    pixels = np.zeros((10, 40, 3), np.uint8)
    pixels[:, :10] = 255
    found = load_image(png(pixels), Preprocess(size=8, resize=8, fit="stretch", interpolation="box"))
    assert (found[:, :2] == 255).all()
    assert (found[:, 2:] == 0).all()
    cropped = load_image(png(pixels), Preprocess(size=8, resize=8, interpolation="box"))
    assert (cropped == 0).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "box"])
def test_a_picture_of_the_right_size_passes_bit_for_bit(interpolation: str) -> None:
    pixels = picture(2, (24, 24))
    found = load_image(png(pixels), Preprocess(24, 24, interpolation=interpolation))
    assert found.flags.c_contiguous
    assert np.array_equal(found, pixels)


@given(
    width=st.integers(1, 300), height=st.integers(1, 300), size=st.integers(1, 48), extra=st.integers(0, 20)
)
@settings(max_examples=60, deadline=None)
def test_any_shape_gives_the_size_asked_for(width: int, height: int, size: int, extra: int) -> None:
    value = np.full((height, width, 3), 77, np.uint8)
    for fit in ("crop", "stretch"):
        found = load_image(png(value), Preprocess(size, size + extra, fit=fit))
        assert (found.shape, found.dtype, found.flags.c_contiguous) == ((size, size, 3), np.uint8, True)
        assert (found == 77).all()


@pytest.mark.parametrize("shape", [(1, 100_000, 3), (100_000, 1, 3)])
def test_a_thin_strip_costs_no_more_than_a_square(shape: tuple[int, int, int]) -> None:
    assert load_image(png(np.full(shape, 9, np.uint8)), Preprocess(32, 36)).shape == (32, 32, 3)


@pytest.mark.parametrize(("alpha", "value"), [("white", 255), ("grey", 128), ("black", 0)])
def test_the_recipe_says_what_lies_behind_transparency(alpha: str, value: int) -> None:
    found = load_image(png(np.zeros((8, 8, 4), np.uint8)), Preprocess(8, 8, alpha=alpha))
    assert (found == value).all()


class TestReducedJpeg:
    """jpeg_scale trades exactness for decoding time; the recipe says how much."""

    @pytest.fixture
    def jpeg(self) -> bytes:
        file = io.BytesIO()
        smooth = Image.fromarray(picture(4, (30, 20))).resize((1200, 800), Image.Resampling.BICUBIC)
        smooth.save(file, "JPEG", quality=90)
        return file.getvalue()

    def test_zero_decodes_at_full_size(self, jpeg: bytes) -> None:
        full = resize_picture(Image.open(io.BytesIO(jpeg)), Preprocess(64, 64))
        assert np.array_equal(load_image(jpeg, Preprocess(64, 64, jpeg_scale=0)), full)

    def test_two_stays_close_to_full_size(self, jpeg: bytes) -> None:
        full = load_image(jpeg, Preprocess(64, 64, jpeg_scale=0)).astype(int)
        reduced = load_image(jpeg, Preprocess(64, 64, jpeg_scale=2)).astype(int)
        assert 0 < np.abs(reduced - full).mean() < 1.0

    def test_small_files_are_not_reduced(self, jpeg: bytes) -> None:
        a, b = (load_image(jpeg, Preprocess(500, 500, jpeg_scale=s)) for s in (0, 1))
        assert np.array_equal(a, b)


def test_errors_of_decoding_pass_through() -> None:
    with pytest.raises(ImageError, match="expected at most 10"):
        load_image(png(picture(0)), Preprocess(8, 8), DecodeLimits(max_pixels=10))


RECIPES = st.builds(
    lambda size, extra, **rest: Preprocess(size, size + extra, **rest),
    size=st.integers(1, 512),
    extra=st.integers(0, 100),
    fit=st.sampled_from(["crop", "stretch"]),
    interpolation=st.sampled_from(["bilinear", "bicubic", "lanczos", "box"]),
    alpha=st.sampled_from(["white", "grey", "black"]),
    jpeg_scale=st.integers(0, 4),
)


@given(recipe=RECIPES)
def test_a_recipe_survives_its_dictionary(recipe: Preprocess) -> None:
    assert Preprocess.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "preprocess.size: found 0"),
        ({"size": 8.0}, "preprocess.size: found 8.0"),
        ({"size": True}, "preprocess.size: found True"),
        ({"resize": 7}, "found 7, expected at least the crop's size 8"),
        ({"resize": 5000}, "expected an integer from 1 to 4096"),
        ({"fit": "pad"}, "preprocess.fit: found 'pad'"),
        ({"interpolation": "nearest"}, "preprocess.interpolation"),
        ({"alpha": "red"}, "preprocess.alpha"),
        ({"jpeg_scale": 9}, "preprocess.jpeg_scale"),
        ({"exif_turn": False}, "preprocess.exif_turn"),
        ({"colour": "BGR"}, "preprocess.colour"),
        ({"antialias": False}, "preprocess.antialias"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError, match=message.replace(".", r"\.")):
        replace(Preprocess(8, 8), **change)  # type: ignore[arg-type]


def test_unknown_and_missing_keys_are_refused() -> None:
    values = Preprocess(8, 8).to_dict()
    for wrong in (values | {"gamma": 2}, {k: v for k, v in values.items() if k != "fit"}):
        with pytest.raises(FormatError, match="another version of vssl"):
            Preprocess.from_dict(wrong)
