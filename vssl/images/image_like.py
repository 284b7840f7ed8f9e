"""What a person calls an image -> the bytes of an image file.

Shape letters: H W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vssl.errors import ImageError, InputError
from vssl.images.decode import as_shown

ImageLike = str | Path | bytes | NDArray[np.uint8] | Image.Image
"""A path, the bytes of a file, a uint8 array (H, W) or (H, W, 3), or a Pillow picture."""


def image_bytes(image: ImageLike) -> bytes:
    """Return an image as the bytes of a file; arrays and pictures become PNG, and embed as their own files do.

    Raises InputError for a file that cannot be read, an array of another form, or what is no image, and ImageError
    for a picture that Pillow opened and cannot decode.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        try:
            return Path(image).expanduser().read_bytes()
        except OSError as error:
            raise InputError(f"no image at {str(image)!r}: {error.strerror}") from error
    if isinstance(image, np.ndarray):
        if (
            image.dtype != np.uint8
            or image.ndim not in (2, 3)
            or image.shape[2:] not in ((), (3,))
            or not image.size
        ):
            raise InputError(
                f"image: found {image.dtype} of shape {image.shape}, expected uint8 of (H, W) or (H, W, 3)"
            )
        image = Image.fromarray(image)
    elif isinstance(image, Image.Image):
        image = _as_shown(image)
    if not isinstance(image, Image.Image):
        raise InputError(
            f"image: found {type(image).__name__}, expected a path, bytes, a uint8 array or a Pillow picture"
        )
    sink = io.BytesIO()
    image.save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def _as_shown(picture: Image.Image) -> Image.Image:
    """Turn a picture as its file is turned and read; PNG has no CMYK and no floats."""
    try:
        shown = as_shown(picture)
        return shown.convert("RGBA") if shown.has_transparency_data else shown
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError("undecodable", f"Pillow cannot decode the picture: {error}") from error


def image_list(images: Iterable[ImageLike]) -> list[ImageLike]:
    """Return listed images, from a list, a generator, a set or a batch (N, H, W, 3), as a list.

    Raises InputError for one image outside of a list, and for what holds no images.
    """
    given: object = images  # a notebook has no type checker: one picture would be read row by row
    is_array = isinstance(given, np.ndarray) and given.ndim < 4 and given.dtype.kind not in "OU"  # of paths
    if is_array or isinstance(given, str | Path | bytes | bytearray | Image.Image):
        what = "path" if isinstance(given, str | Path) else "picture"
        raise InputError(
            f"images: found one {what} ({type(given).__name__}), expected a list; write: embed([{what}])"
        )
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise InputError(
            f"images: found {type(given).__name__}, expected a list of paths, bytes, uint8 arrays or Pillow pictures"
        )
    return list(images)


def image_name(image: ImageLike, position: int) -> str:
    """Return what an image is called: its path, or `image-N` by its position."""
    return str(image) if isinstance(image, str | Path) else f"image-{position}"
