"""The binary files of STL-10 -> an ImageSource."""

from __future__ import annotations

import numpy as np

from vssl.errors import FormatError, InputError
from vssl.images.items import ImageSource
from vssl.images.readers.arrays import array_source, folder_and_split, map_records

STL10_CLASSES = (
    "airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"
)  # fmt: skip
STL_BYTES = 3 * 96 * 96


def open_stl10(rest: str) -> ImageSource:
    """STL-10's binaries: 96 x 96 pictures by channel and column, labels from 1 in a second file.

    rest: `DIR` or `DIR:SPLIT`, `train` by default. Raises InputError when the files are not there,
    FormatError when they are damaged.
    """
    folder, split = folder_and_split("stl10", rest, ("train", "test", "unlabeled"))
    for place in (folder, folder / "stl10_binary"):
        if (place / f"{split}_X.bin").is_file():
            data = map_records(place / f"{split}_X.bin", STL_BYTES)
            pictures = data.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
            labels = None
            if (place / f"{split}_y.bin").is_file():
                labels = np.fromfile(place / f"{split}_y.bin", dtype=np.uint8).astype(np.int64) - 1
                if len(labels) != len(pictures):
                    raise FormatError(
                        f"{place / f'{split}_y.bin'}: found {len(labels)} labels, expected {len(pictures)}"
                    )
            return array_source("stl10", split, place, [pictures], labels, list(STL10_CLASSES))
    raise InputError(f"no {split}_X.bin in {str(folder)!r}; expected the binary files of STL-10")
