"""An image source -> one array of decoded images (N, C0, C0, 3) uint8, each decoded once.

A small cache lives in memory; a large one in a file that is mapped, so that the memory in use does
not grow with the folder. Shape letters: N images, C0 side of the stored square.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.lib.format import open_memmap

from train.settings.config import MIN_IMAGES
from vssl.errors import ImageError, InputError
from vssl.images.items import ImageSource
from vssl.images.preprocess import Pixels, Preprocess, load_image
from vssl.model.identity import sha256_bytes

DIGEST_ROWS = 1024  # read at once

IN_MEMORY = 256 * 1024 * 1024
"""Up to so many bytes are kept in memory even when a folder is given."""


@dataclass(frozen=True)
class Failure:
    """An item that could not be turned into pixels, and why."""

    id: str
    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class ImageCache:
    """Decoded images with what is known of them.

    images: (N, C0, C0, 3) uint8, an array or a read-only memory map; rows: N, their places in the
    source; ids: N; labels: N class names, None where unknown; failures: what was left out.
    """

    images: Pixels
    rows: list[int]
    ids: list[str]
    labels: list[str | None]
    failures: list[Failure]

    def __len__(self) -> int:
        return len(self.images)

    def digest(self) -> str:
        """Return the sha256 of ids, labels and pixels: two caches of one digest train alike."""
        seen = hashlib.sha256(json.dumps([self.ids, self.labels, list(self.images.shape)]).encode())
        for start in range(0, len(self), DIGEST_ROWS):
            seen.update(np.ascontiguousarray(self.images[start : start + DIGEST_ROWS]).data)
        return seen.hexdigest()


def load_images(
    source: ImageSource,
    preprocess: Preprocess,
    cache_size: int | None = None,
    *,
    rows: Sequence[int] | None = None,
    cache: Path | None = None,
    threads: int = 2,
    tick: Callable[[int], None] | None = None,
) -> ImageCache:
    """Decode every image of the source to squares of `cache_size` (default: the preprocess's size).

    The squares show what `preprocess` would show, only larger; at its own size they are its
    result bit for bit. rows: decode these only. cache: a folder in which many images are kept
    and found again as long as source and preprocess stay the same. tick: called with the number
    of images done. Items that cannot be read are listed in `failures` and left out; raises
    InputError when fewer than MIN_IMAGES are left.
    """
    side = cache_size or preprocess.size
    stored = replace(
        preprocess, size=side, resize=max(side, round(preprocess.resize * side / preprocess.size))
    )
    wanted = list(range(len(source.items)) if rows is None else rows)
    shape = (len(wanted), side, side, 3)
    on_disk = cache is not None and int(np.prod(shape)) > IN_MEMORY
    if cache is not None and on_disk:
        key = _fingerprint(source, wanted, stored)
        found = _cached(cache, key, source, wanted)
        if found is not None:
            return found
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "images.json").unlink(missing_ok=True)
        images: Pixels = open_memmap(cache / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    else:
        images = np.empty(shape, np.uint8)
    kept, failures = _fill(images, source, wanted, stored, threads, tick)
    _require_enough(kept, failures)
    if cache is not None and on_disk:
        cast(np.memmap[Any, np.dtype[np.uint8]], images).flush()
        values = {"key": key, "rows": kept, "failures": [[f.id, f.path, f.reason] for f in failures]}
        (cache / "images.json").write_text(json.dumps(values))  # last: it says that the array is complete
        return _cached(cache, key, source, wanted) or _unreachable(cache)
    return _image_cache(images[: len(kept)], source, kept, failures)


def _fingerprint(source: ImageSource, rows: Sequence[int], preprocess: Preprocess) -> str:
    """Identify what an image cache holds: the recipe, the ids, and size and time of files that are files."""
    seen: list[Any] = [preprocess.to_dict()]
    for row in rows:
        item = source.items[row]
        try:
            status = Path(item.path).stat()
            seen.append([item.id, status.st_size, status.st_mtime_ns])
        except (OSError, ValueError):
            seen.append(item.id)
    return sha256_bytes(json.dumps(seen).encode("utf-8"))


def _decoded(
    source: ImageSource, rows: Sequence[int], preprocess: Preprocess, threads: int
) -> Iterator[tuple[int, Pixels | ImageError]]:
    """Decode ahead in threads (Pillow lets go of the interpreter), give results in order."""

    def one(row: int) -> Pixels | ImageError:
        try:
            return load_image(source.read(row), preprocess)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[tuple[int, Future[Pixels | ImageError]]] = deque()
        for row in rows:
            ahead.append((row, pool.submit(one, row)))
            if len(ahead) > 8 * threads:
                done, future = ahead.popleft()
                yield done, future.result()
        for done, future in ahead:
            yield done, future.result()


def _fill(
    images: Pixels,
    source: ImageSource,
    rows: Sequence[int],
    preprocess: Preprocess,
    threads: int,
    tick: Callable[[int], None] | None,
) -> tuple[list[int], list[Failure]]:
    """Decode the rows into the first places of `images`; return which were kept, and what was left out."""
    kept: list[int] = []
    failures: list[Failure] = []
    for row, result in _decoded(source, rows, preprocess, threads):
        if isinstance(result, ImageError):
            item = source.items[row]
            failures.append(Failure(item.id, item.path, str(result)))
        else:
            images[len(kept)] = result
            kept.append(row)
        if tick is not None:
            tick(len(kept) + len(failures))
    return kept, failures


def _require_enough(kept: list[int], failures: list[Failure]) -> None:
    if len(kept) >= MIN_IMAGES:
        return
    reasons = "".join(f"\n  {f.path}: {f.reason}" for f in failures[:5])
    raise InputError(
        f"found {len(kept)} readable images and {len(failures)} that cannot be read, expected at least "
        f"{MIN_IMAGES} readable ones; give more images{reasons}"
    )


def _image_cache(images: Pixels, source: ImageSource, rows: list[int], failures: list[Failure]) -> ImageCache:
    items = [source.items[row] for row in rows]
    return ImageCache(images, rows, [item.id for item in items], [item.label for item in items], failures)


def _cached(cache: Path, key: str, source: ImageSource, wanted: Sequence[int]) -> ImageCache | None:
    """Map a finished image cache of the same key, if there is one."""
    try:
        values = json.loads((cache / "images.json").read_text())
        if values["key"] != key:
            return None
        rows = [int(row) for row in values["rows"]]
        images = np.load(cache / "images.npy", mmap_mode="r")
    except (OSError, ValueError, KeyError):
        return None
    return _image_cache(images[: len(rows)], source, rows, [Failure(*f) for f in values["failures"]])


def _unreachable(cache: Path) -> ImageCache:
    raise InputError(f"the cache just written to {str(cache)!r} cannot be read back; is the disk full?")
