"""Files on disk: a folder, one file or a list, in a stable order, with ids, labels and readable bytes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.deep_folder import deep_folder
from vssl.errors import ImageError, InputError
from vssl.images import items
from vssl.images.items import ImageSource
from vssl.images.sources import open_source


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def ids(source: ImageSource) -> list[str]:
    return [item.id for item in source.items]


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
        monkeypatch.setattr(items, "MAX_FILE_BYTES", 5)
        found = open_source(tmp_path)
        assert found.read(0) == b"a.png"
        with pytest.raises(ImageError, match="found 10 bytes, expected at most 5") as caught:
            found.read(1)
        assert caught.value.code == "too_many_bytes"

    def test_what_systems_leave_behind_is_passed_over(self, tmp_path: Path) -> None:
        write(
            tmp_path, "a.png", "Thumbs.db", "desktop.ini", "lost+found/x", "__MACOSX/a.png", "b/@eaDir/t.jpg"
        )
        write(tmp_path, "b/._c.png", "b/c.png")
        assert ids(open_source(tmp_path)) == ["a.png", "b/c.png"]

    def test_a_link_to_itself_is_an_item_that_cannot_be_read(self, tmp_path: Path) -> None:
        write(tmp_path, "a.png", "z.png")
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "ping").symlink_to("pong")
        (tmp_path / "pong").symlink_to("ping")
        found = open_source(tmp_path)
        assert ids(found) == ["a.png", "loop", "ping", "pong", "z.png"]
        with pytest.raises(ImageError, match="symbolic links") as caught:
            found.read(1)
        assert caught.value.code == "unreadable"

    def test_folders_nest_deeper_than_calls_may(self, tmp_path: Path) -> None:
        with deep_folder(tmp_path / "deep", sys.getrecursionlimit() + 100, b"x") as deep:
            found = open_source(deep)
            assert [name.rpartition("/")[2] for name in ids(found)] == ["top.jpg", "x.jpg"]
            assert found.read(1) == b"x"

    def test_a_folder_that_cannot_be_listed_is_named_and_the_rest_is_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, "a.png", "shut/b.png", "z/c.png")
        listing = os.scandir

        def refusing(folder: str) -> object:
            """Root may list every folder, so the system is asked to refuse in another way."""
            if "shut" in folder:
                raise PermissionError(13, "Permission denied", folder)
            return listing(folder)

        monkeypatch.setattr(os, "scandir", refusing)
        found = open_source(tmp_path)
        assert ids(found) == ["a.png", "shut/", "z/c.png"]
        with pytest.raises(ImageError, match="cannot be read"):
            found.read(1)

    def test_an_empty_folder_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="holds no files; expected a folder of images"):
            open_source(tmp_path)


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

    MARKS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-be-bom")

    def saved(self, path: Path, text: str, how: str) -> None:
        """Write a text as an editor on Windows or elsewhere saves it."""
        data = b"\xfe\xff" + text.encode("utf-16-be") if how.endswith("bom") else text.encode(how)
        path.write_bytes(data)

    @pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("how", MARKS)
    def test_lists_are_read_as_any_editor_saves_them(self, tmp_path: Path, how: str, ends: str) -> None:
        write(tmp_path, "cats/é.png", "b.png")
        self.saved(tmp_path / "list.txt", ends.join(["cats/é.png", "b.png", ""]), how)
        found = open_source(f"list:{tmp_path}/list.txt")
        assert ids(found) == ["cats/é.png", "b.png"]
        assert found.read(0) == "cats/é.png".encode()

    @pytest.mark.parametrize("how", MARKS)
    def test_json_lines_are_too(self, tmp_path: Path, how: str) -> None:
        write(tmp_path, "a.png", "b.png")
        rows = [{"path": f"{n}.png", "id": n, "label": "ä\u2028ö"} for n in "ab"]
        text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        self.saved(tmp_path / "list.jsonl", text, how)
        found = open_source(f"list:{tmp_path}/list.jsonl")
        assert [(item.id, item.label) for item in found.items] == [("a", "ä\u2028ö"), ("b", "ä\u2028ö")]

    def test_names_that_are_no_utf8_stay_as_they_are(self, tmp_path: Path) -> None:
        name = os.fsdecode(b"caf\xe9.png")
        (tmp_path / name).write_bytes(b"x")
        (tmp_path / "list.txt").write_bytes(b"caf\xe9.png\n")
        found = open_source(f"list:{tmp_path}/list.txt")
        assert (ids(found), found.read(0)) == (["caf\\xe9.png"], b"x")

    @pytest.mark.parametrize(
        ("label", "text"),
        [
            (3, "3"),
            (0, "0"),
            (2.5, "2.5"),
            (True, "true"),
            (None, None),
            ("", ""),
            ("é", "é"),
            (10**30, "1" + "0" * 30),
        ],
    )
    def test_a_label_is_a_text_or_becomes_one(self, tmp_path: Path, label: object, text: str | None) -> None:
        (tmp_path / "list.jsonl").write_text(json.dumps({"path": "a", "id": 7, "label": label}))
        found = open_source(f"list:{tmp_path}/list.jsonl").items[0]
        assert (found.id, found.label) == ("7", text)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"label": ["cat", "pet"]}, {"label": {"a": 1}}, {"label": "\ud83d"}, {"label": "x" * 2000},
            {"path": "\ud83d.jpg"}, {"path": ""}, {"path": None},
            {"id": None}, {"id": ["a"]}, {"id": "\udfff\ud800"}, {"id": ""}, {"id": "y" * 2000},
        ],
    )  # fmt: skip
    def test_what_is_no_text_names_its_line(self, tmp_path: Path, wrong: dict[str, object]) -> None:
        lines = [{"path": "a", "id": "a"}, {"path": "b", "id": "b", **wrong}]
        (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
        with pytest.raises(InputError, match="line 2") as caught:
            open_source(f"list:{tmp_path}/list.jsonl")
        assert len(str(caught.value)) < 600

    @pytest.mark.parametrize("line", ["[" * 100_000, '{"path": 1', "[1]", '"a"', '{"id": "a"}', "1" * 5000])
    def test_a_line_that_is_no_object_is_one_sentence(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "list.jsonl").write_text(line)
        with pytest.raises(InputError, match="line 1: found") as caught:
            open_source(f"list:{tmp_path}/list.jsonl")
        assert len(str(caught.value)) < 600

    def test_a_path_with_a_zero_byte_is_an_item_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "list.jsonl").write_text('{"path": "a\\u0000b", "id": "a"}')
        found = open_source(f"list:{tmp_path}/list.jsonl")
        with pytest.raises(ImageError, match="null byte"):
            found.read(0)
