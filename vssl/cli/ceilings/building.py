"""Random Gaussians -> what it takes to build a gallery of them: seconds, and bytes on the disk.

Shape letters: N items, D embedding dimension.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.gallery.folder.build import build_gallery
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows, to_table, write_table
from vssl.images.preprocess import Preprocess
from vssl.model.card import ModelCard


@dataclass(frozen=True)
class BuildCost:
    """What N items took: CPU seconds of `vssl index --distance`, bytes of the Parquet part and of the gallery."""

    items: int
    seconds: float
    part: int
    gallery: int


def random_gaussians(count: int, dim: int) -> GaussianEmbedding:
    """Return (count, D) Gaussians whose variances spread about 1, the same every time."""
    random = np.random.default_rng(0)
    mean = random.normal(size=(count, dim)).astype(np.float32)
    return GaussianEmbedding(mean, random.gamma(4.0, 0.25, mean.shape).astype(np.float32))


def measure(items: int, dim: int, distance: str, scratch: Path) -> BuildCost:
    """Write N random Gaussians as a Parquet part and build a gallery of it; both stay in `scratch`, a new folder."""
    scratch.mkdir()
    gaussians = random_gaussians(items, dim)
    names = [f"class {row % 10}/picture {row:08d}.jpg" for row in range(items)]
    paths = [f"/home/person/photos/{name}" for name in names]
    card = ModelCard("random", "none", "none", "features", dim, dim, Preprocess(8, 8))
    part = scratch / "part.parquet"
    write_table(to_table(Rows(names, paths, [None] * items, gaussians), card, "0" * 64), part)
    started = time.process_time()
    build_gallery(part, scratch / "gallery", distance=distance)
    seconds = time.process_time() - started
    files = [file for file in (scratch / "gallery").rglob("*") if file.is_file()]
    return BuildCost(items, seconds, part.stat().st_size, sum(file.stat().st_size for file in files))
