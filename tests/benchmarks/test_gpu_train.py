"""The training for a GPU machine runs, measures and packs where only training's own packages are installed."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.gpu_train import FILE_BYTES, Clock, epochs_that_fit, parse, pieces, settings_of
from tests.benchmarks.halves import TINY_SETTINGS, labelled_pictures, write_halves
from train.loop.run import train_images
from train.state.checkpoint import load_checkpoint
from vssl.images.sources import open_source

ROOT = Path(__file__).parents[2]
MODULE = [sys.executable, "-m", "tests.benchmarks.bare_machine", "benchmarks.gpu_train"]


def command(folder: Path, *more: str) -> list[str]:
    (folder / "tiny.toml").write_text(TINY_SETTINGS)
    return [
        *MODULE, *more, "--data", str(folder / "a"), str(folder / "b"), "--out", str(folder / "out"),
        "--config", str(folder / "tiny.toml"), "--device", "cpu",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run: images of ten hues, two epochs by the rate it is told."""
    folder = tmp_path_factory.mktemp("gpu")
    write_halves(folder / "a", folder / "b")
    words = command(folder, "400", "--rate", "2.2", "--reserve", "45")
    subprocess.run(words, check=True, timeout=280, stdout=subprocess.PIPE, cwd=ROOT)
    return folder


def test_it_leaves_at_most_eight_small_files(done: Path) -> None:
    files = sorted(file.name for file in (done / "out").iterdir())
    assert files == ["features.npz", "metrics.jsonl", "results.json", "student-00.safetensors"]


def test_it_reports_both_classifiers_and_k_nn_of_student_and_teacher(done: Path) -> None:
    results = json.loads((done / "out" / "results.json").read_text())
    assert {f"{b}_features_{k}" for b in ("student", "teacher") for k in ("knn", "linear", "online")} <= set(
        results["accuracies"]
    )
    assert results["accuracies"]["student_features_knn"] > 0.5  # ten hues, chance is 0.1
    assert (results["config"]["epochs"], results["config"]["evaluation"]["validation"]) == (2, 0.0)
    assert results["summary"]["train_images"] == 300
    assert results["stopped_by"] is None
    assert set(results["seconds"]) == {"reading", "training", "measuring"}
    curve = [json.loads(line) for line in (done / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in curve] == [0, 1, 2]


def test_the_packed_features_are_the_students_of_the_test_images(done: Path) -> None:
    packed = np.load(done / "out" / "features.npz")
    assert packed["features"].dtype == np.float16
    assert packed["features"].shape == (90, 32)
    assert np.array_equal(packed["labels"], labelled_pictures(90, 2)[1])


def test_the_joined_student_begins_another_run(done: Path, tmp_path: Path) -> None:
    joined = tmp_path / "student.safetensors"
    subprocess.run([*MODULE, "--join", done / "out", joined], check=True, stdout=subprocess.PIPE, cwd=ROOT)
    packed = load_file(done / "out" / "student-00.safetensors")
    assert {value.dtype for value in packed.values()} == {torch.float16, torch.int64}
    folder = tmp_path / "images"
    folder.mkdir()
    source = open_source(f"cifar10:{_binary(done, tmp_path)}:test")
    for row in range(20):
        (folder / f"{row}.png").write_bytes(source.read(row))
    settings = json.loads((done / "out" / "results.json").read_text())["config"]
    settings = {name: settings[name] for name in ("size", "cache_size", "network", "method")} | {"epochs": 0}
    train_images(str(folder), tmp_path / "run", recipe="small", settings=settings, device="cpu", init=joined)
    student = load_checkpoint(tmp_path / "run").student
    for name, value in packed.items():
        torch.testing.assert_close(student[name], value.to(student[name].dtype), rtol=1e-3, atol=1e-4)


def _binary(done: Path, out: Path) -> Path:
    from benchmarks.cifar_halves import read_halves, write_binary

    write_binary(out / "cifar", read_halves([done / "a", done / "b"], ["half-a.bin", "half-b.bin"]))
    return out / "cifar"


def test_a_run_that_is_slower_than_thought_is_stopped_in_time_and_measured(tmp_path: Path) -> None:
    write_halves(tmp_path / "a", tmp_path / "b")
    began = time.monotonic()
    words = command(tmp_path, "20", "--rate", "1000000", "--reserve", "14")
    subprocess.run(words, check=True, timeout=280, stdout=subprocess.PIPE, cwd=ROOT)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["stopped_by"] == 15
    assert results["summary"]["steps"] >= 1
    assert results["summary"]["epochs"] < results["config"]["epochs"]
    assert results["seconds"]["training"] < time.monotonic() - began
    assert results["accuracies"]["student_features_online"] >= 0.0


def test_epochs_follow_from_seconds_and_rate() -> None:
    assert epochs_that_fit(500.0, 20_000.0, 50_000, 60.0) == int(440 * 0.98 * 20_000 / 50_000)
    assert epochs_that_fit(1.0, 10.0, 50_000, 60.0) == 1


def test_an_option_decides_over_the_file() -> None:
    arguments: argparse.Namespace = parse(["100", "--method", "byol", "--rate", "100", "--recipe", "small"])
    settings = settings_of(arguments, 600, Clock(100.0, 45.0))
    assert settings["method"] == "byol"
    assert settings["epochs"] == 8  # 55 s at 100 images/s, less what saving takes
    with pytest.raises(SystemExit):
        parse([])


def test_a_large_student_is_cut_into_pieces_that_fit() -> None:
    state = {str(n): torch.ones(1024, 1024) for n in range(18)} | {"count": torch.tensor(3)}
    found = pieces(state)
    assert len(found) == 3
    assert [name for group in found for name in group] == list(state)
    for group in found:
        assert sum(v.numel() * v.element_size() for v in group.values()) < FILE_BYTES
