"""The command export into a Triton repository: a file that exists, a run at once, and what is wrong usage."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.tiny_model import tiny_model
from tests.support.tiny_run import image_folder, tiny_run
from tests.vssl.cli.command import vssl
from vssl.model.identity import sha256_file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model.onnx")


def export(*words: object) -> subprocess.CompletedProcess[str]:
    return vssl("export", *words)


def test_the_command_takes_a_file_that_exists(model: Path, tmp_path: Path) -> None:
    done = export(model, "--triton", tmp_path / "r", "--name", "pets", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["name"], facts["version"], facts["added"]) == ("pets", 1, True)
    assert facts["model_id"] == sha256_file(model)
    again = export(model, "--triton", tmp_path / "r", "--name", "pets")
    assert "was already" in again.stdout
    assert "triton://127.0.0.1:8001/pets" in again.stderr
    wide = export(tiny_model(tmp_path / "w.onnx", dim=9), "--triton", tmp_path / "r", "--name", "pets")
    assert (wide.returncode, wide.stdout) == (1, "")
    assert "--overwrite" in wide.stderr


def test_a_run_can_be_exported_into_a_repository_at_once(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", image_folder(tmp_path / "images", count=12))
    done = export(
        run, tmp_path / "pets.onnx", "--calibration-images", "8", "--triton", tmp_path / "r", "--json"
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["triton"]["model_id"] == facts["model_id"]
    assert (tmp_path / "r" / "pets" / "1" / "model.onnx").read_bytes() == (
        tmp_path / "pets.onnx"
    ).read_bytes()


def test_wrong_usage_says_how(model: Path, tmp_path: Path) -> None:
    for words in ([model], [tmp_path / "run"]):
        done = export(*words)
        assert done.returncode == 2
        assert "vssl export" in done.stderr
    done = export(model, tmp_path / "other.onnx")
    assert done.returncode == 1
    assert "found no value encoder_projected" in done.stderr
