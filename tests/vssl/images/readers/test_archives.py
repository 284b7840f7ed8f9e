"""Tar shards are sources: members by offset, labels by folder or by sidecar."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from vssl.errors import ImageError, InputError
from vssl.images.items import ImageSource, expand
from vssl.images.sources import open_source

PHOTOS = Path(__file__).resolve().parents[4] / ".." / "shared" / "data" / "photos_clothing_cc0.tar"


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def ids(source: ImageSource) -> list[str]:
    return [item.id for item in source.items]


def test_members_are_read_in_place(tmp_path: Path) -> None:
    members = {"cats/a.jpg": b"a" * 700, "b.png": b"b", "cats/.hidden": b"h", "notes": b"n"}
    found = open_source(pack(tmp_path / "x.tar", members))
    assert ids(found) == ["cats/a.jpg", "b.png", "notes"]
    assert [item.label for item in found.items] == ["cats", None, None]
    assert [found.read(row) for row in range(3)] == [b"a" * 700, b"b", b"n"]
    assert found.items[0].path == f"{tmp_path}/x.tar/cats/a.jpg"


def test_a_webdataset_sample_is_one_image_with_its_label(tmp_path: Path) -> None:
    members = {}
    for n in range(3):
        members |= {
            f"s{n}.jpg": b"i%d" % n,
            f"s{n}.cls": b"%d\n" % (n + 4),
            f"s{n}.json": b"{}",
            f"s{n}.txt": b"t",
        }
    found = open_source(pack(tmp_path / "x.tar", members))
    assert ids(found) == ["s0.jpg", "s1.jpg", "s2.jpg"]
    assert [item.label for item in found.items] == ["4", "5", "6"]
    assert found.read(1) == b"i1"


def test_many_shards_are_one_source(tmp_path: Path) -> None:
    for n in (8, 9, 10, 11):
        pack(tmp_path / f"shard-{n:02d}.tar", {"a.jpg": b"%d" % n})
    found = open_source(f"{tmp_path}/shard-{{08..10}}.tar")
    assert ids(found) == ["shard-08.tar/a.jpg", "shard-09.tar/a.jpg", "shard-10.tar/a.jpg"]
    assert [found.read(row) for row in range(3)] == [b"8", b"9", b"10"]
    assert len(open_source(f"{tmp_path}/shard-*.tar").items) == 4


def test_ranges_expand_with_their_zeros() -> None:
    assert expand("a") == ["a"]
    assert expand("a{9..11}b") == ["a9b", "a10b", "a11b"]
    assert expand("{0..1}-{08..09}.tar") == ["0-08.tar", "0-09.tar", "1-08.tar", "1-09.tar"]


def test_of_two_members_of_one_name_the_later_counts(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for data in (b"old", b"newer"):
            info = tarfile.TarInfo("a.jpg")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    found = open_source(tmp_path / "x.tar")
    assert (ids(found), found.read(0)) == (["a.jpg"], b"newer")


def test_shards_of_one_name_lose_nothing(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        pack(tmp_path / folder / "000.tar", {"x.jpg": folder.encode()})
    found = open_source(f"{tmp_path}/*/000.tar")
    assert ids(found) == [f"{tmp_path}/{folder}/000.tar/x.jpg" for folder in ("a", "b")]
    assert [found.read(row) for row in range(2)] == [b"a", b"b"]


def test_links_are_the_members_that_they_name(tmp_path: Path) -> None:
    links = {
        "x/hard.jpg": (tarfile.LNKTYPE, "x/0.jpg"),
        "y/soft.jpg": (tarfile.SYMTYPE, "../x/0.jpg"),
        "y/again.jpg": (tarfile.SYMTYPE, "soft.jpg"),
        "y/gone.jpg": (tarfile.SYMTYPE, "/nowhere.jpg"),
        "y/loop.jpg": (tarfile.SYMTYPE, "loop.jpg"),
        "folder": (tarfile.SYMTYPE, "x"),
    }
    pack(tmp_path / "x.tar", {"x/0.jpg": b"picture"})
    with tarfile.open(tmp_path / "x.tar", "a") as tar:
        for name, (kind, target) in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    found = open_source(tmp_path / "x.tar")
    assert ids(found) == ["x/0.jpg", *list(links)[:5]]
    assert [found.read(row) for row in range(4)] == [b"picture"] * 4
    for row in (4, 5):
        with pytest.raises(ImageError, match="not in the archive"):
            found.read(row)


def test_what_systems_leave_behind_is_no_member(tmp_path: Path) -> None:
    names = ["a.jpg", "._a.jpg", "__MACOSX/._a.jpg", "__MACOSX/a.jpg", "Thumbs.db", ".cache/b.jpg", "./c.jpg"]
    assert ids(open_source(pack(tmp_path / "x.tar", dict.fromkeys(names, b"b")))) == ["a.jpg", "./c.jpg"]


@pytest.mark.parametrize("suffix", ["heic", "HEIF", "jfif", "avif"])
def test_every_kind_of_image_has_its_sidecars(tmp_path: Path, suffix: str) -> None:
    found = open_source(pack(tmp_path / "x.tar", {f"1.{suffix}": b"i", "1.cls": b"7", "1.json": b"{}"}))
    assert [(item.id, item.label) for item in found.items] == [(f"1.{suffix}", "7")]


@pytest.mark.parametrize("name", ["x.zip", "x.7z", "x.RAR", "x.tar.gz", "x.tbz2"])
def test_other_archives_are_to_be_unpacked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(InputError, match="unpack it"):
        open_source(tmp_path / name)


@pytest.mark.parametrize("spec", ["{0..999999999}.tar", "{0..999}-{0..999}.tar", "{2..1}.tar"])
def test_ranges_of_nothing_or_of_too_much_are_refused(spec: str) -> None:
    with pytest.raises(InputError, match="names no path, or too many"):
        open_source(spec)


def test_a_stamp_changes_with_the_shard(tmp_path: Path) -> None:
    before = open_source(pack(tmp_path / "x.tar", {"a.jpg": b"1", "b.jpg": b"2"}))
    after = open_source(pack(tmp_path / "x.tar", {"a.jpg": b"1", "b.jpg": b"3"}))
    assert before.stamp(0) != before.stamp(1)  # type: ignore[attr-defined]
    assert before.stamp(0) != after.stamp(0)  # type: ignore[attr-defined]


class TestRefusals:
    def test_a_compressed_archive(self) -> None:
        with pytest.raises(InputError, match=r"compressed.*tar cf"):
            open_source("photos.tar.gz")

    @pytest.mark.parametrize("spec", ["absent.tar", "absent-*.tar", "absent-{0..3}.tar"])
    def test_an_absent_one(self, tmp_path: Path, spec: str) -> None:
        with pytest.raises(InputError, match="no tar file at"):
            open_source(f"{tmp_path}/{spec}")

    @pytest.mark.parametrize("keep", [700, 1400, 1536, 1700, 2100, 3072])
    def test_one_that_is_cut_short(self, tmp_path: Path, keep: int) -> None:
        path = pack(tmp_path / "x.tar", {"a.jpg": b"a" * 600, "b.jpg": b"b" * 600})
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(InputError, match="fetch it again"):
            open_source(path)

    def test_what_is_no_tar(self, tmp_path: Path) -> None:
        (tmp_path / "x.tar").write_bytes(b"hello" * 300)
        with pytest.raises(InputError, match="no readable tar"):
            open_source(tmp_path / "x.tar")

    def test_one_without_files(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="found no files"):
            open_source(pack(tmp_path / "x.tar", {}))

    def test_a_shard_that_vanished_meanwhile(self, tmp_path: Path) -> None:
        found = open_source(pack(tmp_path / "x.tar", {"a.jpg": b"1"}))
        (tmp_path / "x.tar").unlink()
        with pytest.raises(ImageError, match="cannot be read"):
            found.read(0)


@pytest.mark.skipif(not PHOTOS.exists(), reason="needs photos_clothing_cc0.tar next to the checkout")
def test_real_photos_read_as_tarfile_reads_them() -> None:
    found = open_source(PHOTOS)
    with tarfile.open(PHOTOS) as tar:
        for row in range(0, len(found.items), 97):
            file = tar.extractfile(found.items[row].id)
            assert file is not None
            assert found.read(row) == file.read()
    assert {"t-shirt", "dress", "hat"} <= {str(item.label) for item in found.items}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_label_may_be_saved_in_any_encoding_that_says_so(tmp_path: Path, encoding: str) -> None:
    found = open_source(pack(tmp_path / "x.tar", {"1.jpg": b"i", "1.cls": "Käfer\r\n".encode(encoding)}))
    assert [item.label for item in found.items] == ["Käfer"]


@pytest.mark.parametrize("data", ["cat".encode("utf-16-le"), b"\xff\xfec"], ids=["without a mark", "cut"])
def test_a_label_that_is_no_text_is_named(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match=r"x\.tar/1\.cls .*save it as UTF-8"):
        open_source(pack(tmp_path / "x.tar", {"1.jpg": b"i", "1.cls": data}))
