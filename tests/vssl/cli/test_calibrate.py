"""`vssl calibrate` fits what export would fit, says how well, and writes nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from export.calibration.head import CalibrationConfig
from export.package import ExportOptions, export_run
from tests.support.tiny_run import image_folder, tiny_run
from tests.vssl.cli.command import vssl


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return tiny_run(folder / "run", image_folder(folder / "images"))


def test_it_says_what_the_exported_file_will_say(run: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in run.iterdir())
    done = vssl("calibrate", run, "--calibration-images", 70, "--space", "projector", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == ["projector"]
    options = ExportOptions(calibration=CalibrationConfig(images=70))
    written = export_run(run, tmp_path / "model.onnx", options)
    assert found["projector"] == dataclasses.asdict(written.card.calibration)
    assert sorted(path.name for path in run.iterdir()) == before


def test_both_spaces_and_other_images(run: Path, tmp_path: Path) -> None:
    few = image_folder(tmp_path / "few", count=12)
    done = vssl("calibrate", run, few)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["features", "projector"]
    assert all("scale on 12 images" in line and "too few images to judge" in line for line in lines)
    assert f"--space projector --calibration {few}\n" in done.stderr


def test_the_export_it_proposes_is_the_one_that_it_judged(run: Path, tmp_path: Path) -> None:
    few = image_folder(tmp_path / "few", count=12)
    asked = ["--branch", "teacher", "--whitening", "0.25", "--calibration-images", "8", "--seed", "3"]
    done = vssl("calibrate", run, few, "--space", "features", *asked)
    assert done.returncode == 0, done.stderr
    proposed = done.stderr.splitlines()[-1].partition("vssl export ")[2]
    words = [str(run), "model.onnx", "--space", "features", "--calibration", str(few), *asked]
    assert sorted(proposed.split()) == sorted(words)


def test_an_unknown_space_is_wrong_usage_and_an_absent_run_an_error(tmp_path: Path) -> None:
    assert vssl("calibrate", tmp_path, "--space", "pixels").returncode == 2
    assert vssl("calibrate", tmp_path, "--calibration-images", "7").returncode == 2
    absent = vssl("calibrate", tmp_path / "absent")
    assert absent.returncode == 1
    assert "vssl train" in absent.stderr
