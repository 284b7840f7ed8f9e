"""Stopped anywhere and started again: the rest only, and the rows of an uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from serve.extraction.extract import Progress, extract
from tests.serve.photo_folder import assert_same, photo_folder
from tests.support.tiny_model import picture, tiny_model
from vssl.embeddings.store import read_embeddings
from vssl.errors import ExistsError, FormatError, InputError, MismatchError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photo_folder(tmp_path / "photos")


def stop_after(images: int) -> object:
    def report(state: Progress) -> None:
        if state.done >= images:
            raise KeyboardInterrupt

    return report


def run(photos: Path, out: Path, model: Path, **options: object) -> object:
    return extract(photos, out, model=model, part_rows=8, batch_size=3, workers=2, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("stop", [1, 8, 9, 20, 31, 33])
def test_it_does_the_rest_only_and_ends_the_same(
    photos: Path, model: Path, tmp_path: Path, stop: int
) -> None:
    run(photos, tmp_path / "whole", model)
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "out", model, report=stop_after(stop))
    done = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("part-*")}
    summary = run(photos, tmp_path / "out", model, resume=True)
    assert summary.resumed == 8 * len(done)  # type: ignore[attr-defined]
    assert {p: p.stat().st_mtime_ns for p in done} == done
    assert_same(read_embeddings(tmp_path / "out"), read_embeddings(tmp_path / "whole"))
    assert not (tmp_path / "out" / ".progress").exists()


def test_resuming_what_is_finished_changes_nothing(photos: Path, model: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out", model)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    summary = run(photos, tmp_path / "out", model, resume=True)
    assert summary.resumed == summary.images == 33  # type: ignore[attr-defined]
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before


def test_resuming_what_never_began_begins(photos: Path, model: Path, tmp_path: Path) -> None:
    assert run(photos, tmp_path / "out", model, resume=True).rows == 30  # type: ignore[attr-defined]


COMMAND = """
import sys
from pathlib import Path
from serve.extraction.extract import extract
extract(sys.argv[1], Path(sys.argv[2]), model=Path(sys.argv[3]), part_rows=8, batch_size=3, workers=2, resume=True)
"""


def test_killed_again_and_again(photos: Path, model: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "whole", model)
    arguments = [sys.executable, "-c", COMMAND, str(photos), str(tmp_path / "out"), str(model)]
    for attempt in range(8):
        process = subprocess.Popen(arguments)
        deadline = time.monotonic() + 20
        # Strike at another moment each time: as soon as one more file than before is there.
        while process.poll() is None and time.monotonic() < deadline:
            # By os.walk, which passes over a folder that vanishes meanwhile.
            if sum(len(folders + files) for _, folders, files in os.walk(tmp_path / "out")) > 1 + attempt:
                process.kill()
            time.sleep(0.0005)
        process.wait()
        assert process.returncode in (0, -signal.SIGKILL)
    assert subprocess.run(arguments, check=False).returncode == 0
    assert_same(read_embeddings(tmp_path / "out"), read_embeddings(tmp_path / "whole"))
    assert [p.name for p in (tmp_path / "out").glob(".*")] == [".inputs.parquet"]


def test_a_full_disk_is_an_error_and_the_job_goes_on_afterwards(
    photos: Path, model: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands in for a full disk: writing fails half way."""
    run(photos, tmp_path / "whole", model)
    size = min(p.stat().st_size for p in (tmp_path / "whole").glob("part-*"))
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size - 9}, {size - 9}))\n"
    code = limited + COMMAND
    found = subprocess.run(
        [sys.executable, "-c", code, str(photos), str(tmp_path / "out"), str(model)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "InputError: cannot write to" in found.stderr
    assert "go on with --resume" in found.stderr
    assert not list((tmp_path / "out").glob("part-*"))
    run(photos, tmp_path / "out", model, resume=True)
    assert_same(read_embeddings(tmp_path / "out"), read_embeddings(tmp_path / "whole"))
    assert [p.name for p in (tmp_path / "out").glob(".*")] == [".inputs.parquet"]


class TestAnotherJob:
    @pytest.fixture
    def stopped(self, photos: Path, model: Path, tmp_path: Path) -> Path:
        with pytest.raises(KeyboardInterrupt):
            run(photos, tmp_path / "out", model, report=stop_after(20))
        return tmp_path / "out"

    def test_without_resume(self, photos: Path, model: Path, stopped: Path) -> None:
        with pytest.raises(ExistsError, match=r"unfinished extraction.*--resume"):
            run(photos, stopped, model)

    def test_of_another_model(self, photos: Path, stopped: Path, tmp_path: Path) -> None:
        other = tiny_model(tmp_path / "other.onnx", seed=1)
        with pytest.raises(MismatchError, match=r"the model was [0-9a-f]{12}, now it is [0-9a-f]{12}"):
            run(photos, stopped, other, resume=True)

    def test_with_new_and_vanished_files(self, photos: Path, model: Path, stopped: Path) -> None:
        Image.fromarray(picture(1)).save(photos / "cats" / "new.png")
        (photos / "dogs" / "img_3.png").unlink()
        with pytest.raises(MismatchError, match=r"1 new \(cats/new\.png\), 1 gone \(dogs/img_3\.png\)"):
            run(photos, stopped, model, resume=True)

    def test_with_other_options(self, photos: Path, model: Path, stopped: Path) -> None:
        with pytest.raises(MismatchError, match="features: was False, now True"):
            run(photos, stopped, model, resume=True, features=True)
        with pytest.raises(MismatchError, match=r"rows a part: was 8, now 9; batch size: was 3, now 4"):
            extract(photos, stopped, model=model, part_rows=9, batch_size=4, resume=True)

    def test_after_it_finished(self, photos: Path, model: Path, stopped: Path) -> None:
        run(photos, stopped, model, resume=True)
        (photos / "dogs" / "img_3.png").unlink()
        with pytest.raises(MismatchError, match=r"1 gone \(dogs/img_3\.png\).*--update"):
            run(photos, stopped, model, resume=True)

    def test_overwrite_starts_over(self, photos: Path, model: Path, stopped: Path) -> None:
        assert run(photos, stopped, model, overwrite=True).resumed == 0  # type: ignore[attr-defined]

    def test_of_another_version(self, photos: Path, model: Path, stopped: Path) -> None:
        (stopped / ".progress" / "plan.json").write_text("{}")
        with pytest.raises(FormatError, match=r"another version of vssl.*--overwrite"):
            run(photos, stopped, model, resume=True)

    def test_parts_without_a_plan(self, photos: Path, model: Path, stopped: Path) -> None:
        (stopped / ".progress" / "plan.json").unlink()
        with pytest.raises(FormatError, match="parts without a plan"):
            run(photos, stopped, model, resume=True)


def test_failures_of_the_first_run_count(photos: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--max-failures"):
        run(photos, tmp_path / "out", model, max_failures=2)
    assert list((tmp_path / "out").glob("part-*"))
    with pytest.raises(InputError, match="--max-failures"):
        run(photos, tmp_path / "out", model, resume=True, max_failures=2)
    assert run(photos, tmp_path / "out", model, resume=True).failures == 3  # type: ignore[attr-defined]


@pytest.mark.skipif(sys.platform == "win32", reason="file locks of POSIX")
def test_two_processes_never_write_one_folder(photos: Path, model: Path, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "out").mkdir()
    folder = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(ExistsError, match="being written by another process"):
        run(photos, tmp_path / "out", model)
    os.close(folder)
    run(photos, tmp_path / "out", model)
