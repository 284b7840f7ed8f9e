"""Images that servers are asked for: thumbnails and photographs, as files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def small_pngs(count: int = 256) -> list[bytes]:
    """Return 32 px PNG files of smooth pictures with noise."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:32, 0:32] / 32
    images = []
    for _ in range(count):
        waves = 127 + 90 * np.sin(
            random.uniform(0, 6, 3) + random.uniform(2, 9, 3) * np.stack([x, y, x - y], -1)
        )
        images.append(encoded(waves + random.normal(0, 8, waves.shape), "PNG"))
    return images


def photos(folder: Path | None, count: int = 128) -> list[bytes]:
    """Return JPEG files of a folder, re-encoded to 500 px on the longer side, or synthetic ones."""
    if folder is not None:
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))[:count]
        images = []
        for file in files:
            picture = Image.open(file).convert("RGB")
            picture.thumbnail((500, 500))
            images.append(encoded(np.asarray(picture), "JPEG"))
        return images
    random = np.random.default_rng(1)
    y, x = np.mgrid[0:375, 0:500] / 500
    return [
        encoded(127 + 90 * np.sin(random.uniform(2, 30, 3) * np.stack([x, y, x - y], -1)), "JPEG")
        for _ in range(count)
    ]


def encoded(values: np.ndarray, form: str) -> bytes:
    """Return an array as an image file."""
    sink = io.BytesIO()
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(sink, form, quality=90)
    return sink.getvalue()
