"""Every form of an image becomes the bytes of a file without loss; what is none is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny_model import picture
from vssl.errors import InputError
from vssl.images.image_like import image_bytes, image_name


def test_every_kind_of_image_becomes_bytes_without_loss(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(picture(1)).save(file)
    for image in (file, str(file), file.read_bytes(), picture(1), Image.fromarray(picture(1))):
        read = Image.open(io.BytesIO(image_bytes(image)))
        np.testing.assert_array_equal(np.asarray(read), picture(1))
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image_bytes(grey)))), grey)


@pytest.mark.parametrize(
    "image",
    [
        "/nowhere/a.png",
        np.zeros((2, 2), np.float32),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros(4, np.uint8),
        None,
        3,
    ],
)
def test_what_is_no_image_is_refused(image: object) -> None:
    with pytest.raises(InputError, match=r"expected uint8|no image at|expected a path, bytes, a uint8 array"):
        image_bytes(image)  # type: ignore[arg-type]


def test_an_image_is_named_by_its_path_or_its_place() -> None:
    assert image_name("a/b.jpg", 3) == "a/b.jpg"
    assert image_name(b"bytes", 3) == "image-3"
