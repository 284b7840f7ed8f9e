"""The folder for the hub: timm loads the same network, onnxruntime the same model, and the card is YAML."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import vssl
from export.calibration.head import CalibrationConfig
from export.package import ExportOptions
from export.repositories.hugging_face import timm_network, write_folder
from tests.support.tiny_model import picture, tiny_model
from tests.support.tiny_run import image_folder
from train.loop.run import train_images
from train.models.backbones import Backbone
from train.settings.config import NetworkConfig
from vssl.errors import ExistsError
from vssl.model.identity import sha256_file

timm: Any = pytest.importorskip("timm")
QUICK = CalibrationConfig(images=24, views=2, worse=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of timm's smallest residual network, untrained, and its folder."""
    home = tmp_path_factory.mktemp("hub")
    images = image_folder(home / "images", 60)
    settings = {"network": {"backbone": "timm/test_resnet", "stem": "large"}, "size": 64, "cache_size": 72}
    train_images(str(images), home / "run", recipe="small", settings=settings, options={"epochs": 0})
    options = ExportOptions(
        name="pets", licence="Apache-2.0", evaluation_source=str(images), space="features", calibration=QUICK
    )
    vssl.export(home / "run", home / "model.onnx", hf=home / "hub", options=options)
    return home / "model.onnx", home / "hub"


def test_timm_loads_the_folder_and_answers_with_the_same_features(written: tuple[Path, Path]) -> None:
    model, folder = written
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(network)
    assert config["input_size"] == (3, 64, 64)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    assert tuple(settings["image_mean"]) == pytest.approx(config["mean"])
    mean, std = (torch.tensor(settings[f"image_{name}"]).view(1, 3, 1, 1) for name in ("mean", "std"))
    pixels = np.stack([np.asarray(Image.fromarray(picture(n)).resize((64, 64))) for n in range(3)])
    normalised = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        theirs = network(normalised.float()).numpy()
    ours = vssl.load(model).engine.infer(pixels).features
    np.testing.assert_allclose(theirs, ours, atol=1e-4 * np.abs(ours).max())


def test_the_model_is_in_the_folder_byte_for_byte(written: tuple[Path, Path]) -> None:
    model, folder = written
    assert sha256_file(folder / "onnx" / "model.onnx") == sha256_file(model)


def test_the_card_says_licence_task_and_what_was_measured(written: tuple[Path, Path]) -> None:
    card = (written[1] / "README.md").read_text()
    described = yaml.safe_load(card.split("---")[1])
    assert (described["license"], described["library_name"]) == ("apache-2.0", "timm")
    assert described["pipeline_tag"] == "image-feature-extraction"
    (result,) = described["model-index"][0]["results"]
    measured = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert measured["knn_top1"] == vssl.load(written[0]).card.measured["knn_top1"]
    assert f"onnx/model.onnx` (model id {sha256_file(written[0])[:12]})" in card


def test_a_network_that_timm_lacks_is_written_as_onnx_with_the_reason(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx")
    made = write_folder(model, tmp_path / "hub")
    assert made.timm == "only the ONNX graph of the encoder is known"
    assert {path.name for path in (tmp_path / "hub").iterdir()} == {
        "onnx",
        "README.md",
        "preprocessor_config.json",
    }
    assert yaml.safe_load((tmp_path / "hub" / "README.md").read_text().split("---")[1])["license"] == "other"
    with pytest.raises(ExistsError):
        write_folder(model, tmp_path / "hub")
    assert write_folder(model, tmp_path / "hub", overwrite=True).model_id == made.model_id


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet10", "torchvision/resnet18", "torchvision/mobilenet_v3_small"]
)
def test_networks_of_other_names_are_found_in_timm_where_they_are_the_same(name: str) -> None:
    backbone = Backbone(replace(NetworkConfig(), backbone=name, stem="large", width=64)).eval()
    twin = timm_network(timm, backbone)
    if twin is None:
        assert "mobilenet" in name
        return
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(twin(pictures), backbone(pictures))


def test_small_stems_have_no_counterpart() -> None:
    for name in ("resnet18", "resnet8"):
        stem = "large" if name == "resnet8" else "small"
        assert timm_network(timm, Backbone(replace(NetworkConfig(), backbone=name, stem=stem))) is None
