"""Encoded image bytes -> uint8 (S, S, 3): one frozen recipe, applied by one function everywhere.

Training's evaluation, export's check, extraction and the server all call `load_image`;
the recipe travels inside the checkpoint and the ONNX file, and nothing downstream
overrides it. Shape letters: S the side in pixels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vssl.errors import FormatError
from vssl.images.decode import DEFAULT_LIMITS, DecodeLimits, decode

Pixels = NDArray[np.uint8]

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
BACKGROUNDS = {"white": (255, 255, 255), "grey": (128, 128, 128), "black": (0, 0, 0)}


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the network's input; written once at training.

    size: side S of the square the network takes, pixels.
    resize: length the shorter side is scaled to before the centre crop of `size`; at least
        `size`. With `fit="stretch"` the whole picture is squashed to the square instead.
    interpolation: bilinear, bicubic, lanczos or box, always anti-aliased (Pillow's
        convolution resize, whose support grows with the reduction).
    alpha: colour behind transparent pixels.
    jpeg_scale: JPEG files may be decoded at 1/2, 1/4 or 1/8 as long as the shorter side stays
        at least `jpeg_scale` times `resize`; 0 decodes at full size always.
    exif_turn, colour, antialias: fixed at true, "RGB", true in this format version; they are
        written down so that a reader in another language need not guess.
    """

    size: int
    resize: int
    fit: str = "crop"
    interpolation: str = "bicubic"
    alpha: str = "white"
    jpeg_scale: int = 2
    exif_turn: bool = True
    colour: str = "RGB"
    antialias: bool = True

    def __post_init__(self) -> None:
        allowed: dict[str, tuple[object, ...]] = {
            "fit": ("crop", "stretch"),
            "interpolation": tuple(INTERPOLATIONS),
            "alpha": tuple(BACKGROUNDS),
            "jpeg_scale": (0, 1, 2, 3, 4),
            "exif_turn": (True,),
            "colour": ("RGB",),
            "antialias": (True,),
        }
        for name, values in allowed.items():
            found = getattr(self, name)
            if found not in values:
                raise FormatError(f"preprocess.{name}: found {found!r}, expected one of {values}")
        for name in ("size", "resize"):
            found = getattr(self, name)
            if type(found) is not int or not 1 <= found <= 4096:
                raise FormatError(f"preprocess.{name}: found {found!r}, expected an integer from 1 to 4096")
        if self.resize < self.size:
            raise FormatError(
                f"preprocess.resize: found {self.resize}, expected at least the crop's size {self.size}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """Build from `to_dict`'s form; unknown or missing keys raise FormatError."""
        known = {f.name for f in fields(cls)}
        if set(values) != known:
            raise FormatError(
                f"preprocess: found the keys {sorted(values)}, expected exactly {sorted(known)}; "
                "the file was written by another version of vssl"
            )
        return cls(**values)


def load_image(data: bytes, preprocess: Preprocess, limits: DecodeLimits = DEFAULT_LIMITS) -> Pixels:
    """Decode, turn upright, flatten and resize one encoded image -> uint8 (S, S, 3), C-contiguous.

    Raises ImageError (see `vssl.images.decode.decode`) when there is no picture to give.
    """
    return resize_picture(open_picture(data, preprocess, limits), preprocess)


def open_picture(data: bytes, preprocess: Preprocess, limits: DecodeLimits = DEFAULT_LIMITS) -> Image.Image:
    """Decode one encoded image -> an upright RGB picture, at least as large as the resize needs. Raises ImageError."""
    needed = preprocess.jpeg_scale * preprocess.resize
    return decode(data, limits, min_side=needed, background=BACKGROUNDS[preprocess.alpha])


def resize_picture(picture: Image.Image, preprocess: Preprocess) -> Pixels:
    """Resize (and crop) an upright RGB picture -> uint8 (S, S, 3).

    The crop is taken as a box of the source, so that a 1 x 100000 strip costs no more than
    a square; a picture that already has the size passes through bit for bit.
    """
    size, (width, height) = preprocess.size, picture.size
    left, top, right, bottom = 0.0, 0.0, float(width), float(height)
    if preprocess.fit == "crop":
        side = min(width, height) * size / preprocess.resize
        left, top = (width - side) / 2, (height - side) / 2
        right, bottom = left + side, top + side
    if (width, height) == (size, size) == (round(right - left), round(bottom - top)):
        resized = picture
    else:
        resized = picture.resize(
            (size, size), INTERPOLATIONS[preprocess.interpolation], (left, top, right, bottom)
        )
    return np.frombuffer(resized.tobytes(), np.uint8).reshape(size, size, 3)
