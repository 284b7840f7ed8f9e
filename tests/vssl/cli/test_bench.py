"""`vssl bench` measures real work: its parts are those asked for, its shares are shares of its own figures."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.serve.photo_folder import photo_folder
from tests.support.tiny_model import tiny_model
from tests.train.picture_folder import TINY, write_pictures
from tests.vssl.cli.command import vssl
from train.settings.recipe import plan
from vssl.cli.ceilings.planning import Costs, Line, make_plan, shown_bytes
from vssl.cli.ceilings.searching import measure as measure_search
from vssl.cli.ceilings.searching import speedup
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


def test_a_plan_is_made_of_what_was_measured_at_two_sizes(tmp_path: Path) -> None:
    images, model = photo_folder(tmp_path / "images"), tiny_model(tmp_path / "model.onnx")
    words = (
        "bench",
        images,
        "--model",
        model,
        "--items",
        300,
        "--dim",
        16,
        "--distance",
        "cosine",
        "--plan",
        "1e9",
    )
    done = vssl(*words, "--json")
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)["plan"]
    costs = {name: Line(**planned["costs"][name]) for name in ("extraction", "building", "search")}
    assert planned["hours"] == pytest.approx(costs["extraction"].at(10**9) / 3600)
    assert planned["building"] == pytest.approx(costs["building"].at(10**9) / 3600)
    assert planned["milliseconds"] == pytest.approx(costs["search"].at(10**9))
    assert (
        planned["gallery"] > planned["embeddings"] > 10**9 * 2 * 16 * 4 * 0.9
    )  # the numbers, and some names
    assert planned["costs"]["speedup"] > 0
    said = vssl(*words).stdout
    assert "plan for 1e+09 images" in said
    assert "bounds extraction" in said
    refused = vssl("bench", "--part", "search", "--items", 300, "--dim", 16, "--plan", "10")
    assert (refused.returncode, "needs both parts" in refused.stderr) == (2, True)


def test_two_measurements_tell_what_each_image_adds() -> None:
    line = Line.through((10, 3.0), (50, 7.0))
    assert (line.fixed, line.each) == (pytest.approx(2.0), pytest.approx(0.1))
    assert line.at(1000) == pytest.approx(102.0)
    for few, many in (((10, 1.0), (50, 7.0)), ((10, 5.0), (50, 4.0))):  # begins below nothing; falls
        assert Line.through(few, many) == Line(0.0, many[1] / 50)


def test_machines_and_bytes_of_a_plan() -> None:
    costs = Costs(
        extraction=Line(10.0, 1e-3),
        building=Line(5.0, 36e-6),
        search=Line(1.0, 1e-6),
        speedup=8.0,
        part=1000,
        gallery=1500,
    )
    made = make_plan(10**9, costs, dim=128, width=2, memory=100e9, within_hours=24)
    assert (made.machines, made.shards) == (12, 15)  # 278 h over 24 h; 1.02 TB over 70 GB
    assert made.index == 10**9 * 128 * 2 * 4
    assert made.milliseconds == pytest.approx(1001)
    assert made.building == pytest.approx(10.0, rel=1e-3)
    assert made.queries == pytest.approx(
        8000 / (1 + 1e-6 * 10**9 / 15), rel=1e-6
    )  # a query asks each machine
    assert made.gallery == 10**9 * (1500 + 2 * 128 * 4)  # so many vectors are saved once more
    small = make_plan(1000, costs, dim=8, width=1, memory=1e9)
    assert (small.machines, small.shards, small.gallery) == (1, 1, 1500 * 1000)
    assert "one gallery folder" in " ".join(small.lines())
    assert "approximate" not in " ".join(small.lines())


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1.5e9, "1.5 GB"), (2e15, "2e+03 TB")]
)
def test_sizes_are_said_in_the_largest_unit(count: float, text: str) -> None:
    assert shown_bytes(count) == text


def test_the_longer_encoding_is_told_apart_from_the_overhead() -> None:
    plain, long = (measure_search(200, 16, (name,), rounds=1)[0] for name in ("cosine", "posterior"))
    assert plain.width == 1.0
    assert long.width > 5.0


def test_how_many_times_as_fast_all_cores_search_is_a_ratio() -> None:
    assert 0 < speedup(2000, 16, "cosine") < 64


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
