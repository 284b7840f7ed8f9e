"""Images in, an embeddings folder out: each image in exactly one of output and failures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from serve.extraction.extract import Progress, extract
from serve.inference.engine import Engine
from tests.serve.conv_model import conv_model
from tests.serve.photo_folder import BAD, assert_same, photo_folder
from vssl.embeddings.store import iter_parts, read_embeddings
from vssl.errors import ExistsError, InputError
from vssl.images.decode import DecodeLimits
from vssl.images.preprocess import load_image


def test_every_file_is_in_exactly_one_of_output_and_failures(
    photos: Path, model: Path, tmp_path: Path
) -> None:
    summary = extract(photos, tmp_path / "out", model=model)
    found = read_embeddings(tmp_path / "out")
    files = {p.relative_to(photos).as_posix() for p in photos.rglob("*") if p.is_file()}
    failed = {Path(f.path).relative_to(photos).as_posix(): f.error for f in found.failures}
    assert failed == BAD
    assert set(found.rows.ids) == files - set(BAD)
    assert len(found.rows.ids) == len(set(found.rows.ids)) == summary.rows == 30
    assert (summary.images, summary.failures) == (33, 3)
    assert summary.reasons == {"empty": 1, "undecodable": 1, "unsupported_type": 1}


def test_numbers_are_those_of_the_engine_one_image_at_a_time(photos: Path, tmp_path: Path) -> None:
    path = conv_model(tmp_path / "model.onnx")
    extract(photos, tmp_path / "out", model=path, batch_size=7, workers=2, features=True)
    engine, found = Engine.open(path), read_embeddings(tmp_path / "out").rows
    for i, file in enumerate(found.ids):
        out = engine.infer(load_image((photos / file).read_bytes(), engine.card.preprocess)[None])
        np.testing.assert_allclose(found.gaussians.mean[i], out.gaussians.mean[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(found.gaussians.variance[i], out.gaussians.variance[0], rtol=0, atol=1e-6)
        assert found.features is not None
        np.testing.assert_allclose(found.features[i], out.features[0], rtol=0, atol=1e-6)


def test_order_labels_and_paths_are_the_sources(photos: Path, model: Path, tmp_path: Path) -> None:
    extract(photos, tmp_path / "out", model=model)
    rows = read_embeddings(tmp_path / "out").rows
    assert rows.ids[:3] == ["cats/img_0.png", "cats/img_2.png", "cats/img_4.png"]
    assert [rows.labels[rows.ids.index(f"dogs/img_{n}.png")] for n in (1, 9, 11)] == ["dogs"] * 3
    assert rows.paths == [str(photos / i) for i in rows.ids]


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 1), (1, 32), (3, 4), (8, 5)])
def test_threads_and_batches_change_nothing(
    photos: Path, model: Path, tmp_path: Path, workers: int, batch_size: int
) -> None:
    extract(photos, tmp_path / "a", model=model)
    extract(photos, tmp_path / "b", model=model, workers=workers, batch_size=batch_size)
    assert_same(read_embeddings(tmp_path / "b"), read_embeddings(tmp_path / "a"))


def test_parts_hold_a_fixed_share_of_the_source(photos: Path, model: Path, tmp_path: Path) -> None:
    extract(photos, tmp_path / "out", model=model, part_rows=10, batch_size=4)
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    parts = [f"part-{n:05d}.parquet" for n in range(4)]
    assert names == [".inputs.parquet", "failures.parquet", "manifest.json", *parts]
    assert sum(len(rows) for rows, _, _ in iter_parts(tmp_path / "out")) == 30
    extract(photos, tmp_path / "whole", model=model)
    assert_same(read_embeddings(tmp_path / "out"), read_embeddings(tmp_path / "whole"))


def test_a_part_whose_images_all_failed_is_empty(model: Path, tmp_path: Path) -> None:
    folder = photo_folder(tmp_path / "in", 6, bad=False)
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(b"nothing")
    extract(folder, tmp_path / "out", model=model, part_rows=2)
    assert [len(rows) for rows, _, _ in iter_parts(tmp_path / "out")] == [0, 0, 2, 2, 2]
    assert len(read_embeddings(tmp_path / "out").rows) == 6


def test_a_folder_without_any_image_still_says_so(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    summary = extract(tmp_path / "in", tmp_path / "out", model=model)
    assert (summary.rows, summary.failures, summary.mean_uncertainty) == (0, 1, None)


def test_the_manifest_tells_model_plan_and_counts(photos: Path, model: Path, tmp_path: Path) -> None:
    summary = extract(photos, tmp_path / "out", model=model)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["model_id"] == summary.model_id == Engine.open(model).model_id
    assert (manifest["rows"], manifest["failures"], manifest["plan"]["images"]) == (30, 3, 33)
    uncertainty = read_embeddings(tmp_path / "out").rows.gaussians.uncertainty
    assert manifest["mean_uncertainty"] == pytest.approx(uncertainty.mean(), rel=1e-5)


def test_progress_counts_up_to_the_total(photos: Path, model: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    extract(photos, tmp_path / "out", model=model, batch_size=5, report=seen.append)
    assert [p.done for p in seen] == [5, 10, 15, 20, 25, 30, 33]
    assert seen[-1].failures == 3
    assert seen[-1].rate > 0
    mean = read_embeddings(tmp_path / "out").rows.gaussians.uncertainty.mean()
    assert seen[-1].uncertainty == pytest.approx(mean, rel=1e-5)


def test_limits_hold_before_decoding(photos: Path, model: Path, tmp_path: Path) -> None:
    summary = extract(photos, tmp_path / "out", model=model, limits=DecodeLimits(max_pixels=100))
    assert summary.reasons["too_many_pixels"] == 31


class TestFailures:
    def test_more_than_allowed_stop_the_run(self, photos: Path, model: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"expected at most 2.*--max-failures"):
            extract(photos, tmp_path / "out", model=model, max_failures=2)
        assert not (tmp_path / "out" / "manifest.json").exists()

    def test_as_many_as_allowed_do_not(self, photos: Path, model: Path, tmp_path: Path) -> None:
        assert extract(photos, tmp_path / "out", model=model, max_failures=3).failures == 3


class TestRefusals:
    def test_an_output_inside_the_images(self, photos: Path, model: Path) -> None:
        with pytest.raises(InputError, match="lies inside"):
            extract(photos, photos / "out", model=model)

    def test_a_folder_of_other_things(self, photos: Path, model: Path, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("...")
        for overwrite in (False, True):
            with pytest.raises(InputError, match=r"thesis\.tex"):
                extract(photos, tmp_path, model=model, overwrite=overwrite)

    def test_a_file(self, photos: Path, model: Path, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        with pytest.raises(InputError, match="is a file"):
            extract(photos, tmp_path / "out", model=model)

    def test_embeddings_that_exist(self, photos: Path, model: Path, tmp_path: Path) -> None:
        extract(photos, tmp_path / "out", model=model)
        with pytest.raises(ExistsError, match=r"holds embeddings already.*--overwrite"):
            extract(photos, tmp_path / "out", model=model)

    @pytest.mark.parametrize("name", ["batch_size", "workers", "part_rows"])
    def test_none_of_something(self, photos: Path, model: Path, tmp_path: Path, name: str) -> None:
        with pytest.raises(InputError, match=f"{name}: found 0"):
            extract(photos, tmp_path / "out", model=model, **{name: 0})  # type: ignore[arg-type]


def test_overwrite_replaces_everything(photos: Path, model: Path, tmp_path: Path) -> None:
    extract(photos, tmp_path / "out", model=model, part_rows=5)
    other = photo_folder(tmp_path / "other", 3, bad=False)
    extract(other, tmp_path / "out", model=model, overwrite=True)
    assert len(read_embeddings(tmp_path / "out").rows) == 3
    assert len(list((tmp_path / "out").iterdir())) == 4
