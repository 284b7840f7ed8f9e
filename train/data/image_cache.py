"""An image source -> one array of decoded images (N, C0, C0, 3) uint8, each decoded once.

Views are cropped from whole pictures, as torchvision crops them, so for training each is stored stretched to a square,
with its width over its height: one array holds them all, and crops are drawn in the picture's own geometry.

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
from numpy.typing import NDArray

from train.settings.config import MIN_IMAGES
from vssl.errors import ImageError, InputError
from vssl.images.items import ImageSource
from vssl.images.preprocess import Pixels, Preprocess, open_picture, resize_picture
from vssl.model.identity import sha256_bytes

DIGEST_ROWS = 1024  # read at once

Decoded = tuple[Pixels, float]  # and the aspect of the picture it was made of

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
    source; ids: N; labels: N class names, None where unknown; failures: what was left out; aspects (N,):
    width over height of the pictures that were stretched to these squares, None where all are square or cut to be.
    """

    images: Pixels
    rows: list[int]
    ids: list[str]
    labels: list[str | None]
    failures: list[Failure]
    aspects: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def digest(self) -> str:
        """Return the sha256 of ids, labels and pixels: two caches of one digest train alike."""
        seen = hashlib.sha256(json.dumps([self.ids, self.labels, list(self.images.shape)]).encode())
        for start in range(0, len(self), DIGEST_ROWS):
            seen.update(np.ascontiguousarray(self.images[start : start + DIGEST_ROWS]).data)
        if self.aspects is not None:
            seen.update(self.aspects.data)
        return seen.hexdigest()


def load_images(
    source: ImageSource,
    preprocess: Preprocess,
    cache_size: int | None = None,
    *,
    whole: bool = False,
    rows: Sequence[int] | None = None,
    cache: Path | None = None,
    threads: int = 2,
    tick: Callable[[int], None] | None = None,
) -> ImageCache:
    """Decode every image of the source to squares of `cache_size` (default: the preprocess's size).

    The squares show what `preprocess` would show, only larger; at its own size they are its
    result bit for bit. whole: they show the whole picture instead, stretched (`ImageCache.aspects`).
    rows: decode these only. cache: a folder in which many images are kept
    and found again as long as source and preprocess stay the same. tick: called with the number
    of images done. Items that cannot be read are listed in `failures` and left out; raises
    InputError when fewer than MIN_IMAGES are left.
    """
    side = cache_size or preprocess.size
    stored = replace(
        preprocess, size=side, resize=max(side, round(preprocess.resize * side / preprocess.size))
    )
    if whole:
        stored = replace(preprocess, size=side, resize=side, fit="stretch")
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
    kept, aspects, failures = _fill(images, source, wanted, stored, threads, tick)
    _require_enough(kept, failures)
    aspects = aspects if whole else []
    if cache is not None and on_disk:
        cast(np.memmap[Any, np.dtype[np.uint8]], images).flush()
        values: dict[str, Any] = {"key": key, "rows": kept, "aspects": aspects}
        values["failures"] = [[f.id, f.path, f.reason] for f in failures]
        (cache / "images.json").write_text(json.dumps(values))  # last: it says that the array is complete
        return _cached(cache, key, source, wanted) or _unreachable(cache)
    return _image_cache(images[: len(kept)], source, kept, aspects, failures)


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
) -> Iterator[tuple[int, Decoded | ImageError]]:
    """Decode ahead in threads (Pillow lets go of the interpreter), give results in order."""

    def one(row: int) -> Decoded | ImageError:
        try:
            picture = open_picture(source.read(row), preprocess)
        except ImageError as error:
            return error
        return resize_picture(picture, preprocess), picture.width / picture.height

    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[tuple[int, Future[Decoded | ImageError]]] = deque()
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
) -> tuple[list[int], list[float], list[Failure]]:
    """Decode the rows into the first places of `images`; return those kept, their aspects, and what was left out."""
    kept: list[int] = []
    aspects: list[float] = []
    failures: list[Failure] = []
    for row, result in _decoded(source, rows, preprocess, threads):
        if isinstance(result, ImageError):
            item = source.items[row]
            failures.append(Failure(item.id, item.path, str(result)))
        else:
            images[len(kept)], aspect = result
            aspects.append(aspect)
            kept.append(row)
        if tick is not None:
            tick(len(kept) + len(failures))
    return kept, aspects, failures


def _require_enough(kept: list[int], failures: list[Failure]) -> None:
    if len(kept) >= MIN_IMAGES:
        return
    reasons = "".join(f"\n  {f.path}: {f.reason}" for f in failures[:5])
    raise InputError(
        f"found {len(kept)} readable images and {len(failures)} that cannot be read, expected at least "
        f"{MIN_IMAGES} readable ones; give more images{reasons}"
    )


def _image_cache(
    images: Pixels, source: ImageSource, rows: list[int], aspects: list[float], failures: list[Failure]
) -> ImageCache:
    items = [source.items[row] for row in rows]
    ids, labels = [item.id for item in items], [item.label for item in items]
    wide = np.array(aspects, np.float32) if any(aspect != 1.0 for aspect in aspects) else None
    return ImageCache(images, rows, ids, labels, failures, wide)


def _cached(cache: Path, key: str, source: ImageSource, wanted: Sequence[int]) -> ImageCache | None:
    """Map a finished image cache of the same key, if there is one."""
    try:
        values = json.loads((cache / "images.json").read_text())
        if values["key"] != key:
            return None
        rows, aspects = [int(row) for row in values["rows"]], list(map(float, values["aspects"]))
        images = np.load(cache / "images.npy", mmap_mode="r")
    except (OSError, ValueError, KeyError):
        return None
    failures = [Failure(*f) for f in values["failures"]]
    return _image_cache(images[: len(rows)], source, rows, aspects, failures)


def _unreachable(cache: Path) -> ImageCache:
    raise InputError(f"the cache just written to {str(cache)!r} cannot be read back; is the disk full?")
