"""The first bytes of what people have among their images: named, with what to do about it."""

from __future__ import annotations

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from vssl.errors import ImageError
from vssl.images.decode import decode


def saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file, kind, **options)
    return file.getvalue()


def packed() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jpg", b"a")
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
    return file.getvalue()


def numbers() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (saved("ICO"), "an icon"),
        (saved("PPM"), "a PNM image"),
        (saved("JPEG2000"), "a JPEG 2000 image"),
        (saved("JPEG2000", no_jp2=True), "a JPEG 2000 image"),
        (saved("DDS"), "a DirectDraw texture"),
        (saved("PDF"), "a PDF document"),
        (saved("EPS"), "a PostScript document"),
        (packed(), "a ZIP archive"),
        (tar(), "a tar archive"),
        (numbers(), "a NumPy array"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><svg/>", "an XML text, maybe an SVG drawing"),
        (b"  \n<!DOCTYPE html><title>404</title>", "a web page in place of an image"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video"),
        (b"\0" * 300, "no image of a known type"),
        (b"\x93", "no image of a known type"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, found: str) -> None:
    with pytest.raises(ImageError, match=f"^found {found}.*; supported types are JPEG, PNG") as caught:
        decode(data)
    assert caught.value.code == "unsupported_type"
