"""A model of vssl, calibrated on other images: the same encoder, with the heads that it would be given there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from export.calibration.head import CalibrationConfig
from export.package import Exported, ExportOptions, export_encoder, export_run
from export.sources.exported_model import exported_encoder
from export.sources.named import EncoderOptions, find_encoder
from export.verify import run_model
from tests.export.sources.test_onnx_encoder import CLIP, SIDE, patch_encoder
from tests.support.tiny_model import picture, tiny_model
from tests.support.tiny_run import image_folder, tiny_run
from vssl.errors import FormatError, InputError
from vssl.images.preprocess import load_image
from vssl.model.card import CARD_KEY
from vssl.model.seal import sealed

QUICK = CalibrationConfig(images=80, views=4, worse=1, report_views=4, epochs=3)
MANY = CalibrationConfig(
    images=400, views=2, worse=1, report_views=4, epochs=3
)  # enough for an uncertainty of its own


def calibrated(source: Path, images: Path, out: Path, **options: Any) -> Exported:
    asked = ExportOptions(**{"calibration_source": str(images), "calibration": QUICK, **options})
    return export_encoder(find_encoder(str(source), EncoderOptions()), out, asked)


def outputs(model: Exported, images: Path) -> dict[str, np.ndarray]:
    pixels = [load_image(path.read_bytes(), model.card.preprocess) for path in sorted(images.rglob("*.png"))]
    return run_model(model.path.read_bytes(), np.stack(pixels))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders of images of which no two are alike."""
    root = tmp_path_factory.mktemp("images")
    second = root / "second"
    second.mkdir()
    for number in range(400):
        Image.fromarray(picture(1000 + number, (40, 34)) // 2).save(second / f"{number:03d}.png")
    return image_folder(root / "first"), second


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "preprocessor_config.json").write_text(json.dumps(CLIP))
    return patch_encoder(folder / "encoder.onnx")


@pytest.fixture(scope="module")
def before(encoder: Path, folders: tuple[Path, Path]) -> Exported:
    """A model calibrated on the first images."""
    return calibrated(
        encoder, folders[0], encoder.with_name("a.onnx"), dim=6, half_weights=True, licence="MIT"
    )


def test_it_says_what_an_export_of_its_encoder_on_those_images_says(
    encoder: Path, before: Exported, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images = folders[1]
    given: dict[str, Any] = {"calibration": MANY, "half_weights": True, "name": "m"}
    direct = calibrated(encoder, images, tmp_path / "b.onnx", dim=6, licence="MIT", **given)
    again = calibrated(before.path, images, tmp_path / "c.onnx", **given)
    expected, found = outputs(direct, images), outputs(again, images)
    assert set(found) == set(expected) == {"mean", "variance", "features", "uncertainty"}
    # Numbers are rounded before the fit, which the uncertainty of an image between two directions feels most.
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=0.04)
        assert np.abs(found[name] - expected[name]).mean() < 0.002
    assert not np.allclose(outputs(before, images)["mean"], found["mean"], atol=0.05)
    assert again.card.calibration.images == 400 > before.card.calibration.images
    same = {name: getattr(direct.card, name) for name in ("calibration", "uncertainty_fit", "created")}
    assert replace(again.card, **same) == direct.card


def test_a_trained_encoder_keeps_its_space_and_all_it_computes_before_the_heads(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tiny_run(tmp_path / "run", folders[0])
    before = export_run(run, tmp_path / "a.onnx", ExportOptions(space="projector", calibration=QUICK))
    again = calibrated(before.path, folders[1], tmp_path / "b.onnx")
    old, new = outputs(before, folders[1]), outputs(again, folders[1])
    np.testing.assert_array_equal(old["features"], new["features"])
    shown = ("space", "dim", "whitening", "method", "backbone", "preprocess", "training", "weights", "branch")
    assert [getattr(again.card, x) for x in shown] == [getattr(before.card, x) for x in shown]
    # What all of the new images have in common is taken off, where that of the first ones was.
    assert np.abs(new["mean"].mean(0)).max() < 1e-3 < np.abs(old["mean"].mean(0)).max()
    # One linear map leads from the means of before to those of now: nothing else of the encoder is another.
    known = np.c_[old["mean"], np.ones(len(old["mean"]))].astype(np.float64)
    mapped = known @ np.linalg.lstsq(known, new["mean"].astype(np.float64), rcond=None)[0]
    np.testing.assert_allclose(mapped, new["mean"], atol=1e-3 * np.abs(new["mean"]).max())


def test_a_file_that_no_longer_holds_its_encoder_is_refused(
    before: Exported, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    model = onnx.load(str(before.path))
    helper.set_model_props(model, {CARD_KEY: replace(before.card, precision="int8").to_json()})
    (tmp_path / "int8.onnx").write_bytes(sealed(model.SerializeToString()))
    with pytest.raises(
        InputError, match="computes in int8, which has changed its features; give the fp32 file"
    ):
        exported_encoder(tmp_path / "int8.onnx")
    with pytest.raises(InputError, match="found no value encoder_projected, behind which its heads begin"):
        exported_encoder(tiny_model(tmp_path / "tiny.onnx"))
    with pytest.raises(InputError, match="needs images to calibrate on"):
        export_encoder(exported_encoder(before.path), tmp_path / "no.onnx", ExportOptions())
    with pytest.raises(
        InputError, match=r"encoder and preprocessing stay as they are; leave out --weights, --size"
    ):
        find_encoder(str(before.path), EncoderOptions(size=SIDE))
    with pytest.raises(
        InputError, match="space: found projector, but encoder has none here that was trained"
    ):
        calibrated(before.path, folders[0], tmp_path / "no.onnx", space="projector")
    data = bytearray(before.path.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "changed.onnx").write_bytes(data)
    with pytest.raises(FormatError, match="do not fit its seal"):
        exported_encoder(tmp_path / "changed.onnx")
