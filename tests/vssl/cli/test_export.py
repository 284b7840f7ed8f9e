"""`vssl export`: what it says of the file that it wrote, as text and as JSON, and what it does with one that exists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.tiny_run import image_folder, tiny_run
from tests.vssl.cli.command import vssl
from vssl.model.identity import sha256_file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over eighty pictures in `images` beside it."""
    home = tmp_path_factory.mktemp("export")
    return tiny_run(home / "run", image_folder(home / "images"))


def test_it_says_what_it_wrote_and_puts_it_into_a_repository(run: Path, tmp_path: Path) -> None:
    model, repository = tmp_path / "model.onnx", tmp_path / "repository"
    words = ["export", run, model, "--calibration-images", 80, "--evaluation", run.parent / "images"]
    done = vssl(*words, "--triton", repository)
    assert done.returncode == 0, done.stderr
    identity = sha256_file(model)[:12]
    lines = done.stdout.splitlines()
    assert lines[0].startswith(str(model))
    assert lines[0].endswith(f"model id {identity}")
    assert any(line.startswith("  agrees with the encoder itself on ") for line in lines)
    assert any(line.startswith("  variance: fitted-head on ") for line in lines)
    assert any(line.startswith("  measured: ") for line in lines)
    assert f"version 1 is model id {identity} (onnxruntime backend)" in lines[-1]
    assert "vssl serve --model triton://127.0.0.1:8001/" in done.stderr
    again = vssl("export", model, "--triton", repository)
    assert f"version 1 was already model id {identity}" in again.stdout
    found = json.loads(vssl("export", model, "--triton", repository, "--json").stdout)
    assert (found["version"], found["added"], found["model_id"]) == (1, False, sha256_file(model))


def test_as_json_it_is_one_object(run: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    words = ["export", run, model, "--calibration-images", 80, "--precision", "fp16", "--accept-loss"]
    done = vssl(*words, "--hf", tmp_path / "hf", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["model_id"], found["bytes"]) == (sha256_file(model), model.stat().st_size)
    assert found["card"]["precision"] == "fp16"
    assert found["largest_difference_from_encoder"]["mean"] < 0.1
    assert found["fidelity"]["images"] > 0
    assert (tmp_path / "hf" / "onnx" / "model.onnx").read_bytes() == model.read_bytes()
    said = vssl("export", model, "--hf", tmp_path / "again")
    assert (said.returncode, (tmp_path / "again" / "README.md").is_file()) == (0, True)


def test_what_is_missing_or_wrong_is_said(run: Path, tmp_path: Path) -> None:
    lone = vssl("export", tmp_path / "encoder.onnx")
    assert (lone.returncode, "--calibration IMAGES" in lone.stderr.replace("\n", " ")) == (2, True)
    assert vssl("export", run).returncode == 2
    photo = vssl("export", run, tmp_path / "photo.jpg", "--overwrite")
    assert (photo.returncode, "ends in .onnx" in photo.stderr) == (2, True)
    for flag in ("--space", "--branch", "--supervision"):
        wrong = vssl("export", run, tmp_path / "model.onnx", flag, "sideways")
        assert (wrong.returncode, "sideways" in wrong.stderr) == (2, True)
