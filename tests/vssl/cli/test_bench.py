"""`vssl bench` measures real work: its parts are those asked for, its shares are shares of its own figures."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.serve.photo_folder import photo_folder
from tests.tiny_model import tiny_model
from tests.train.picture_folder import TINY, write_pictures
from tests.vssl.cli.command import vssl
from train.settings.recipe import plan
from vssl.cli.ceilings.searching import measure as measure_search
from vssl.cli.ceilings.training import measure as measure_step
from vssl.images.sources import open_source


def test_extraction_and_search_of_one_s_own_images_and_model(tmp_path: Path) -> None:
    images = photo_folder(tmp_path / "images")  # three of its files cannot be read, and do not count
    model = tiny_model(tmp_path / "model.onnx")
    done = vssl(
        "bench", images, "--model", model, "--part", "extract", "--part", "search",
        "--items", 300, "--dim", 16, "--distance", "cosine", "--distance", "posterior", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "train" not in found
    rates = found["extract"]
    assert rates["images"] == 30
    assert min(rates["decode"], rates["inference"], rates["extract"]) > 0
    assert rates["shared_bound"] < min(rates["decode"], rates["inference"])
    assert rates["reached"] == pytest.approx(rates["extract"] / rates["shared_bound"])
    assert [(c["distance"], c["batch"]) for c in found["search"]] == [
        ("cosine", 1), ("cosine", 256), ("posterior", 1), ("posterior", 256),
    ]  # fmt: skip
    assert all(c["times_flat"] == pytest.approx(c["milliseconds"] / c["flat"]) for c in found["search"])


def test_the_longer_encoding_is_told_apart_from_the_overhead() -> None:
    plain, long = (measure_search(200, 16, (name,), rounds=1)[0] for name in ("cosine", "posterior"))
    assert plain.width == 1.0
    assert long.width > 5.0


def test_a_step_and_its_networks_are_both_timed(tmp_path: Path) -> None:
    source = open_source(write_pictures(tmp_path / "pictures", per_class=6))
    config = plan(source, "small", TINY)
    rate = measure_step(config, torch.device("cpu"), seconds=0.3)
    assert rate.step > 0
    assert rate.networks > 0
    again = plan(source, "small", TINY, {"method": "deepcluster-v2"})  # which remembers images
    assert measure_step(again, torch.device("cpu"), seconds=0.1).step > 0


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    assert vssl("bench", "--part", "speed").returncode == 2
    empty = tmp_path / "empty"
    empty.mkdir()
    refused = vssl("bench", empty, "--part", "extract")
    assert refused.returncode == 1
    assert "images" in refused.stderr
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "images.parquet")
    packed = vssl("bench", f"parquet:{tmp_path}/images.parquet", "--part", "extract")
    assert packed.returncode == 1
    assert "expected a folder of image files" in packed.stderr
