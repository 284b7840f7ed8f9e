"""The first bytes of a file -> the format that they claim, whether it is read or not.

The bytes decide; a file's name and a declared media type are advice.
"""

from __future__ import annotations

CLAIMED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
"""What is decoded, by Pillow and, for HEIF (HEIC), pillow-heif; anything else is `unsupported_type`."""

MEDIA_TYPES = {
    "image/jpeg": "JPEG",
    "image/jpg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
    "image/x-ms-bmp": "BMP",
    "image/tiff": "TIFF",
    "image/avif": "AVIF",
    "image/heic": "HEIF",
    "image/heif": "HEIF",
}
"""Media types of the claimed formats."""

SUFFIXES = frozenset(
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "dib", "tif", "tiff", "avif", "heic", "heif"]
)
"""How names of files of the claimed formats end; asked only where other files lie beside images by design."""

SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
"""First bytes: what begins so and cannot be opened is damaged, not of another type."""

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
"""Brands of HEIF files whose pictures are HEVC, as phones write them."""

OTHERS = {
    b"PK\3\4": "a ZIP archive (or an office document): unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"\x1f\x8b": "a gzip file: unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd file: unpack it",
    b"PAR1": "a Parquet file: give it as parquet:FILE",
    b"%PDF": "a PDF document: save its pages as images",
    b"%!PS": "a PostScript document: save it as PNG",
    b"<svg": "an SVG drawing: save it as PNG",
    b"<?xml": "an XML text, maybe an SVG drawing: save it as PNG",
    b"<!DOCTYPE": "a web page in place of an image: download it again",
    b"<!doctype": "a web page in place of an image: download it again",
    b"<html": "a web page in place of an image: download it again",
    b"version https://git-lfs": "a pointer of Git LFS in place of an image: git lfs pull",
    b"8BPS": "a Photoshop document: save it as PNG",
    b"\0\0\1\0": "an icon (ICO): save it as PNG",
    b"\0\0\2\0": "a cursor (CUR): save it as PNG",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image: save it as PNG",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image: save it as PNG",
    b"\0\0\0\x0cJXL ": "a JPEG XL image: save it as PNG",
    b"\xff\x0a": "a JPEG XL image: save it as PNG",
    b"qoif": "a QOI image: save it as PNG",
    b"DDS ": "a DirectDraw texture (DDS): save it as PNG",
    b"v/1\1": "an OpenEXR image: save it as PNG",
    b"#?RADIANCE": "a Radiance HDR image: save it as PNG",
    b"FUJIFILMCCD-RAW": "a raw photo of a camera: develop it and save it as JPEG",
    b"IIRO": "a raw photo of a camera: develop it and save it as JPEG",
    b"IIU\0": "a raw photo of a camera: develop it and save it as JPEG",
    b"\x93NUMPY": "a NumPy array: save it as PNG",
    **{
        b"P%d" % n + space: "a PNM image: save it as PNG"
        for n in range(1, 8)
        for space in (b"\n", b" ", b"\r", b"\t")
    },
    b"PF\n": "a PFM image: save it as PNG",
    b"Pf\n": "a PFM image: save it as PNG",
}
"""First bytes of what people have among their images and what is not read: its name and what to do."""


def claimed_format(data: bytes) -> str | None:
    """Return the claimed format whose first bytes these are."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        return "HEIF"
    return next((name for start, name in SIGNATURES.items() if data.startswith(start)), None)


def other_kind(data: bytes) -> str:
    """Say what a file of no claimed format is, with what to do about it."""
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip(b" \r\n\t")
    if data[4:8] == b"ftyp":
        return "a video, or an image of a kind of MP4: save a picture of it as JPEG"
    if data[257:262] == b"ustar":
        return "a tar archive: give it as FILE.tar, many as 'FOLDER/*.tar'"
    return next(
        (name for first, name in OTHERS.items() if start.startswith(first)), "no image of a known type"
    )
