"""CIFAR-10 as lossless mosaics in two files <-> images, labels and the binary version's files.

For a machine to which only small files travel: `half-a.bin` (20,480 training images and the test images)
and `half-b.bin` (the other training images), 50 MB each. A file is an 8-byte count of header bytes, a JSON
header `{split: {"labels": [...], "sizes": [...]}}`, then WebP sheets of 16 x 16 images of 32 px.
Shape letters: N images.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Split = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Images (N, 32, 32, 3) and labels (N,)."""

SIDE, TILE = 16, 32
BATCHES = 5  # files of the binary version's training images


def read_half(path: Path) -> dict[str, Split]:
    """Return the splits of one file by name."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    splits: dict[str, Split] = {}
    for name, part in json.loads(data[8:start]).items():
        tiles = []
        for size in part["sizes"]:
            sheet = np.asarray(Image.open(io.BytesIO(data[start : start + size])).convert("RGB"))
            start += size
            tiles.append(sheet.reshape(SIDE, TILE, SIDE, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3))
        labels = np.asarray(part["labels"], np.uint8)
        splits[name] = (np.concatenate(tiles)[: len(labels)], labels)
    return splits


def read_halves(folders: Sequence[Path], names: Sequence[str]) -> dict[str, Split]:
    """Return the splits of the named files, each from the first folder that holds it.

    Raises FileNotFoundError that names the file and the folders looked into.
    """
    splits: dict[str, Split] = {}
    for name in names:
        found = [folder / name for folder in folders if (folder / name).is_file()]
        if not found:
            raise FileNotFoundError(f"no {name} in {', '.join(map(str, folders))}")
        splits |= read_half(found[0])
    return splits


def write_binary(folder: Path, splits: dict[str, Split]) -> None:
    """Write `data_batch_1.bin` ... and `test_batch.bin`, the binary version of CIFAR-10, into a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = (np.concatenate([splits["train-a"][i], splits["train-b"][i]]) for i in (0, 1))
    for number, rows in enumerate(np.array_split(np.arange(len(images)), BATCHES), start=1):
        _write_batch(folder / f"data_batch_{number}.bin", images[rows], labels[rows])
    _write_batch(folder / "test_batch.bin", *splits["test"])


def _write_batch(path: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    """One label byte, then the pixels channel by channel, for each image."""
    pixels = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    path.write_bytes(np.concatenate([labels[:, None], pixels], axis=1).tobytes())
