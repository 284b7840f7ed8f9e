"""Images in any form -> one batch, those that cannot be read apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serve.inference.encoder import AT_ONCE, Encoder
from serve.inference.engine import Engine
from tests.support.tiny_model import picture, tiny_model
from vssl.errors import InputError


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(Engine.open(tiny_model(tmp_path_factory.mktemp("model") / "model.onnx")))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures in two class folders, and one file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        path = folder / ("even", "odd")[number % 2] / f"picture_{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture(number)).save(path)
    (folder / "odd" / "broken.png").write_bytes(b"no image")
    return folder


def test_a_folder_is_embedded_with_its_failures_apart(encoder: Encoder, photos: Path) -> None:
    found = encoder.embed(photos)
    assert (len(found), found.mean.shape, found.variance.shape, found.uncertainty.shape) == (
        12,
        (12, 8),
        (12, 8),
        (12,),
    )
    assert found.names[0] == "even/picture_0.png"
    assert set(found.labels or []) == {"even", "odd"}
    assert [(failed.name, failed.code) for failed in found.failures] == [
        (str(photos / "odd" / "broken.png"), "unsupported_type")
    ]
    (failed,) = found.failures
    assert sorted([*found.positions.tolist(), failed.position]) == list(range(13))


def test_paths_bytes_arrays_and_pictures_give_the_same_numbers(encoder: Encoder, photos: Path) -> None:
    file = photos / "even" / "picture_4.png"
    asked = [file, str(file), file.read_bytes(), picture(4), Image.open(file)]
    found = encoder.embed(asked)
    assert found.names == [str(file), str(file), "image-2", "image-3", "image-4"]
    np.testing.assert_array_equal(found.mean, np.repeat(found.mean[:1], 5, axis=0))
    np.testing.assert_array_equal(found.variance, np.repeat(found.variance[:1], 5, axis=0))
    many = encoder.embed([picture(number) for number in range(AT_ONCE + 9)])  # more than go at once
    assert many.positions.tolist() == list(range(AT_ONCE + 9))
    np.testing.assert_array_equal(many.mean[4], found.mean[0])
    with pytest.raises(InputError, match="no image at"):
        encoder.embed(["nowhere.png"])
    assert len(encoder.embed([])) == 0


def test_one_picture_outside_of_a_list_is_refused_and_an_array_of_pictures_is_a_list(
    encoder: Encoder,
) -> None:
    """Read row by row, a picture would be as many grey ones as it has rows."""
    one: Any
    for one in (picture(4), Image.fromarray(picture(4)), b"bytes"):
        with pytest.raises(InputError, match=r"found one picture .*write: embed\(\[picture\]\)"):
            encoder.embed(one)
    pictures: Any = np.stack([picture(4), picture(5)])
    np.testing.assert_array_equal(encoder.embed(pictures).mean, encoder.embed([picture(4), picture(5)]).mean)


def test_any_iterable_of_images_is_taken_and_what_holds_none_is_refused(encoder: Encoder) -> None:
    pictures = [picture(4), picture(5)]
    expected = encoder.embed(pictures).mean
    np.testing.assert_array_equal(encoder.embed(one for one in pictures).mean, expected)
    np.testing.assert_array_equal(encoder.embed(map(Image.fromarray, pictures)).mean, expected)
    wrong: Any
    for wrong in (None, 3, {"a": pictures[0]}, np.float64(3)):
        with pytest.raises(
            InputError, match=rf"images: found {type(wrong).__name__}, expected a list of paths"
        ):
            encoder.embed(wrong)
    for wrong in ("3", 2.5, 0):
        with pytest.raises(InputError, match=r"size: found .*, expected .*at least 1"):
            list(encoder.batches(pictures, size=wrong))
