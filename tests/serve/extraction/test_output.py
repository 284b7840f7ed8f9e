"""The output folder: what may be there, what is done, and how it becomes complete."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from serve.extraction.extract import extract
from serve.extraction.output import PLACING, PROGRESS, STAGED, OutputFolder, locked, make, prepare
from serve.extraction.plan import Plan, list_source
from vssl.embeddings.manifest import MANIFEST
from vssl.embeddings.store import read_embeddings, read_failures, write_failures_file
from vssl.errors import ExistsError, FormatError, InputError, MismatchError
from vssl.files import write_json
from vssl.images.sources import open_source


@pytest.fixture
def done(photos: Path, model: Path, tmp_path: Path) -> OutputFolder:
    """A complete folder of four parts."""
    extract(photos, tmp_path / "out", model=model, part_rows=9)
    values = json.loads((tmp_path / "out" / MANIFEST).read_text())["plan"]
    return OutputFolder(tmp_path / "out", Plan.read(values, tmp_path))


def ready(folder: OutputFolder, photos: Path, **flags: bool) -> OutputFolder:
    listing = list_source(open_source(photos))
    given = {"resume": False, "overwrite": False, "update": False} | flags
    return prepare(folder.path, folder.plan, listing, **given)


def test_a_complete_folder_needs_a_flag_and_is_then_left_alone(done: OutputFolder, photos: Path) -> None:
    assert done.complete
    with pytest.raises(ExistsError, match=r"add --update.*or start over with --overwrite"):
        ready(done, photos)
    before = sorted(path.name for path in done.path.iterdir())
    assert ready(done, photos, resume=True).complete
    assert sorted(path.name for path in done.path.iterdir()) == before


def test_overwriting_leaves_nothing_but_a_plan(done: OutputFolder, photos: Path) -> None:
    folder = ready(done, photos, overwrite=True)
    assert [path.name for path in folder.path.iterdir()] == [PROGRESS]
    assert not folder.complete
    assert not any(folder.is_done(number) for number in range(folder.plan.parts))


def test_what_is_no_embeddings_is_never_touched(done: OutputFolder, photos: Path) -> None:
    (done.path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds files that are no embeddings \(thesis\.txt\)"):
        ready(done, photos, overwrite=True)
    assert done.complete


def test_parts_without_a_plan_are_refused(done: OutputFolder, photos: Path) -> None:
    (done.path / MANIFEST).unlink()
    with pytest.raises(FormatError, match="parts without a plan"):
        ready(done, photos, resume=True)


def test_an_update_that_was_stopped_while_its_parts_were_put_in_place_ends_at_the_next_start(
    done: OutputFolder, photos: Path, model: Path
) -> None:
    """The folder is as after a stop: the manifest gone, one part in place, the others staged."""
    whole = read_embeddings(done.path)
    staged = done.progress / STAGED
    staged.mkdir(parents=True)
    for number in range(1, done.plan.parts):
        (done.path / done.part(number).name).rename(staged / done.part(number).name)
    failures = read_failures(done.path)
    for number in range(done.plan.parts):
        write_failures_file(failures if number == 0 else [], done.failures(number))
    write_json(done.progress / "plan.json", json.loads((done.path / MANIFEST).read_text())["plan"])
    (done.progress / PLACING).touch()
    (done.path / MANIFEST).unlink()
    extract(photos, done.path, model=model, part_rows=9, resume=True)
    assert read_embeddings(done.path).rows.ids == whole.rows.ids
    assert not done.progress.exists()


def test_what_a_stopped_removal_left_is_no_job(
    done: OutputFolder, photos: Path, model: Path, tmp_path: Path
) -> None:
    grown = shutil.copytree(photos, tmp_path / "grown")
    (grown / "dogs/new.png").write_bytes((grown / "cats/img_0.png").read_bytes())
    (done.progress / STAGED).mkdir(parents=True)
    (done.progress / PLACING).touch()
    assert done.complete
    assert ready(done, photos, resume=True).complete
    assert not done.progress.exists()
    (done.progress / STAGED).mkdir(parents=True)
    (done.progress / PLACING).touch()
    summary = extract(grown, done.path, model=model, part_rows=9, update=True)
    assert (summary.reused, summary.images) == (30, 34)
    assert "dogs/new.png" in read_embeddings(done.path).rows.ids


def test_whoever_waited_while_another_closed_the_folder_finds_nothing_to_do(done: OutputFolder) -> None:
    before = {path.name: path.read_bytes() for path in done.path.iterdir()}
    done.close()
    assert {path.name: path.read_bytes() for path in done.path.iterdir()} == before


def test_another_job_is_refused_with_what_differs(done: OutputFolder, photos: Path, tmp_path: Path) -> None:
    other = OutputFolder(done.path, replace(done.plan, dtype="float16"))
    with pytest.raises(MismatchError, match=r"belongs to another job: .*float16"):
        ready(other, photos, resume=True)


def test_a_lock_is_exclusive_or_shared(tmp_path: Path) -> None:
    refused = pytest.raises(ExistsError, match="being written by another process")
    with locked(tmp_path, shared=True), locked(tmp_path, shared=True), refused, locked(tmp_path):
        pass
    with locked(tmp_path), pytest.raises(ExistsError), locked(tmp_path, shared=True):
        pass


def test_a_file_is_no_folder_to_write_into(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        make(tmp_path / "file")
    make(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
