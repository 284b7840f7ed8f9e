"""A gallery with planted copies, outliers and wrong labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.gallery.folder.gallery import FolderGallery
from tests.index.samples import MODEL, card, gaussians
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows

COUNT, GROUPS = 600, 6


def planted() -> tuple[Rows, set[frozenset[str]], set[str]]:
    """Rows with 20 pairs of views of one image, 15 wrong labels, 3 far outliers."""
    random = np.random.default_rng(0)
    items = gaussians(COUNT, 32, groups=GROUPS)
    mean, variance = items.mean.copy(), np.full_like(items.variance, 0.01)
    for i in range(20):  # item i + 100 is another view of item i
        mean[i + 100] = mean[i] + random.normal(0, 0.1, 32)
    mean[i + 101 : i + 104] = random.normal(0, 6, (3, 32))
    labels: list[str | None] = [f"group{i % GROUPS}" for i in range(COUNT)]
    labels[100:120] = labels[0:20]
    wrong = [f"i{i}" for i in range(300, 315)]
    for i in range(300, 315):
        labels[i] = f"group{(i + 1) % GROUPS}"
    ids = [f"i{i}" for i in range(COUNT)]
    pairs = {frozenset((f"i{i}", f"i{i + 100}")) for i in range(20)}
    rows = Rows(ids, [f"{i}.png" for i in ids], labels, GaussianEmbedding(mean.astype(np.float32), variance))
    return rows, pairs, set(wrong)


@pytest.fixture
def gallery(tmp_path: Path):
    with FolderGallery.create(tmp_path / "gallery", card=card(32), model_id=MODEL, normalise=False) as made:
        made.add(planted()[0])
        yield made
