"""An image cache holds each image as the preprocess shows it, and lists what it could not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train.data.image_cache
from tests.support.tiny_model import picture
from train.data.image_cache import load_images
from vssl.errors import InputError
from vssl.images.preprocess import Preprocess, load_image
from vssl.images.sources import open_source

PREPROCESS = Preprocess(size=24, resize=24)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for number in range(12):
        place = root / ("even" if number % 2 == 0 else "odd")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number, (50 + number, 40))).save(place / f"{number}.png")
    (root / "even" / "torn.png").write_bytes((root / "even" / "0.png").read_bytes()[:300])
    (root / "notes.txt").write_text("no picture")
    return root


def test_images_are_the_preprocess_bit_for_bit(folder: Path) -> None:
    source = open_source(folder)
    cache = load_images(source, PREPROCESS)
    assert len(cache) == 12
    assert sorted(set(cache.labels), key=str) == ["even", "odd"]
    for place, row in enumerate(cache.rows):
        assert cache.ids[place] == source.items[row].id
        assert np.array_equal(cache.images[place], load_image(source.read(row), PREPROCESS))


def test_a_larger_cache_shows_the_same_part(folder: Path) -> None:
    source = open_source(folder)
    large = load_images(source, PREPROCESS, 40).images[0].astype(float)
    small = load_images(source, PREPROCESS).images[0].astype(float)
    again = np.asarray(Image.fromarray(large.astype(np.uint8)).resize((24, 24), Image.Resampling.BICUBIC))
    assert np.abs(again - small).mean() < 6


def test_failures_are_listed_and_left_out(folder: Path) -> None:
    cache = load_images(open_source(folder), PREPROCESS)
    assert sorted(f.id for f in cache.failures) == ["even/torn.png", "notes.txt"]
    assert all(f.reason for f in cache.failures)


def test_rows_choose(folder: Path) -> None:
    source = open_source(folder)
    whole = load_images(source, PREPROCESS)
    some = load_images(source, PREPROCESS, rows=whole.rows[2:10])
    assert some.ids == whole.ids[2:10]
    assert np.array_equal(some.images, whole.images[2:10])


def test_a_large_image_cache_lives_in_a_file_and_is_decoded_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_images(open_source(folder), PREPROCESS)
    monkeypatch.setattr(train.data.image_cache, "IN_MEMORY", 0)
    seen: list[int] = []
    for _ in range(2):
        cache = load_images(open_source(folder), PREPROCESS, cache=tmp_path / "cache", tick=seen.append)
        assert isinstance(cache.images.base, np.memmap)
        assert np.array_equal(cache.images, expected.images)
        assert (cache.ids, cache.labels, cache.failures) == (expected.ids, expected.labels, expected.failures)
    assert seen == list(range(1, 15))  # the second time nothing is decoded
    Image.fromarray(picture(99)).save(folder / "odd" / "1.png")
    changed = load_images(open_source(folder), PREPROCESS, cache=tmp_path / "cache")
    assert not np.array_equal(changed.images, expected.images)


def test_too_few_images_are_refused_with_the_reasons(tmp_path: Path) -> None:
    for number in range(5):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(
        InputError, match=r"found 5 readable images and 1 that cannot.*expected at least 8"
    ) as e:
        load_images(open_source(tmp_path), PREPROCESS)
    assert "broken.jpg" in str(e.value)


def test_whole_pictures_are_kept_with_their_shape(tmp_path: Path) -> None:
    sizes = [(60, 20), (20, 60), (40, 40), *[(30, 20)] * 13]
    for number, (width, height) in enumerate(sizes):
        across = np.linspace(0, 255, width).astype(np.uint8)
        Image.fromarray(np.broadcast_to(across, (height, width))).save(tmp_path / f"{number:02}.png")
    source = open_source(tmp_path)
    kept = load_images(source, PREPROCESS, whole=True)
    assert kept.aspects is not None
    np.testing.assert_allclose(kept.aspects, [width / height for width, height in sizes])
    # The centre square of a wide picture lacks both ends; the whole of it has them.
    assert int(kept.images[0, :, :2].max()) < 20
    assert int(kept.images[0, :, -2:].min()) > 235
    cut = load_images(source, PREPROCESS)
    assert cut.aspects is None
    assert int(cut.images[0, :, :2].min()) > 60
    np.testing.assert_array_equal(kept.images[2], cut.images[2])  # a square stays as it is
    assert kept.digest() != cut.digest()
