"""A file is the old one or the whole new one, on the disk before it gets its name; locks keep processes apart."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from vssl.errors import InputError
from vssl.files import (
    atomic_folder,
    atomic_write,
    flush,
    is_free,
    own_names,
    put_in_place,
    read_text,
    take_lock,
    user_path,
    write_bytes,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as file:
        file.write(b"first half, ")
        assert not path.exists()
        file.write(b"second half")
    assert path.read_bytes() == b"first half, second half"
    assert names(tmp_path) == ["file"]


def test_when_writing_fails_the_old_file_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail_half_way() -> None:
        with atomic_write(path) as file:
            file.write(b"half of the n")
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path, versions = tmp_path / "file", [bytes([n]) * 200_000 for n in range(2)]
    write_bytes(path, versions[0])
    stop, seen = threading.Event(), set[bytes]()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(60):
        write_bytes(path, versions[turn % 2])
    stop.set()
    reader.join()
    assert seen <= set(versions)


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed, real = [], os.fsync

    def record(handle: int) -> None:
        flushed.append((Path(f"/proc/self/fd/{handle}").resolve().name, (tmp_path / "file").exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", record)
    write_bytes(tmp_path / "file", b"data")
    assert flushed == [(".file.tmp", False), (tmp_path.name, True)]


def test_json_is_read_back_and_its_keys_are_sorted(tmp_path: Path) -> None:
    write_json(tmp_path / "values.json", {"b": [1.5, "é"], "a": None})
    text = (tmp_path / "values.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": None, "b": [1.5, "é"]}
    assert text.index('"a"') < text.index('"b"')


def test_a_folder_is_put_in_place_whole(tmp_path: Path) -> None:
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "inner").write_bytes(b"x")
    flush(tmp_path / "partial" / "inner")
    put_in_place(tmp_path / "partial", tmp_path / "final")
    assert (tmp_path / "final" / "inner").read_bytes() == b"x"
    assert names(tmp_path) == ["final"]


HOLD = """
import sys
from pathlib import Path
from vssl.files import take_lock
take_lock(Path(sys.argv[1]), shared=sys.argv[2] == "shared")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("target", ["folder", "lockfile"])
@pytest.mark.parametrize("kind", ["shared", "alone"])
def test_a_lock_holds_between_processes_and_ends_with_its_holder(
    tmp_path: Path, target: str, kind: str
) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / target
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), kind],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            take_lock(path)
        if kind == "shared":
            os.close(take_lock(path, shared=True))
        else:
            with pytest.raises(BlockingIOError):
                take_lock(path, shared=True)
        holder.kill()
        os.close(take_lock(path, wait=True))


FILL = """
import sys
from pathlib import Path
from vssl.files import atomic_folder
with atomic_folder(Path(sys.argv[1])) as partial:
    (partial / "half").write_bytes(b"half")
    print(partial.name, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no locks on folders")
def test_where_folders_cannot_be_locked_a_folder_to_fill_is_empty_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, kind: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr("fcntl.flock", refuse)  # as some network disks do
    left = tmp_path / f".g.{os.getpid()}.tmp"  # in a container, each process may have the same number
    left.mkdir()
    (left / "of_another").write_text("half")
    with atomic_folder(tmp_path / "g") as folder:
        assert names(folder) == []
        write_bytes(folder / "own", b"whole")
    assert (names(tmp_path), names(tmp_path / "g")) == (["g"], ["own"])


def test_a_folder_that_a_killed_process_left_is_removed_by_the_next_and_one_being_filled_is_not(
    tmp_path: Path,
) -> None:
    others = [".folder.mine.tmp", ".folder.old.1.tmp", "folder.7.tmp"]
    for other in others:
        (tmp_path / other).mkdir()
    killed, filling = (
        subprocess.Popen(
            [sys.executable, "-c", FILL, str(tmp_path / "folder")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    )  # fmt: skip
    with killed, filling:
        assert killed.stdout is not None
        assert filling.stdout is not None
        left, kept = killed.stdout.readline().strip(), filling.stdout.readline().strip()
        killed.kill()
        killed.wait()
        assert names(tmp_path) == sorted([*others, left, kept])
        with atomic_folder(tmp_path / "other"):  # of another name: not its business
            pass
        assert left in names(tmp_path)
        with suppress(RuntimeError), atomic_folder(tmp_path / "folder") as partial:
            assert names(tmp_path) == sorted([*others, kept, "other", partial.name])
            raise RuntimeError("disk on fire")
        assert names(tmp_path) == sorted([*others, kept, "other"])
        filling.communicate("")
    assert filling.returncode == 0
    assert names(tmp_path) == sorted([*others, "folder", "other"])
    assert (tmp_path / "folder" / "half").read_bytes() == b"half"


def test_a_folder_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(path: Path, **options: bool) -> int:
        monkeypatch.undo()
        path.rmdir()  # as by another process, which takes it for abandoned
        return take_lock(path, **options)

    monkeypatch.setattr("vssl.files.take_lock", late)
    with atomic_folder(tmp_path / "g") as folder:
        write_bytes(folder / "own", b"whole")
    assert (names(tmp_path), names(tmp_path / "g")) == (["g"], ["own"])


class TestOutputsThatAreFree:
    @pytest.mark.parametrize("left", [[], ["lost+found/"], [".DS_Store", "Thumbs.db", "desktop.ini", "._x"]])
    def test_a_folder_of_leftovers_is_free_and_can_be_filled(self, tmp_path: Path, left: list[str]) -> None:
        partial, final = tmp_path / "new", tmp_path / "out"
        final.mkdir()
        for name in left:
            (final / name).mkdir() if name.endswith("/") else (final / name).write_bytes(b"system")
        (partial / "inner").mkdir(parents=True)
        (partial / "inner" / "a").write_bytes(b"a")
        assert (is_free(final), own_names(final)) == (True, [])
        put_in_place(partial, final)
        assert (final / "inner" / "a").read_bytes() == b"a"
        assert not partial.exists()
        assert {name.rstrip("/") for name in left} <= set(names(final))
        assert (is_free(final), own_names(final)) == (False, ["inner"])

    def test_what_someone_put_there_is_not_free(self, tmp_path: Path) -> None:
        assert is_free(tmp_path / "nothing")
        (tmp_path / "file").write_bytes(b"")
        (tmp_path / "link").symlink_to("nowhere")
        assert not is_free(tmp_path)
        assert not is_free(tmp_path / "file")
        assert not is_free(tmp_path / "link")

    def test_a_folder_with_files_is_never_filled(self, tmp_path: Path) -> None:
        partial, final = tmp_path / "new", tmp_path / "out"
        for folder, name in ((partial, "a"), (final, "theirs")):
            folder.mkdir()
            (folder / name).write_bytes(b"")
        with pytest.raises(OSError, match="not empty"):
            put_in_place(partial, final)
        assert names(final) == ["theirs"]


class TestPathsOfAPerson:
    def test_a_tilde_is_the_home_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert user_path("~/a/b") == tmp_path / "a" / "b"
        assert user_path(tmp_path / "not" / "there") == tmp_path / "not" / "there"

    @pytest.mark.parametrize("given", ["~nosuchuser/x", "a" * 5000, "a\0b", "x" * 100_000])
    def test_what_can_be_no_path_is_refused_in_one_sentence(self, given: str) -> None:
        with pytest.raises(InputError) as caught:
            user_path(given)
        assert len(str(caught.value)) < 250

    def test_a_link_to_itself_is_no_path(self, tmp_path: Path) -> None:
        (tmp_path / "loop").symlink_to("loop")
        with pytest.raises(InputError, match="symbolic links"):
            user_path(tmp_path / "loop")


class TestTexts:
    @pytest.mark.parametrize(
        ("mark", "how"),
        [(b"", "utf-8"), (b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"),
         (b"\xff\xfe\0\0", "utf-32-le"), (b"\0\0\xfe\xff", "utf-32-be")],
    )  # fmt: skip
    @pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
    def test_any_editor_may_have_saved_it(self, tmp_path: Path, mark: bytes, how: str, ends: str) -> None:
        path = tmp_path / "text"
        path.write_bytes(mark + f"é{ends}漢 \u2028 {ends}".encode(how))
        assert read_text(path, "the text") == "é\n漢 \u2028 \n"

    def test_another_encoding_is_named_with_its_line(self, tmp_path: Path) -> None:
        path = tmp_path / "text"
        path.write_bytes("ab\ncd\ncafé".encode("cp1252"))
        with pytest.raises(InputError, match=r"the text .* line 3 is no UTF-8 text; save the file as UTF-8"):
            read_text(path, "the text")
        assert read_text(path, "the text", errors="surrogateescape") == "ab\ncd\ncaf\udce9"

    @pytest.mark.parametrize("data", ["ab".encode("utf-16-le"), b"\xff\xfea"], ids=["no mark", "half"])
    def test_what_is_no_text_is_refused(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "text").write_bytes(data)
        with pytest.raises(InputError, match="save the file as UTF-8"):
            read_text(tmp_path / "text", "the text")

    def test_a_folder_or_nothing_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"cannot read the keys .*directory"):
            read_text(tmp_path, "the keys")
        with pytest.raises(InputError, match=r"cannot read the keys .*No such file"):
            read_text(tmp_path / "none", "the keys")
