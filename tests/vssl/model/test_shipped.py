"""The model that comes with the package answers as its card says, without any other file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from serve.inference.engine import Engine
from serve.inference.verify import verify_file
from tests.support.tiny_model import picture
from vssl.embeddings.store import read_embeddings
from vssl.model.card import PREDICTED_UNCERTAINTY
from vssl.model.shipped import CIFAR10, PHOTOS, shipped_model

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "cifar10"


def test_the_photo_encoder_says_what_it_is_and_whose() -> None:
    assert all(check.passed for check in verify_file(shipped_model()))
    card = Engine.open(shipped_model(), check=False).card
    assert (card.method, card.licence, card.supervision) == ("published", "Apache-2.0", "labels")
    assert card.backbone == "timm/tf_efficientnet_lite0"
    assert card.pixel_mean == card.pixel_std == (0.5, 0.5, 0.5)
    assert card.uncertainty_fit is not None
    assert card.calibration.warnings() == []
    assert shipped_model().stat().st_size < 10_000_000


def test_it_and_the_photos_of_the_demo_are_attributed() -> None:
    notice = (Path(__file__).resolve().parents[3] / "NOTICE").read_text(encoding="utf-8")
    assert f"vssl/model/{PHOTOS}" in notice
    assert "Apache License 2.0" in notice
    assert "vssl/cli/demo_photos.tar" in notice


def test_the_small_models_checks_pass_and_its_card_says_what_it_is() -> None:
    small = shipped_model(CIFAR10)
    assert all(check.passed for check in verify_file(small))
    card = Engine.open(small, check=False).card
    assert (card.method, card.licence) == ("vssl", "Apache-2.0")
    assert card.training["source"] == "cifar10"
    assert card.calibration.kind == "fitted-head"
    assert card.calibration.warnings() == []
    assert card.uncertainty_fit is not None
    assert card.uncertainty == PREDICTED_UNCERTAINTY
    assert set(card.measured) == {"source", "images", "knn_top1", "r_auroc"}
    assert small.stat().st_size < 4_000_000


def test_extract_uses_it_when_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.fromarray(picture(number)).save(tmp_path / "images" / f"{number}.png")
    command = [sys.executable, "-m", "vssl", "extract", str(tmp_path / "images"), str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True)
    found = read_embeddings(tmp_path / "out")
    assert found.model_id == Engine.open(shipped_model(), check=False).model_id
    assert len(found.rows.gaussians) == 3


@pytest.mark.skipif(not DATA.is_dir(), reason="needs CIFAR-10 in ../shared/data")
def test_on_real_test_images_it_reaches_what_its_card_says(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vssl"]
    out, report = tmp_path / "test", tmp_path / "report.json"
    subprocess.run(
        [*command, "extract", f"cifar10:{DATA}:test", str(out), "--model", str(shipped_model(CIFAR10))],
        check=True,
        capture_output=True,
    )
    subprocess.run(
        [*command, "evaluate", str(out), str(out), "--report", str(report), "--resamples", "20"],
        check=True,
        capture_output=True,
    )
    metrics = json.loads(report.read_text())["metrics"]
    measured = Engine.open(shipped_model(CIFAR10), check=False).card.measured
    assert metrics["r_auroc"] == pytest.approx(measured["r_auroc"], abs=0.02)
    assert metrics["knn_top1"] == pytest.approx(measured["knn_top1"], abs=0.01)
