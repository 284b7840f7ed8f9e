"""--update: what is new or changed is embedded, what vanished is dropped, the rest is taken over."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from serve.extraction.extract import Summary, extract
from serve.extraction.writer import Progress
from tests.serve.photo_folder import assert_same, photo_folder
from tests.support.tiny_model import picture, tiny_model
from vssl.embeddings.store import read_embeddings
from vssl.errors import ExistsError, MismatchError
from vssl.images.readers.folders import FileSource


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photo_folder(tmp_path / "photos")


def run(photos: Path, out: Path, model: Path, **options: object) -> Summary:
    return extract(photos, out, model=model, part_rows=8, batch_size=3, workers=2, **options)  # type: ignore[arg-type]


def change(photos: Path) -> None:
    """One new at the front, one new in the middle, one changed, two gone."""
    Image.fromarray(picture(101)).save(photos / "cats" / "a_new.png")
    Image.fromarray(picture(102)).save(photos / "dogs" / "img_6.png")
    Image.fromarray(picture(103)).save(photos / "dogs" / "img_9.png")
    (photos / "cats" / "img_8.png").unlink()
    (photos / "notes.txt").unlink()


def test_it_equals_a_fresh_extraction_and_reads_only_what_changed(
    photos: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(photos, tmp_path / "out", model, digests=True)
    change(photos)
    read: list[str] = []
    original = FileSource.read

    def spy(self: FileSource, row: int) -> bytes:
        read.append(self.items[row].id)
        return original(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(FileSource, "read", spy)
        summary = run(photos, tmp_path / "out", model, update=True, digests=True)
    failed_before = {"cats/broken.jpg", "dogs/empty.png"}  # tried again
    assert sorted(read) == sorted({"cats/a_new.png", "dogs/img_6.png", "dogs/img_9.png"} | failed_before)
    assert (summary.reused, summary.rows, summary.failures) == (28, 31, 2)
    run(photos, tmp_path / "fresh", model, digests=True)
    found, expected = read_embeddings(tmp_path / "out"), read_embeddings(tmp_path / "fresh")
    assert_same(found, expected)
    assert found.rows.digests == expected.rows.digests
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        p.name for p in (tmp_path / "fresh").iterdir()
    )


def test_float16_rows_are_taken_over_bit_for_bit(photos: Path, model: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out", model, dtype="float16", features=True)
    change(photos)
    run(photos, tmp_path / "out", model, update=True, dtype="float16", features=True)
    run(photos, tmp_path / "fresh", model, dtype="float16", features=True)
    for part in (tmp_path / "fresh").glob("part-*"):
        assert (tmp_path / "out" / part.name).read_bytes() == part.read_bytes()


def test_nothing_changed_is_nothing_to_do(photos: Path, model: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out", model)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert run(photos, tmp_path / "out", model, update=True).images_per_second == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before


def test_an_update_of_nothing_is_an_extraction(photos: Path, model: Path, tmp_path: Path) -> None:
    assert run(photos, tmp_path / "out", model, update=True).rows == 30


@pytest.mark.parametrize("stop", [30, 33])
def test_readers_see_the_old_folder_until_it_is_done_and_a_stop_loses_nothing(
    photos: Path, model: Path, tmp_path: Path, stop: int
) -> None:
    run(photos, tmp_path / "out", model)
    old = read_embeddings(tmp_path / "out")
    change(photos)

    def report(state: Progress) -> None:
        if state.done >= stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "out", model, update=True, report=report)
    assert_same(read_embeddings(tmp_path / "out"), old)
    with pytest.raises(ExistsError, match="--resume"):
        run(photos, tmp_path / "out", model)
    run(photos, tmp_path / "out", model, resume=True)
    run(photos, tmp_path / "fresh", model)
    assert_same(read_embeddings(tmp_path / "out"), read_embeddings(tmp_path / "fresh"))


def test_stopped_while_parts_are_put_in_place(
    photos: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every rename and removal of the last step, and with the images changed once more."""
    run(photos, tmp_path / "first", model)
    old = read_embeddings(tmp_path / "first")
    change(photos)
    run(photos, tmp_path / "fresh", model)
    expected = read_embeddings(tmp_path / "fresh")
    for at in range(12):
        out = tmp_path / f"out{at}"
        shutil.copytree(tmp_path / "first", out)
        steps = 0

        def counted(original, at=at):  # type: ignore[no-untyped-def]
            def step(self, *rest, **more):  # type: ignore[no-untyped-def]
                nonlocal steps
                if (out / ".progress" / "placing").exists():  # noqa: B023
                    steps += 1
                    if steps > at:
                        raise KeyboardInterrupt
                return original(self, *rest, **more)

            return step

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", counted(Path.replace))
            patch.setattr(Path, "unlink", counted(Path.unlink))
            with suppress(KeyboardInterrupt):
                run(photos, out, model, update=True)
        if (out / "manifest.json").exists():  # then it is wholly the old folder or the new one
            found = read_embeddings(out)
            assert_same(found, expected if found.rows.ids == expected.rows.ids else old)
        run(photos, out, model, update=bool(at % 2), resume=not at % 2)
        assert_same(read_embeddings(out), expected)
        assert not (out / ".progress").exists()


def test_the_images_changed_again_before_it_was_done(photos: Path, model: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out", model)
    change(photos)

    def report(state: Progress) -> None:
        if state.done >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "out", model, update=True, report=report)
    Image.fromarray(picture(104)).save(photos / "cats" / "img_0.png")
    with pytest.raises(MismatchError, match=r"1 changed \(cats/img_0\.png\)"):
        run(photos, tmp_path / "out", model, resume=True)
    run(photos, tmp_path / "out", model, update=True)
    run(photos, tmp_path / "fresh", model)
    assert_same(read_embeddings(tmp_path / "out"), read_embeddings(tmp_path / "fresh"))


def test_another_model_or_other_options_are_refused(photos: Path, model: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out", model)
    change(photos)
    with pytest.raises(MismatchError, match="the model was"):
        run(photos, tmp_path / "out", tiny_model(tmp_path / "b.onnx", seed=1), update=True)
    with pytest.raises(MismatchError, match="number type: was float32, now float16"):
        run(photos, tmp_path / "out", model, update=True, dtype="float16")
