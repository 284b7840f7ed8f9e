"""A block of source rows -> the rows of a part: read, decode, embed, one failure per bad image.

The same function runs in the local pipeline's threads and in every other engine's workers, so
their outputs are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from serve.engine import EmbeddedImage, Engine
from vssl.decode import DEFAULT_LIMITS, DecodeLimits
from vssl.errors import ImageError
from vssl.gaussian import GaussianEmbedding
from vssl.preprocess import Pixels, load_image
from vssl.sources import ImageItem, ImageSource
from vssl.store import Failure, Rows


@dataclass(frozen=True, eq=False)
class BlockResult:
    """What became of one block: embedded rows (None when every image failed) and failures, in source order."""

    rows: Rows | None
    failures: list[Failure]

    def __len__(self) -> int:
        return (0 if self.rows is None else len(self.rows)) + len(self.failures)


def embed_block(
    engine: Engine,
    source: ImageSource,
    rows: Sequence[int],
    *,
    limits: DecodeLimits = DEFAULT_LIMITS,
    features: bool = False,
    lane: AbstractContextManager[object] | None = None,
) -> BlockResult:
    """Embed the given rows of a source.

    lane: held while the model runs, for a device that should see few callers at a time.
    """
    pixels: list[Pixels | ImageError] = []
    for row in rows:
        try:
            pixels.append(load_image(source.read(row), engine.card.preprocess, limits))
        except ImageError as error:
            pixels.append(error)
    with lane or nullcontext():
        answers = engine.embed_pixels(pixels)
    return gather([source.items[row] for row in rows], answers, features=features)


def gather(
    items: Sequence[ImageItem], answers: Sequence[EmbeddedImage | ImageError], *, features: bool
) -> BlockResult:
    """Sort per-image answers into rows and failures, each in the items' order."""
    good = [(i, a) for i, a in zip(items, answers, strict=True) if not isinstance(a, ImageError)]
    failures = [
        Failure(item.path, str(answer), answer.code)
        for item, answer in zip(items, answers, strict=True)
        if isinstance(answer, ImageError)
    ]
    if not good:
        return BlockResult(None, failures)
    rows = Rows(
        [item.id for item, _ in good],
        [item.path for item, _ in good],
        [item.label for item, _ in good],
        GaussianEmbedding(np.stack([a.mean for _, a in good]), np.stack([a.variance for _, a in good])),
        np.stack([a.features for _, a in good]) if features else None,
    )
    return BlockResult(rows, failures)


def join(blocks: Sequence[BlockResult]) -> BlockResult:
    """Concatenate blocks in order."""
    parts = [b.rows for b in blocks if b.rows is not None]
    failures = [f for b in blocks for f in b.failures]
    if not parts:
        return BlockResult(None, failures)
    columns = [r.features for r in parts if r.features is not None]
    rows = Rows(
        [i for r in parts for i in r.ids],
        [p for r in parts for p in r.paths],
        [x for r in parts for x in r.labels],
        GaussianEmbedding.concatenate([r.gaussians for r in parts]),
        np.concatenate(columns) if columns else None,
    )
    return BlockResult(rows, failures)
