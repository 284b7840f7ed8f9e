"""Outliers are far from everything."""

from __future__ import annotations

from pathlib import Path

from index.curation.outliers import outliers
from index.gallery.folder.gallery import FolderGallery
from tests.index.curation.conftest import planted
from tests.index.samples import MODEL, card, gaussians
from vssl.embeddings.store import Rows


def test_outliers_are_far_from_everything(tmp_path: Path) -> None:
    rows = planted()[0]
    with FolderGallery.create(
        tmp_path / "g", card=card(32), model_id=MODEL, normalise=False, distance="euclidean"
    ) as gallery:
        gallery.add(rows)
        found = outliers(gallery, limit=4)
    assert {o.id for o in found[:3]} == {"i120", "i121", "i122"}
    assert found[0].distance >= found[1].distance >= found[2].distance > 2 * found[3].distance


def test_one_image_is_an_outlier_and_none_is_none(tmp_path: Path) -> None:
    with FolderGallery.create(tmp_path / "g", card=card(), model_id=MODEL) as gallery:
        assert outliers(gallery) == []
        gallery.add(Rows(["a"], ["a.png"], ["x"], gaussians(1)))
        assert [one.id for one in outliers(gallery)] == ["a"]
