"""A large gallery is opened without reading its vectors, and answers, follows and recovers as any other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from index.gallery.folder import index_cache
from index.gallery.folder.gallery import FolderGallery
from index.gallery.folder.store import Store
from index.search import approximate, exact
from index.search.approximate import Recipe
from tests.index.brute import raw, with_recipe
from tests.index.samples import MODEL, card, gaussians, mapped_files, part, sample
from vssl.embeddings.store import Rows
from vssl.errors import FormatError

ROWS, QUERIES = sample(300), gaussians(6, seed=11)
VECTORS = {"mean.npy", "variance.npy"}
KINDS = [None, Recipe("hnsw", 200, 100), Recipe("ivf", 40, 100)]


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (approximate, index_cache, exact):
        monkeypatch.setattr(module, "MAPPED", 0)


def made(path: Path, recipe: Recipe | None, distance: str = "expected") -> Path:
    with FolderGallery.create(path, card=card(), model_id=MODEL, distance=distance) as gallery:
        gallery.add(part(ROWS, slice(0, 200)))
    if recipe is not None:
        with_recipe(path, recipe)
        with FolderGallery.open(path) as gallery:
            gallery.save()
    return path


def answers(gallery: FolderGallery, **options: object) -> list[list[tuple[str, str | None, str, float]]]:
    found = gallery.search(QUERIES, 7, **options)  # type: ignore[arg-type]
    return [[(n.id, n.label, n.path, n.distance) for n in one.neighbours] for one in found]


def fresh_answers(path: Path, **options: object) -> list[list[tuple[str, str | None, str, float]]]:
    """What the store says when no index was saved."""
    for folder in (path / "derived").iterdir():
        folder.rename(path / folder.name)
    try:
        with FolderGallery.open(path, read_only=True) as gallery:
            assert not mapped_files(path / "derived")
            return answers(gallery, **options)
    finally:
        for folder in path.glob("*-0*"):
            folder.rename(path / "derived" / folder.name)


@pytest.mark.parametrize("recipe", KINDS, ids=lambda r: r.kind if r else "exact")
def test_vectors_are_mapped_and_not_read_from_the_store(tmp_path: Path, recipe: Recipe | None) -> None:
    """Reading damaged vectors from the store is an error; a search of mapped ones does not notice them."""
    path = made(tmp_path / "gallery", recipe)
    expected = fresh_answers(path)
    with raw(path / "store.db") as store:
        store.execute("UPDATE vectors SET mean = variance")
    with FolderGallery.open(path, read_only=True) as gallery:
        assert gallery.damage is None
        assert mapped_files(path / "derived") == VECTORS | {"candidates.faiss" if recipe else "exact.faiss"}
        assert answers(gallery) == expected
        with pytest.raises(FormatError, match="do not match their checksum"):
            gallery.get("i7")


@pytest.mark.parametrize("recipe", KINDS, ids=lambda r: r.kind if r else "exact")
def test_changes_after_opening_are_followed(tmp_path: Path, recipe: Recipe | None) -> None:
    path = made(tmp_path / "gallery", recipe)
    with FolderGallery.open(path) as gallery, FolderGallery.open(path, read_only=True) as reader:
        gallery.add(part(ROWS, slice(200, 280)))
        gallery.remove(ROWS.ids[10:20])
        replaced = Rows(ROWS.ids[:3], ["new"] * 3, [None] * 3, QUERIES[:3])
        gallery.add(replaced, replace=True)
        expected = answers(gallery)
        assert expected[0][0][:3] == ("i0", None, "new")
        assert answers(reader) == expected
        assert mapped_files(path / "derived") >= VECTORS
        assert answers(reader, distance="cosine") == answers(gallery, distance="cosine")
    assert fresh_answers(path) == expected
    with FolderGallery.open(path, read_only=True) as again:
        assert answers(again) == expected
        assert mapped_files(path / "derived") >= VECTORS


@pytest.mark.parametrize("recipe", KINDS, ids=lambda r: r.kind if r else "exact")
def test_rows_that_came_after_the_last_save_are_read(tmp_path: Path, recipe: Recipe | None) -> None:
    path = made(tmp_path / "gallery", recipe)
    writer = FolderGallery.open(path)
    writer.add(part(ROWS, slice(200, 280)))
    expected = answers(writer)
    with FolderGallery.open(
        path, read_only=True
    ) as gallery:  # the writer is not closed yet: nothing was saved
        assert mapped_files(path / "derived") >= VECTORS
        assert answers(gallery) == expected
    writer.close()


def test_a_gallery_that_lost_rows_after_the_last_save_is_answered_rightly(tmp_path: Path) -> None:
    for recipe in KINDS:
        path = made(tmp_path / f"gallery-{recipe.kind if recipe else 'exact'}", recipe)
        records = Store(path / "store.db")
        records.remove(ROWS.ids[:30])
        records.close()
        with FolderGallery.open(path, read_only=True) as gallery:
            assert (mapped_files(path / "derived") >= VECTORS) == (
                recipe is not None
            )  # a graph may hold rows that went
            assert answers(gallery) == fresh_answers(path)
            assert len(gallery) == 170


@pytest.mark.parametrize("harm", ["flip", "delete", "extra", "older"])
def test_saved_vectors_that_are_damaged_or_of_another_store_are_passed_over(
    tmp_path: Path, harm: str
) -> None:
    path = made(tmp_path / "gallery", None)
    (saved,) = (path / "derived").iterdir()
    file = saved / "index" / "mean.npy"
    if harm == "flip":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(bytes(data))
    elif harm == "delete":
        file.unlink()
    elif harm == "older":  # rows that went
        records = Store(path / "store.db")
        records.add(part(ROWS, slice(0, 1)), replace=True)
        records.close()
    else:  # the same row numbers hold other vectors
        with FolderGallery.create(
            tmp_path / "other", card=card(), model_id=MODEL, distance="expected"
        ) as other:
            other.add(sample(200, seed=8))
        shutil.rmtree(path / "derived")
        shutil.copytree(tmp_path / "other" / "derived", path / "derived")
    expected = fresh_answers(path)
    with FolderGallery.open(path, read_only=True) as gallery:
        assert not mapped_files(path / "derived")
        assert (gallery.damage is None) == (harm in ("older", "extra"))
        assert answers(gallery) == expected


def test_a_store_without_the_list_of_checksums_is_opened_too(tmp_path: Path) -> None:
    path = made(tmp_path / "gallery", None)
    expected = fresh_answers(path)
    with raw(path / "store.db") as store:
        store.execute("DROP INDEX checksums")  # as an earlier version wrote it
    with FolderGallery.open(path, read_only=True) as gallery:
        assert mapped_files(path / "derived") >= VECTORS
        assert answers(gallery) == expected
    with FolderGallery.open(path) as writer:
        writer.compact()
        with raw(path / "store.db") as store:
            plan = store.execute("EXPLAIN QUERY PLAN SELECT row, crc FROM vectors ORDER BY row").fetchone()
        assert "COVERING INDEX checksums" in plan[-1], "compaction writes the list"
        assert answers(writer) == expected
