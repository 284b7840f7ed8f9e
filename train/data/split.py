"""A cache's ids and labels -> which images are trained on, which are held out, and class numbers.

Shape letters: N images of the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.data.image_cache import ImageCache
from train.state.randomness import held_out

FEWEST_HELD_OUT = 16
"""With fewer held-out images a figure would be noise; the training images are watched instead."""


@dataclass(frozen=True, eq=False)
class Split:
    """train, validation: rows of the cache; labels: (N,) class numbers, -1 unknown, or None.

    classes: 0 when the labels cannot be measured on: absent, of one class only, or nearly all
    different; names: of the classes, by number.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    classes: int
    names: tuple[str, ...] = ()


def split_images(cache: ImageCache, share: float) -> Split:
    """Hold out about `share` of the images by a hash of their ids, the same ones in every run."""
    out = np.array([held_out(identity, share) for identity in cache.ids], dtype=bool)
    if out.sum() < FEWEST_HELD_OUT:
        out[:] = False
    names = sorted({label for label in cache.labels if label is not None})
    labels = None
    if 2 <= len(names) <= max(len(cache) // 4, 1):
        number = {name: place for place, name in enumerate(names)}
        labels = np.array([-1 if label is None else number[label] for label in cache.labels], np.int64)
    rows = np.arange(len(cache), dtype=np.int64)
    if labels is None:
        return Split(rows[~out], rows[out], None, 0)
    return Split(rows[~out], rows[out], labels, len(names), tuple(names))
