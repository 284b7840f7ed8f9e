"""A saved index is used, caught up, and passed over when it is damaged or of another gallery."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from index.gallery.folder.gallery import FolderGallery
from index.search.approximate import ApproximateIndex, Recipe
from index.search.exact import ExactIndex
from tests.index.brute import brute, ids, new, with_recipe
from tests.index.samples import MODEL, card, gaussians, part, sample


def saved_file(gallery: Path) -> Path:
    (file,) = gallery.glob("derived/*/index/*.faiss")
    return file


def test_the_saved_index_is_used_and_caught_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, queries = sample(120), gaussians(5, seed=5)
    with new(tmp_path, part(rows, slice(0, 100))):
        pass
    writer = FolderGallery.open(tmp_path / "gallery")
    writer.add(part(rows, slice(100, 120)))  # it is not closed yet, so that nothing of this was saved
    monkeypatch.setattr(ExactIndex, "build", None)  # whatever is searched now was loaded
    with FolderGallery.open(tmp_path / "gallery", read_only=True) as gallery:
        found = ids(gallery.search(queries, 5))
    monkeypatch.undo()
    writer.close()
    assert found == brute(rows, queries, 5)


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete", "extra"])
def test_a_damaged_index_is_noticed_and_built_again(tmp_path: Path, harm: str) -> None:
    rows, queries = sample(100), gaussians(5, seed=5)
    with new(tmp_path, rows):
        pass
    file = saved_file(tmp_path / "gallery")
    data = bytearray(file.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 4
        file.write_bytes(data)
    elif harm == "truncate":
        file.write_bytes(data[:-10])
    elif harm == "delete":
        file.unlink()
    else:  # an index of the same rows and generation, of another gallery
        other = FolderGallery.create(tmp_path / "other", card=card(), model_id=MODEL)
        other.add(sample(100, seed=8))
        other.close()
        shutil.rmtree(tmp_path / "gallery" / "derived")
        shutil.copytree(tmp_path / "other" / "derived", tmp_path / "gallery" / "derived")
    with FolderGallery.open(tmp_path / "gallery", read_only=True) as gallery:
        assert ids(gallery.search(queries, 5)) == brute(rows, queries, 5)
        assert (gallery.damage is None) == (harm == "extra")
        if harm == "flip":
            assert "does not match its checksum" in gallery.info()["index_damage"]
    with FolderGallery.open(tmp_path / "gallery"):
        pass
    if harm != "extra":
        with FolderGallery.open(tmp_path / "gallery", read_only=True) as gallery:
            assert gallery.damage is None


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_a_gallery_with_a_recipe_opens_changes_and_compacts(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An approximate index outlives removals: its rows that went are masked until compaction."""
    rows, queries = sample(3000, groups=40), gaussians(20, groups=40, seed=5)
    new(tmp_path, part(rows, slice(0, 2500))).close()
    with_recipe(tmp_path / "gallery", Recipe(kind, effort=128, shortlist=400))
    with FolderGallery.open(tmp_path / "gallery") as gallery:
        gallery.save()
        gallery.remove(rows.ids[100:400])
        gallery.add(part(rows, slice(2500, 3000)))
    left = np.ones(3000, bool)
    left[100:400] = False
    expected = brute(rows, queries, 5, keep=left)
    monkeypatch.setattr(ApproximateIndex, "build", None)  # whatever is searched now was loaded
    with FolderGallery.open(tmp_path / "gallery") as gallery:
        assert gallery.damage is None
        assert len(gallery) == 2700
        found = ids(gallery.search(queries, 5))
        assert np.mean([a == b for a, b in zip(found, expected, strict=True)]) > 0.9
        assert ids(gallery.search(queries, 5, distance="wasserstein")) == brute(
            rows, queries, 5, "wasserstein", keep=left
        )
        assert gallery.info()["index"]["kind"] == kind
        gallery.remove(rows.ids[400:450])
        left[400:450] = False
        assert not {n for found in ids(gallery.search(queries, 50)) for n in found} & set(rows.ids[100:450])
    monkeypatch.undo()
    with FolderGallery.open(tmp_path / "gallery") as gallery:
        gallery.compact()
        found, expected = ids(gallery.search(queries, 5)), brute(rows, queries, 5, keep=left)
        assert np.mean([a == b for a, b in zip(found, expected, strict=True)]) > 0.9
