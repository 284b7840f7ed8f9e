"""What to label next: the least sure, the farthest apart, the typical of each region."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.curation.select import select
from index.gallery.folder.gallery import FolderGallery
from tests.index.samples import card
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import InputError

CENTRES = np.eye(4, 8, dtype=np.float32) * 3


def clusters(folder: Path, labels: list[str | None] | None = None) -> FolderGallery:
    """Four clusters of thirty images, each tightest at its first; the variance grows with the number."""
    random = np.random.default_rng(0)
    spread = np.tile(np.linspace(0, 0.4, 30), 4)[:, None]
    mean = (CENTRES.repeat(30, axis=0) + random.normal(0, 1, (120, 8)) * spread).astype(np.float32)
    variance = np.full((120, 8), 1e-3, np.float32) * np.arange(1, 121, dtype=np.float32)[:, None]
    ids = [f"{n // 30}/{n % 30:02d}" for n in range(120)]
    gallery = FolderGallery.create(folder / "gallery", card=card(8), model_id="m")
    gallery.add(Rows(ids, ids, labels or [None] * 120, GaussianEmbedding(mean, variance)))
    return gallery


def test_uncertain_takes_the_least_sure_first(tmp_path: Path) -> None:
    with clusters(tmp_path) as gallery:
        found = select(gallery, "uncertain", limit=10)
        assert [one.uncertainty for one in found] == sorted((one.uncertainty for one in found), reverse=True)
        assert found[0].uncertainty == pytest.approx(max(gallery.neighbourhood(0).uncertainty))


def test_diverse_is_the_greedy_core_set(tmp_path: Path) -> None:
    with clusters(tmp_path) as gallery:
        found = select(gallery, "diverse", limit=6)
        rows, _ = gallery.contents()
    unit = rows.gaussians.mean / np.linalg.norm(rows.gaussians.mean, axis=1, keepdims=True)
    chosen = [rows.ids.index(found[0].id)]
    for one in found[1:]:
        apart = np.linalg.norm(unit[:, None] - unit[chosen][None], axis=2).min(axis=1)
        assert one.score == pytest.approx(apart.max(), abs=1e-3)
        chosen.append(rows.ids.index(one.id))
    assert len({one.id[0] for one in found[:4]}) == 4


def test_typical_takes_one_of_each_dense_region_first(tmp_path: Path) -> None:
    with clusters(tmp_path) as gallery:
        found = select(gallery, "typical", limit=4)
    assert {one.id[0] for one in found} == {"0", "1", "2", "3"}
    assert all(int(one.id[2:]) < 15 for one in found)


@pytest.mark.parametrize("strategy", ["uncertain", "diverse", "typical"])
def test_only_images_without_a_label_are_chosen(tmp_path: Path, strategy: str) -> None:
    labels = [None if n >= 90 else "known" for n in range(120)]
    with clusters(tmp_path, labels) as gallery:
        found = select(gallery, strategy, limit=50)
    assert {one.id for one in found} == {f"3/{n:02d}" for n in range(30)}


def test_another_strategy_is_refused(tmp_path: Path) -> None:
    with (
        clusters(tmp_path) as gallery,
        pytest.raises(InputError, match="expected one of uncertain, diverse, typical"),
    ):
        select(gallery, "clever")
