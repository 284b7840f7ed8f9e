"""A block of source rows -> embedded rows and failures: read, decode, embed.

The same function runs in the local pipeline's threads and in every other engine's workers, so
their outputs are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from operator import itemgetter

from serve.inference.embedded import EmbeddedImages
from serve.inference.engine import Engine
from vssl.embeddings.store import Failure, Rows
from vssl.errors import ImageError
from vssl.images.decode import DEFAULT_LIMITS, DecodeLimits
from vssl.images.items import ImageItem, ImageSource
from vssl.images.preprocess import Pixels, load_image
from vssl.model.identity import sha256_bytes


@dataclass(frozen=True)
class Task:
    """Source rows of one part that go through the model together."""

    part: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class MapOptions:
    """What a mapper does besides embedding: bounds to decode within, columns to add."""

    limits: DecodeLimits = DEFAULT_LIMITS
    features: bool = False
    digests: bool = False
    pictures: bool = False


@dataclass(frozen=True, eq=False)
class BlockResult:
    """What became of some source rows, each in exactly one of `rows` (None when all failed) and `failures`.

    numbers, failed: the source rows of either, in their order.
    """

    rows: Rows | None
    numbers: list[int]
    failures: list[Failure]
    failed: list[int]

    def __len__(self) -> int:
        return len(self.numbers) + len(self.failed)


def embed_block(
    engine: Engine,
    source: ImageSource,
    numbers: Sequence[int],
    options: MapOptions,
    lane: AbstractContextManager[object] | None = None,
) -> BlockResult:
    """Embed the given rows of a source.

    lane: held while the model runs, for a device that should see few callers at a time.
    """
    pixels: list[Pixels | ImageError] = []
    files: list[bytes] = []  # of those that can be read, for the columns that are made of them
    for number in numbers:
        data = b""
        try:
            data = source.read(number)
            pixels.append(load_image(data, engine.card.preprocess, options.limits))
        except ImageError as error:
            pixels.append(error)
        files.append(data if options.digests or options.pictures else b"")
    with lane or nullcontext():
        answers = engine.embed_pixels(pixels)
    return _gather(source.items, numbers, answers, files, options)


def _gather(
    items: Sequence[ImageItem],
    numbers: Sequence[int],
    answers: EmbeddedImages,
    files: Sequence[bytes],
    options: MapOptions,
) -> BlockResult:
    """Sort answers into rows and failures."""
    good, failed = answers.embedded, sorted(answers.errors)
    kept = [items[numbers[n]] for n in good]
    rows = (
        Rows(
            [item.id for item in kept],
            [item.path for item in kept],
            [item.label for item in kept],
            answers.gaussians,
            answers.features[good] if options.features else None,
            [sha256_bytes(files[n]) for n in good] if options.digests else None,
            [files[n] for n in good] if options.pictures else None,
        )
        if good
        else None
    )
    failures = [
        Failure(items[numbers[n]].path, str(answers.errors[n]), answers.errors[n].code) for n in failed
    ]
    return BlockResult(rows, [numbers[n] for n in good], failures, [numbers[n] for n in failed])


def join(blocks: Sequence[BlockResult]) -> BlockResult:
    """Put blocks together, in the order of the source."""
    parts = [b.rows for b in blocks if b.rows is not None]
    numbers = [n for b in blocks for n in b.numbers]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    failures = sorted(
        ((n, f) for b in blocks for n, f in zip(b.failed, b.failures, strict=True)), key=itemgetter(0)
    )
    return BlockResult(
        Rows.concatenate(parts).take(order) if parts else None,
        [numbers[i] for i in order],
        [f for _, f in failures],
        [n for n, _ in failures],
    )
