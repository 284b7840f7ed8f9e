"""The least certain images come first, or the surest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from index.curation.uncertain import uncertain
from index.gallery.folder.gallery import FolderGallery
from tests.index.curation.conftest import planted
from tests.index.samples import MODEL, card, gaussians
from vssl.embeddings.store import Rows


def test_the_least_certain_come_first(gallery: FolderGallery) -> None:
    rows = planted()[0]
    found = uncertain(gallery, limit=5)
    order = np.argsort(-rows.gaussians.uncertainty, kind="stable")
    assert {d.id for d in found} == {rows.ids[i] for i in order[:5]}
    assert found[0].percentile > 99
    assert uncertain(gallery, limit=1, surest=True)[0].percentile == 0


def test_one_image_is_the_least_certain_and_none_is_none(tmp_path: Path) -> None:
    with FolderGallery.create(tmp_path / "g", card=card(), model_id=MODEL) as gallery:
        assert uncertain(gallery) == []
        gallery.add(Rows(["a"], ["a.png"], ["x"], gaussians(1)))
        assert [one.id for one in uncertain(gallery)] == ["a"]
