"""Small pictures in classes, as the two files that travel to a GPU machine."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = 10


def labelled_pictures(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Ten hues with noise: images (N, 32, 32, 3) and labels (N,)."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count).astype(np.uint8)
    hues = np.random.default_rng(0).integers(40, 216, (CLASSES, 3))
    noise = random.normal(0, 20, (count, 32, 32, 3))
    return np.clip(hues[labels][:, None, None] + noise, 0, 255).astype(np.uint8), labels


def write_half(path: Path, splits: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    """Write sheets of 16 x 16 pictures, one picture at a time."""
    header, sheets = {}, []
    for name, (images, labels) in splits.items():
        sizes = []
        for start in range(0, len(images), 256):
            sheet = Image.new("RGB", (512, 512))
            for place, picture in enumerate(images[start : start + 256]):
                sheet.paste(Image.fromarray(picture), (place % 16 * 32, place // 16 * 32))
            file = io.BytesIO()
            sheet.save(file, "WEBP", lossless=True, quality=0, method=0)
            sheets.append(file.getvalue())
            sizes.append(len(sheets[-1]))
        header[name] = {"labels": labels.tolist(), "sizes": sizes}
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(sheets))


def write_halves(first: Path, second: Path, train: int = 300, test: int = 90) -> None:
    """Write half-a.bin into one folder and half-b.bin into another."""
    for folder in (first, second):
        folder.mkdir(parents=True, exist_ok=True)
    images, labels = labelled_pictures(train, 1)
    cut = train * 2 // 5
    part = {"train-a": (images[:cut], labels[:cut]), "test": labelled_pictures(test, 2)}
    write_half(first / "half-a.bin", part)
    write_half(second / "half-b.bin", {"train-b": (images[cut:], labels[cut:])})


TINY_SETTINGS = """
batch_size = 32
compile = false
precision = "fp32"
[network]
backbone = "resnet8"
width = 8
stem = "medium"
dim = 8
projector_hidden = 16
predictor_hidden = 16
denoiser_hidden = 16
"""
"""Over the recipe: a network with which an epoch takes a fraction of a second."""
