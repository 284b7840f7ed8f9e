"""One writer across processes, named to those it keeps out; readers and a writer between threads."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from index.gallery.folder.locks import LockedError, ReadWriteLock, WriterLock
from tests.serve.running import until

HOLD = """
import sys
from pathlib import Path
from index.gallery.folder.locks import WriterLock
lock = WriterLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_writer_learns_which_process_is_the_first(tmp_path: Path) -> None:
    path = tmp_path / "writer.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=rf"by process {holder.pid} on .+ since 20\d\d-"):
            WriterLock(path)
        holder.kill()
    WriterLock(path).release()  # the system let go with the process


def test_the_same_process_is_refused_too(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "writer.lock")
    assert json.loads((tmp_path / "writer.lock").read_text())["pid"] == os.getpid()
    with pytest.raises(LockedError, match=f"this process {os.getpid()} .*; close it there"):
        WriterLock(tmp_path / "writer.lock")
    lock.release()
    lock.release()
    WriterLock(tmp_path / "writer.lock").release()


def test_a_lock_file_with_nothing_legible_still_locks(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "writer.lock")
    (tmp_path / "writer.lock").write_text("?")
    with pytest.raises(LockedError, match="another process"):
        WriterLock(tmp_path / "writer.lock")
    lock.release()


def test_readers_share_and_a_writer_is_alone() -> None:
    lock, inside, seen = ReadWriteLock(), set(), []
    leave = threading.Event()

    def read() -> None:
        with lock.reading():
            inside.add(threading.get_ident())
            leave.wait(60)
            inside.discard(threading.get_ident())

    def write() -> None:
        with lock.writing():
            inside.add(threading.get_ident())
            seen.append(len(inside))
            inside.discard(threading.get_ident())

    readers, writers = ([threading.Thread(target=t) for _ in range(2)] for t in (read, write))
    for thread in readers:  # a reader that came after a writer would wait for it
        thread.start()
    until(lambda: len(inside) == 2)
    for thread in writers:
        thread.start()
    until(lambda: lock.waiting_writers == 2)
    leave.set()
    for thread in (*readers, *writers):
        thread.join()
    assert seen == [1, 1]


def test_a_waiting_writer_goes_before_new_readers() -> None:
    lock, order = ReadWriteLock(), []
    entered, trying, leave = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with lock.reading():
            entered.set()
            leave.wait(60)

    def write() -> None:
        with lock.writing():
            order.append("write")

    def late() -> None:
        trying.set()
        with lock.reading():
            order.append("read")

    threads = [threading.Thread(target=t) for t in (first, write, late)]
    threads[0].start()
    assert entered.wait(60)
    threads[1].start()
    until(lambda: lock.waiting_writers)
    threads[2].start()
    assert trying.wait(60)
    assert order == []
    leave.set()
    for thread in threads:
        thread.join()
    assert order == ["write", "read"]


def test_a_failing_holder_lets_go() -> None:
    lock = ReadWriteLock()
    for hold in (lock.reading, lock.writing):
        with pytest.raises(KeyError), hold():
            raise KeyError
    with lock.writing():
        pass
