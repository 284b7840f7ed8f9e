"""Encoded bytes -> an upright RGB picture, or an ImageError that says why not.

Decoding is where untrusted bytes meet C code, so the order is: count bytes, recognise the
type among the claimed ones, read the size from the header, refuse too many pixels and what
costs far more than it weighs (vssl.images.formats.bombs), and only then decode. Everything a decoder may
throw becomes an ImageError.

What is shown is what other software shows: where Pillow's reading differs (a BMP whose alpha was
never filled in, a PNG with megabytes of text, 16-bit transparency), it is put right here.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError, features

from vssl.errors import ImageError
from vssl.images.formats import CLAIMED_FORMATS, claimed_format, other_kind
from vssl.images.formats.bombs import check_structure, check_work, png_chunks
from vssl.images.formats.tiff import (
    check_layout,
    is_signed,
    number_bits,
    open_page,
    whole_numbers,
    zero_is_white,
)

PILLOW_PIXEL_CAP = 178_956_970  # Pillow itself refuses above twice its MAX_IMAGE_PIXELS

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf")
"""What decides the pixels of a PNG file, and which way up they are."""

COMPOSED_AT_ONCE = 2**21  # pixels: some 20 ms
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of each EXIF orientation upright."""


@dataclass(frozen=True)
class DecodeLimits:
    """Bounds checked before any pixel is decoded.

    max_bytes: encoded size; max_pixels: width times height from the header.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 64_000_000

    def __post_init__(self) -> None:
        if not 1 <= self.max_pixels <= PILLOW_PIXEL_CAP:
            raise ValueError(f"max_pixels: found {self.max_pixels}, expected 1 to {PILLOW_PIXEL_CAP}")
        if self.max_bytes < 1:
            raise ValueError(f"max_bytes: found {self.max_bytes}, expected at least 1")


DEFAULT_LIMITS = DecodeLimits()


@functools.cache
def formats() -> list[str]:
    """Return the claimed formats that this installation can decode: HEIF where pillow-heif is installed."""
    absent = {name for name, feature in (("WEBP", "webp"), ("AVIF", "avif")) if not features.check(feature)}
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        absent.add("HEIF")
    else:
        register_heif_opener()
    return [name for name in CLAIMED_FORMATS if name not in absent]


def decode(
    data: bytes,
    limits: DecodeLimits = DEFAULT_LIMITS,
    *,
    min_side: int = 0,
    background: tuple[int, int, int] = (255, 255, 255),
) -> Image.Image:
    """Decode the first frame to mode RGB, turned upright by its EXIF orientation.

    min_side: when above 0, JPEG files may be decoded at a reduced scale as long as the shorter
        side stays at least this many pixels.
    background: the colour under transparent pixels.

    Raises ImageError with code `empty`, `too_many_bytes`, `unsupported_type`,
    `too_many_pixels` or `undecodable`.
    """
    if not data:
        raise ImageError("empty", "the image is empty (0 bytes)")
    if len(data) > limits.max_bytes:
        raise ImageError("too_many_bytes", f"found {len(data)} bytes, expected at most {limits.max_bytes}")
    check_structure(data)
    try:
        return _decode(data, limits, min_side, background)
    except ImageError as error:
        plain = _plain_png(data) if error.code == "undecodable" else None
        if plain is None:
            raise
    return _decode(plain, limits, min_side, background)


def _decode(
    data: bytes, limits: DecodeLimits, min_side: int, background: tuple[int, int, int]
) -> Image.Image:
    picture = _open(data)
    if picture.format == "TIFF":
        _choose_page(picture)
    width, height = picture.size
    if width * height > limits.max_pixels:
        raise ImageError(
            "too_many_pixels",
            f"found {width} x {height} = {width * height} pixels, expected at most {limits.max_pixels}",
        )
    try:
        check_work(picture, data, limits.max_pixels)
        if min_side and picture.format in ("JPEG", "MPO"):
            picture.draft(None, (min_side, min_side))
        picture = as_shown(picture)
        return _over(background, picture) if picture.has_transparency_data else picture
    except (ImageError, MemoryError):  # a machine without memory says nothing about the picture
        raise
    except Exception as error:
        raise ImageError("undecodable", f"damaged {picture.format} image: {_reason(error)}") from error


def _choose_page(picture: Image.Image) -> None:
    try:
        open_page(picture)
        check_layout(picture)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise ImageError("undecodable", f"damaged TIFF image: {_reason(error)}") from error


def _plain_png(data: bytes) -> bytes | None:
    """A PNG file without what its pixels do not need; None for another file, or one that has nothing else.

    Pillow refuses pictures for the size or the damage of their texts and profiles, which others pass over.
    """
    if not data.startswith(PNG_START):
        return None
    kept = [data[start:end] for kind, start, end in png_chunks(data) if kind in PNG_PIXELS]
    plain = PNG_START + b"".join(kept)
    return plain if len(plain) < len(data) else None


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=formats())
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", _reason(error)) from error
    except UnidentifiedImageError as error:
        claimed, known = claimed_format(data), ", ".join(formats())
        if claimed in formats():
            raise ImageError(
                "undecodable", f"damaged {claimed} image, or of a rare kind: its header is not understood"
            ) from error
        heif = "a HEIC photo, read after: pip install 'vssl[heif]'" if claimed == "HEIF" else None
        found = heif or (f"a {claimed} image" if claimed else other_kind(data))
        raise ImageError("unsupported_type", f"found {found}; supported types are {known}") from error
    except Exception as error:
        raise ImageError("undecodable", f"damaged image header: {_reason(error)}") from error


def apply_exif_orientation(picture: Image.Image) -> Image.Image:
    """Turn a picture upright, as its EXIF orientation says."""
    if picture.format == "TIFF" or not picture.info:
        return picture  # Pillow has turned it while loading, or its file says nothing but pixels
    try:
        orientation = picture.getexif().get(ORIENTATION)
    except Exception:  # damaged EXIF of a good picture: there is no turn to apply
        return picture
    # ImageOps.exif_transpose would copy upright pictures too, and rewrite all of the EXIF.
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return picture if turn is None else picture.transpose(turn)


def as_shown(picture: Image.Image) -> Image.Image:
    """Turn a Pillow picture of any mode into what viewers show: upright, of 8 bits, RGB unless it has transparency.

    Raises what Pillow raises for a damaged file.
    """
    picture.load()
    picture = apply_exif_orientation(picture)
    if picture.mode.startswith(("I", "F")) or is_signed(picture):
        picture = _eight_bits(picture)
    elif picture.mode == "RGB" and isinstance(clear := picture.info.get("transparency"), tuple):
        # Of 16-bit colours Pillow keeps the high byte, but not of the one that is transparent.
        wide = max(clear) > 255
        picture.info["transparency"] = tuple(value >> 8 for value in clear) if wide else clear
    if picture.format == "BMP" and picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (0, 0):
        picture = picture.convert("RGB")  # the fourth byte was never filled in
    if picture.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        picture = ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB") or picture
    return picture if picture.mode == "RGB" or picture.has_transparency_data else picture.convert("RGB")


def _over(background: tuple[int, int, int], picture: Image.Image) -> Image.Image:
    """Lay a picture over a colour, some rows at a time: no other thread runs while Pillow composes two pictures."""
    width, height = picture.size
    flat = Image.new("RGB", picture.size)
    rows = max(1, COMPOSED_AT_ONCE // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        band = picture.crop(box).convert("RGBA")
        canvas = Image.new("RGBA", band.size, (*background, 255))
        flat.paste(Image.alpha_composite(canvas, band).convert("RGB"), box)
    return flat


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Greyscale of 16 or 32 bits, signed or float -> L, or LA where one grey value is transparent.

    Integers are read by their bits (those of 32 as 16 when none exceeds 65535), floats as 0..1
    or 0..255, which is what the programs that write them mean. Others, as of a measurement, have no white:
    they are stretched from the smallest to the largest, as viewers show them.
    """
    values = whole_numbers(picture)
    real = values.dtype.kind == "f"
    known = values[np.isfinite(values)] if real else values
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    top = _white(picture, real, high)
    if real:
        values = np.nan_to_num(values, posinf=high, neginf=low)
    if low < 0 or high > top:
        scale = 255 / (high - low)
        grey = (values * np.float32(scale) - np.float32(low * scale) + 0.5).clip(0, 255).astype(np.uint8)
    elif real:
        grey = np.rint(values * (255 / top)).astype(np.uint8)
    else:
        grey = (values * np.float32(256 / (top + 1))).astype(np.uint8)  # the high byte
    if zero_is_white(picture):
        grey = 255 - grey
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        opaque = np.where(values == clear, 0, 255).astype(np.uint8)
        return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(opaque)))
    return Image.fromarray(grey)


def _white(picture: Image.Image, real: bool, high: float) -> int:
    """The number that stands for white in a picture of integers, or of real numbers, up to `high`."""
    if real:
        return 1 if high <= 2 else 255  # resampling overshoots; a picture of 0..255 this dark shows nothing
    bits = number_bits(picture) if picture.format == "TIFF" else 16
    return 65535 if bits > 16 and high <= 65535 else (1 << bits) - 1


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{text[:200]} ({type(error).__name__})" if text else type(error).__name__
