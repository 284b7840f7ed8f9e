"""A file is the old one or the whole new one, on the disk before it gets its name; locks keep processes apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vssl.files import atomic_write, flush, put_in_place, take_lock, write_bytes, write_json


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
