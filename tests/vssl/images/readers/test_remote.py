"""URLs are sources: an object store lists and reads as a disk does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vssl.images.readers.test_archives import pack
from vssl.errors import ImageError, InputError
from vssl.images.sources import open_source

fsspec = pytest.importorskip("fsspec")

NAMES = ["top.png", "b/img_10.png", "b/img_2.png", "a/deep/x.png", "a/.hidden", ".git/config", "c/1/2/3.png"]


@pytest.fixture
def store() -> Iterator[object]:
    """A memory:// file system of its own, emptied afterwards."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_a_folder_lists_as_on_a_disk(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    for name in NAMES:
        store.pipe_file(f"/bucket/photos/{name}", name.encode())
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    remote, local = open_source("memory://bucket/photos"), open_source(tmp_path)
    assert [(i.id, i.label) for i in remote.items] == [(i.id, i.label) for i in local.items]
    assert [remote.read(r) for r in range(5)] == [local.read(r) for r in range(5)]
    assert remote.items[0].path == "memory://bucket/photos/top.png"


def test_one_object_is_a_source_of_one(store: fsspec.AbstractFileSystem) -> None:
    store.pipe_file("/bucket/a/b.png", b"x")
    found = open_source("memory://bucket/a/b.png")
    assert ([(i.id, i.label) for i in found.items], found.read(0)) == ([("b.png", None)], b"x")


def test_shards_are_read_by_range(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    for n in range(3):
        path = pack(tmp_path / f"s-{n}.tar", {"k.jpg": b"image %d" % n, "k.cls": b"%d" % n})
        store.pipe_file(f"/bucket/s-{n}.tar", path.read_bytes())
    for spec in ("memory://bucket/s-{0..2}.tar", "memory://bucket/s-*.tar"):
        found = open_source(spec)
        assert [(i.id, i.label) for i in found.items] == [(f"s-{n}.tar/k.jpg", str(n)) for n in range(3)]
        assert found.read(2) == b"image 2"
        assert found.items[1].path == "memory://bucket/s-1.tar/k.jpg"


def test_a_stamp_changes_with_the_object(store: fsspec.AbstractFileSystem) -> None:
    store.pipe_file("/bucket/a.png", b"one")
    before = open_source("memory://bucket").stamp(0)  # type: ignore[attr-defined]
    assert open_source("memory://bucket").stamp(0) == before  # type: ignore[attr-defined]
    store.pipe_file("/bucket/a.png", b"three")
    assert open_source("memory://bucket").stamp(0) != before  # type: ignore[attr-defined]


def test_an_object_that_vanished_is_an_error_of_its_own(store: fsspec.AbstractFileSystem) -> None:
    store.pipe_file("/bucket/a.png", b"one")
    found = open_source("memory://bucket")
    store.rm("/bucket/a.png")
    with pytest.raises(ImageError, match="cannot be fetched"):
        found.read(0)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://nowhere", "no images at|cannot list"),
        ("memory://nowhere/x-*.tar", "no tar file at"),
        ("gopher://x/y", "cannot open 'gopher://x/y'.*gopher"),
    ],
)
def test_what_is_not_there_is_refused(store: fsspec.AbstractFileSystem, url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_source(url)
