"""Every form of an image becomes the bytes of a file without loss; what is none is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.hostile_pictures import bmp_with_empty_alpha
from tests.support.tiny_model import picture
from vssl.errors import ImageError, InputError
from vssl.images.decode import decode
from vssl.images.image_like import image_bytes, image_name


def test_every_kind_of_image_becomes_bytes_without_loss(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(picture(1)).save(file)
    for image in (file, str(file), file.read_bytes(), picture(1), Image.fromarray(picture(1))):
        read = Image.open(io.BytesIO(image_bytes(image)))
        np.testing.assert_array_equal(np.asarray(read), picture(1))
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image_bytes(grey)))), grey)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, form, **options)
    return sink.getvalue()


def files() -> dict[str, bytes]:
    colours, grey = Image.fromarray(picture(1)), np.arange(24.0).reshape(4, 6)
    turned, clear = Image.Exif(), colours.convert("RGBA")
    turned[0x112] = 6
    clear.putpixel((0, 0), (9, 9, 9, 0))
    return {
        "turned": saved(colours, "JPEG", exif=turned),
        "cmyk": saved(colours.convert("CMYK"), "JPEG"),
        "lab": saved(colours.convert("LAB"), "TIFF"),
        "float": saved(Image.fromarray(grey.astype(np.float32)), "TIFF"),
        "int32": saved(Image.fromarray(grey.astype(np.int32) * 1000), "TIFF"),
        "uint16": saved(Image.fromarray(grey.astype(np.uint16) * 2000), "PNG"),
        "palette": saved(clear.quantize(16), "PNG"),
        "clear": saved(clear, "PNG"),
        "grey and clear": saved(clear.convert("LA"), "PNG"),
        "empty alpha": bmp_with_empty_alpha(picture(1)),
    }


@pytest.mark.parametrize("kind", files())
def test_a_file_that_pillow_opened_is_the_picture_of_its_file(kind: str) -> None:
    data = files()[kind]
    given = image_bytes(Image.open(io.BytesIO(data)))
    for background in ((255, 255, 255), (0, 0, 0)):
        np.testing.assert_array_equal(
            decode(given, background=background), decode(data, background=background)
        )


def test_a_damaged_file_that_pillow_opened_is_an_image_error() -> None:
    cut = saved(Image.fromarray(picture(1)), "PNG")[:-40]
    with pytest.raises(ImageError, match="Pillow cannot decode the picture"):
        image_bytes(Image.open(io.BytesIO(cut)))


@pytest.mark.parametrize(
    "image",
    [
        "/nowhere/a.png",
        np.zeros((2, 2), np.float32),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 2, 3), np.uint8),
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
