"""A gallery is built whole or not at all, and an old one stays until the new one stands."""

from pathlib import Path

import pytest

from index.gallery.folder.build import build_gallery
from index.gallery.folder.gallery import FolderGallery
from index.gallery.folder.locks import LockedError
from index.search.autotune import Budget
from tests.index.samples import MODEL, card, part, sample
from vssl.embeddings.manifest import write_manifest
from vssl.embeddings.store import part_name, to_table, write_table
from vssl.errors import ExistsError, InputError, MismatchError


def embeddings(folder: Path, *, model: str = MODEL, count: int = 30) -> Path:
    """An embeddings folder of two parts."""
    folder.mkdir()
    rows = sample(count)
    for number, which in enumerate((slice(0, count // 2), slice(count // 2, count))):
        write_table(to_table(part(rows, which), card(), model), folder / part_name(number))
    write_manifest(folder, model_id=model, parts=[part_name(0), part_name(1)], rows=count, failures=0)
    return folder


def test_every_part_is_there(tmp_path: Path) -> None:
    source = embeddings(tmp_path / "embeddings")
    built = build_gallery(source, tmp_path / "gallery", distance="expected", normalise=False)
    assert (built.count, built.selection, built.fitting.distance, built.fitting.given) == (
        30,
        None,
        "expected",
        True,
    )
    with FolderGallery.open(tmp_path / "gallery", read_only=True) as gallery:
        assert len(gallery) == 30
        assert (gallery.distance, gallery.normalise, gallery.model_id) == ("expected", False, MODEL)
        assert gallery.info()["index_generation"] == gallery.generation
    assert sorted(p.name for p in tmp_path.iterdir()) == ["embeddings", "gallery"]


def test_a_failed_build_leaves_what_was_there(tmp_path: Path) -> None:
    source = embeddings(tmp_path / "embeddings")
    build_gallery(source, tmp_path / "gallery")
    extra = sample(5, prefix="x")
    write_table(to_table(extra, card(), "b" * 64), source / part_name(1))
    write_manifest(source, model_id=MODEL, parts=[part_name(0), part_name(1)], rows=0, failures=0)
    with pytest.raises(MismatchError):
        build_gallery(source, tmp_path / "gallery", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["embeddings", "gallery"]
    with FolderGallery.open(tmp_path / "gallery", read_only=True) as gallery:
        assert len(gallery) == 30


def test_what_is_there_is_refused_or_replaced(tmp_path: Path) -> None:
    source = embeddings(tmp_path / "embeddings")
    build_gallery(source, tmp_path / "gallery")
    with pytest.raises(ExistsError, match="--overwrite"):
        build_gallery(source, tmp_path / "gallery")
    with FolderGallery.open(tmp_path / "gallery"), pytest.raises(LockedError):
        build_gallery(source, tmp_path / "gallery", overwrite=True)
    assert build_gallery(source, tmp_path / "gallery", overwrite=True).count == 30
    with pytest.raises(ExistsError, match="no gallery"):
        build_gallery(source, source, overwrite=True)


def test_nothing_to_index_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no embeddings at"):
        build_gallery(tmp_path / "nowhere", tmp_path / "gallery")
    empty = tmp_path / "empty"
    empty.mkdir()
    write_manifest(empty, model_id=MODEL, parts=[], rows=0, failures=3)
    with pytest.raises(InputError, match="every image failed"):
        build_gallery(empty, tmp_path / "gallery")
    assert not (tmp_path / "gallery").exists()


def test_a_budget_chooses_the_index(tmp_path: Path) -> None:
    source = embeddings(tmp_path / "embeddings")
    built = build_gallery(source, tmp_path / "gallery", budget=Budget.parse("recall=0.9"))
    assert built.count == 30
    assert built.selection is not None
    assert built.selection.measured.recipe is None
    with pytest.raises(InputError, match="no index keeps the budget"):
        build_gallery(source, tmp_path / "other", budget=Budget.parse("memory=10B"))
    assert not (tmp_path / "other").exists()
