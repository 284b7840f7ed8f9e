"""A source lists images in a stable order, with ids, labels and readable bytes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vssl.errors import ImageError, InputError
from vssl.images.items import ImageSource, natural_key
from vssl.images.readers import folders
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


class TestFolder:
    def test_ids_are_relative_paths_and_labels_the_folders(self, tmp_path: Path) -> None:
        write(tmp_path, "b/img_10.png", "b/img_2.png", "a/deep/x.png", "top.png")
        found = open_source(tmp_path)
        assert ids(found) == ["top.png", "a/deep/x.png", "b/img_2.png", "b/img_10.png"]
        assert [item.label for item in found.items] == [None, "deep", "b", "b"]
        assert found.items[0].path == str(tmp_path / "top.png")
        assert found.read(2) == b"b/img_2.png"

    def test_hidden_names_are_passed_over(self, tmp_path: Path) -> None:
        write(tmp_path, ".DS_Store", ".git/config", "a.png")
        assert ids(open_source(tmp_path)) == ["a.png"]

    def test_links_to_files_are_followed_and_links_to_folders_are_not(self, tmp_path: Path) -> None:
        write(tmp_path, "in/a.png", "elsewhere/b.png")
        (tmp_path / "in" / "link.png").symlink_to(tmp_path / "elsewhere" / "b.png")
        (tmp_path / "in" / "folder").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
        found = open_source(tmp_path / "in")
        assert ids(found) == ["a.png", "link.png"]
        assert found.read(1) == b"elsewhere/b.png"

    def test_a_broken_link_is_an_item_that_cannot_be_read(self, tmp_path: Path) -> None:
        write(tmp_path, "a.png")
        (tmp_path / "b.png").symlink_to(tmp_path / "nowhere")
        found = open_source(tmp_path)
        assert ids(found) == ["a.png", "b.png"]
        with pytest.raises(ImageError, match="No such file"):
            found.read(1)

    @pytest.mark.skipif(sys.platform != "linux", reason="names that are no UTF-8")
    def test_names_that_are_no_utf8_can_be_written_anywhere(self, tmp_path: Path) -> None:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes(b"x")
        found = open_source(tmp_path)
        assert ids(found) == ["caf\\xe9.png"]
        assert found.items[0].path.encode("utf-8")
        assert found.read(0) == b"x"

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(ImageError, match="not a regular file"):
            open_source(tmp_path).read(0)

    def test_a_huge_file_is_never_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, "a.png", "longer.png")
        monkeypatch.setattr(folders, "MAX_FILE_BYTES", 5)
        found = open_source(tmp_path)
        assert found.read(0) == b"a.png"
        with pytest.raises(ImageError, match="found 10 bytes, expected at most 5") as caught:
            found.read(1)
        assert caught.value.code == "too_many_bytes"

    def test_an_empty_folder_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="holds no files; expected a folder of images"):
            open_source(tmp_path)


def test_one_file_is_a_source_of_one(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    found = open_source(tmp_path / "a.png")
    assert (ids(found), found.items[0].label, found.read(0)) == (["a.png"], None, b"a.png")


@pytest.mark.parametrize("spec", ["nowhere", "list:"])
def test_what_is_not_there_says_what_could_be(tmp_path: Path, spec: str) -> None:
    with pytest.raises(InputError, match=r"no images at.*expected an image folder"):
        open_source(f"{tmp_path}/{spec}" if spec == "nowhere" else spec)


class TestList:
    def test_lines_are_paths_beside_the_list(self, tmp_path: Path) -> None:
        write(tmp_path, "cats/a.png", "b.png")
        (tmp_path / "list.txt").write_text("b.png\n\ncats/a.png\r\n")
        found = open_source(f"list:{tmp_path}/list.txt")
        assert ids(found) == ["b.png", "cats/a.png"]
        assert [item.label for item in found.items] == [None, "cats"]
        assert found.read(1) == b"cats/a.png"

    def test_json_lines_name_id_and_label(self, tmp_path: Path) -> None:
        write(tmp_path, "x/a.png")
        entry = {"path": "x/a.png", "id": "seven", "label": "7"}
        (tmp_path / "list.jsonl").write_text(json.dumps(entry) + "\n")
        found = open_source(f"list:{tmp_path}/list.jsonl")
        assert (found.items[0].id, found.items[0].label, found.read(0)) == ("seven", "7", b"x/a.png")

    @pytest.mark.parametrize(
        ("text", "message"),
        [("", "is empty"), ("a\na\n", "names an id twice"), (None, "cannot read the list")],
    )
    def test_what_is_no_list_is_refused(self, tmp_path: Path, text: str | None, message: str) -> None:
        if text is not None:
            (tmp_path / "list.txt").write_text(text)
        with pytest.raises(InputError, match=message):
            open_source(f"list:{tmp_path}/list.txt")
