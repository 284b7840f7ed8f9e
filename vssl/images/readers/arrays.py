"""Raw pictures in one array, or in a binary file of equal records -> an ImageSource.

Pictures are handed on as PNG, so that they reach the network by the same path as files.
Shape letters: N images, H W pixels.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vssl.errors import FormatError, InputError
from vssl.files import user_path
from vssl.images.items import ImageItem


class ArraySource:
    """Pictures held as one array (N, H, W, 3) uint8, or a memory map of one; read as PNG."""

    def __init__(self, items: list[ImageItem], pictures: Sequence[NDArray[np.uint8]]) -> None:
        self.items = items
        self._parts = pictures
        self._starts = np.cumsum([0] + [len(part) for part in pictures]).tolist()

    def read(self, row: int) -> bytes:
        """Return the picture as a PNG file."""
        part = bisect_right(self._starts, row) - 1
        picture = self._parts[part][row - self._starts[part]]
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(picture)).save(file, "png", compress_level=1)
        return file.getvalue()


def folder_and_split(kind: str, rest: str, splits: Sequence[str]) -> tuple[Path, str]:
    """Take `DIR` or `DIR:SPLIT` apart, the first of `splits` by default. Raises InputError without a folder."""
    folder, _, split = rest.rpartition(":")
    if split not in splits or not folder:
        folder, split = rest, splits[0]
    path = user_path(folder)
    if not path.is_dir():
        expected = "|".join(splits)
        raise InputError(f"no folder at {str(path)!r}; expected {kind}:DIR or {kind}:DIR:{expected}")
    return path, split


def map_records(path: Path, record: int) -> NDArray[np.uint8]:
    """Map a file of records -> (N, record) uint8. Raises FormatError when its size does not fit."""
    size = path.stat().st_size
    if not size or size % record:
        raise FormatError(
            f"{path}: found {size} bytes, expected a multiple of {record}; the file is damaged or incomplete"
        )
    return np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, record)


def array_source(
    kind: str,
    split: str,
    folder: Path,
    pictures: list[NDArray[np.uint8]],
    labels: NDArray[np.int64] | None,
    names: list[str],
) -> ArraySource:
    """Name pictures `SPLIT/ROW`, with the class names of their labels (N,) where there are any."""
    items = []
    for row in range(sum(len(part) for part in pictures)):
        label = None
        if labels is not None:
            number = int(labels[row])
            label = names[number] if 0 <= number < len(names) else str(number)
        items.append(ImageItem(f"{split}/{row}", label, f"{kind}:{folder}:{split}#{row}"))
    return ArraySource(items, pictures)
