"""A source lists images in a stable order, with ids, labels and readable bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vssl.errors import InputError
from vssl.images.items import ImageSource, natural_key
from vssl.images.sources import open_source


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def ids(source: ImageSource) -> list[str]:
    return [item.id for item in source.items]


class TestOrder:
    def test_numbers_count_by_value(self) -> None:
        names = ["img_10", "img_2", "img_1b", "img_1", "a", "10", "9"]
        assert sorted(names, key=natural_key) == ["9", "10", "a", "img_1", "img_1b", "img_2", "img_10"]

    @given(st.lists(st.text(max_size=6), max_size=6))
    def test_any_names_have_an_order(self, names: list[str]) -> None:
        backwards = names[::-1]
        assert sorted(backwards, key=natural_key) == sorted(names, key=natural_key)

    @given(st.lists(st.integers(0, 10**12), max_size=8))
    def test_numbered_files_come_in_the_order_of_their_numbers(self, numbers: list[int]) -> None:
        names = [f"part-{n}.png" for n in numbers]
        assert sorted(names, key=natural_key) == [f"part-{n}.png" for n in sorted(numbers)]


def test_one_file_is_a_source_of_one(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    found = open_source(tmp_path / "a.png")
    assert (ids(found), found.items[0].label, found.read(0)) == (["a.png"], None, b"a.png")


def test_two_names_that_read_alike_are_not_one_id(tmp_path: Path) -> None:
    for name in (b"bad\xff.jpg", b"bad\\xff.jpg"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    with pytest.raises(InputError, match=r"two names below .* rename it"):
        open_source(tmp_path)


@pytest.mark.parametrize("spec", ["nowhere", "list:"])
def test_what_is_not_there_says_what_could_be(tmp_path: Path, spec: str) -> None:
    with pytest.raises(InputError, match=r"no images at.*expected an image folder"):
        open_source(f"{tmp_path}/{spec}" if spec == "nowhere" else spec)


def test_a_file_that_is_not_there_names_one_that_is(tmp_path: Path) -> None:
    write(tmp_path, "dress/one.jpg", "dress/photo-07.jpg")
    with pytest.raises(
        InputError, match=r"no images at .*/dress/photo-7.jpg'.*\(there is '.*/dress/photo-07.jpg'\)"
    ):
        open_source(tmp_path / "dress" / "photo-7.jpg")
    with pytest.raises(InputError, match=r"\(there is '.*/dress/one.jpg'\)"):
        open_source(tmp_path / "dress" / "unlike.png")
    with pytest.raises(InputError, match="found no such file or folder; expected"):
        open_source(tmp_path / "nowhere" / "one.jpg")


@pytest.mark.parametrize("spec", ["data:image/png;base64,AAAA", "data:image/png;base64," + "A" * 100_000])
def test_a_data_uri_is_refused_as_a_path(spec: str) -> None:
    with pytest.raises(InputError, match="found the data URI") as caught:
        open_source(spec)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("kind", ["", "list:", "parquet:", "cifar10:"])
@pytest.mark.parametrize(
    "path", ["~nosuchuser/x", "a" * 5000, "a\0b"], ids=["no user", "too long", "zero byte"]
)
def test_what_can_be_no_path_is_one_sentence(kind: str, path: str) -> None:
    with pytest.raises(InputError) as caught:
        open_source(kind + path)
    assert len(str(caught.value)) < 400
