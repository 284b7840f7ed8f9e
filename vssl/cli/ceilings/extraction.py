"""Image files and a model -> what this machine can do with them at most, and what extraction does.

The decode ceiling is `load_image` on every core and nothing else; the inference ceiling the model on
every core over pixels in memory. On a CPU both stages use the same cores, so the most that a whole
job can reach is 1 / (1/decode + 1/inference).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serve.extraction.extract import extract
from serve.inference.cores import available_cores
from serve.inference.engine import Engine
from vssl.errors import ImageError, InputError
from vssl.images.preprocess import load_image

CHUNK = 32


@dataclass(frozen=True)
class Ceilings:
    """Images per second: of decoding alone, of the model alone, of both on shared cores at most, and of
    `vssl extract` from the list of files to the manifest. images: how many were used.
    """

    images: int
    decode: float
    inference: float
    shared_bound: float
    extract: float

    @property
    def reached(self) -> float:
        """The share of the bound that extraction reaches."""
        return self.extract / self.shared_bound


def measure(files: Sequence[Path], model: Path, scratch: Path, rounds: int = 2) -> Ceilings:
    """Measure each in turn, `rounds` times after a first one that warms caches; the best of each counts.

    files: those that cannot be read are left out. scratch: an empty folder for the embeddings. Raises
    InputError when none can be read.
    """
    narrow, wide = Engine.open(model, threads=1), Engine.open(model)
    files = [file for file in files if _reads(file, narrow)]
    if not files:
        raise InputError("found no image that can be read; name a folder of images like yours")
    listing = _listing(files, scratch)
    works: dict[str, Callable[[], None]] = {
        "decode": lambda: decode_only(narrow, files),
        "thread a call": lambda: infer_only(narrow, len(files), available_cores()),
        "all threads": lambda: infer_only(wide, len(files), 1),
        "extract": lambda: run_extract(listing, model, scratch / "embeddings"),
    }
    best = dict.fromkeys(works, 0.0)
    for turn in range(rounds + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if turn:
                best[name] = max(best[name], len(files) / (time.perf_counter() - started))
    decode, inference = best["decode"], max(best["thread a call"], best["all threads"])
    return Ceilings(len(files), decode, inference, 1 / (1 / decode + 1 / inference), best["extract"])


def seconds(files: Sequence[Path], model: Path, scratch: Path, times: int) -> tuple[int, float]:
    """Return how many images were extracted, each file so many times, and the seconds of the whole job."""
    engine = Engine.open(model, threads=1)
    files = [file for file in files if _reads(file, engine)] * times
    listing = _listing(files, scratch)
    started = time.perf_counter()
    run_extract(listing, model, scratch / "embeddings")
    return len(files), time.perf_counter() - started


def _listing(files: Sequence[Path], scratch: Path) -> Path:
    lines = (json.dumps({"path": str(file.resolve()), "id": str(n)}) for n, file in enumerate(files))
    listing = scratch / "list.jsonl"
    listing.write_text("".join(f"{line}\n" for line in lines))
    return listing


def _reads(file: Path, engine: Engine) -> bool:
    try:
        load_image(file.read_bytes(), engine.card.preprocess)
    except (ImageError, OSError):
        return False
    return True


def decode_only(engine: Engine, files: Sequence[Path]) -> None:
    """Read and decode on every core."""

    def one(path: Path) -> None:
        load_image(path.read_bytes(), engine.card.preprocess)

    with ThreadPoolExecutor(available_cores()) as pool:
        for _ in pool.map(one, files, chunksize=CHUNK):
            pass


def infer_only(engine: Engine, images: int, callers: int) -> None:
    """Run the model over pixels in memory, from so many threads."""
    size, bucket = engine.card.preprocess.size, engine.buckets[-1]
    batch = np.random.default_rng(0).integers(0, 256, (bucket, size, size, 3), dtype=np.uint8)
    calls = [batch] * (images // bucket) + ([batch[: images % bucket]] if images % bucket else [])
    with ThreadPoolExecutor(callers) as pool:
        for _ in pool.map(engine.run, calls):
            pass


def run_extract(listing: Path, model: Path | Engine, out: Path) -> None:
    """Run the whole extraction of files that can be read."""
    summary = extract(f"list:{listing}", out, model=model, overwrite=True)
    if summary.failures:
        raise RuntimeError(f"{summary.failures} images could be decoded before and not now")
