"""Small real galleries: labelled Gaussians in groups, with the card of a model of their size."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.images.preprocess import Preprocess
from vssl.model.card import ModelCard

MODEL = "a" * 64


def card(dim: int = 8) -> ModelCard:
    return ModelCard("sample", "vssl", "none", "features", dim, dim, Preprocess(size=16, resize=16))


def gaussians(count: int, dim: int = 8, *, groups: int = 6, seed: int = 0) -> GaussianEmbedding:
    """Row i belongs to group i % groups; groups overlap a little."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(groups, dim))
    mean = centres[np.arange(count) % groups] + random.normal(0, 0.7, (count, dim))
    variance = np.exp(random.normal(-4, 1, (count, 1)) + random.normal(0, 0.3, (count, dim)))
    return GaussianEmbedding(mean.astype(np.float32), variance.astype(np.float32))


def sample(count: int, dim: int = 8, *, groups: int = 6, seed: int = 0, prefix: str = "i") -> Rows:
    """Rows with ids prefix0, prefix1, ... and the group as label."""
    return Rows(
        [f"{prefix}{i}" for i in range(count)],
        [f"photos/{prefix}{i}.png" for i in range(count)],
        [f"group{i % groups}" for i in range(count)],
        gaussians(count, dim, groups=groups, seed=seed),
    )


def part(rows: Rows, which: slice) -> Rows:
    return Rows(rows.ids[which], rows.paths[which], rows.labels[which], rows.gaussians[which])


def mapped_files(folder: Path) -> set[str]:
    """The names of the files in a folder that this process has mapped into its memory, as Linux says."""
    gc.collect()
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("only Linux says which files are mapped")
    paths = (line.split(maxsplit=5)[5] for line in maps.read_text().splitlines() if len(line.split()) > 5)
    there = (Path(path) for path in paths if Path(path).is_relative_to(folder))
    return {path.name for path in there if path.exists()}
