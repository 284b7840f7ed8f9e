"""A library's network with a file of weights: the same numbers, its own preprocessing, no silent mismatch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import models

from export.package import ExportOptions, export_encoder
from export.sources.encoder_graph import OnnxEncoder
from export.sources.named import EncoderOptions, find_encoder
from export.sources.published import published_encoder
from tests.support.tiny_model import picture
from train.models.published_weights import library_info
from vssl.errors import InputError, MismatchError
from vssl.images.preprocess import Preprocess

NAME = "torchvision/shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return models.get_model("shufflenet_v2_x0_5", weights=None).eval()


@pytest.fixture(scope="module")
def weights(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "shuffle.pth"
    torch.save(network.state_dict(), path)
    return path


def test_its_features_are_those_of_the_library(network: torch.nn.Module, weights: Path) -> None:
    source = published_encoder(NAME, weights, size=64)
    pixels = np.stack([np.resize(picture(n), (64, 64, 3)) for n in range(3)])
    normal = (torch.from_numpy(pixels).double() / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    with torch.inference_mode():
        x = normal.permute(0, 3, 1, 2).float()
        for stage in ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"):
            x = network.get_submodule(stage)(x)
        expected = x.mean([2, 3]).numpy()
        found = OnnxEncoder(source.graph)(torch.from_numpy(pixels)).features.numpy()
        own = source.encode(torch.from_numpy(pixels)).features.numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-4 * scale)
    np.testing.assert_allclose(own, expected, atol=1e-4 * scale)


def test_its_preprocessing_is_that_of_the_weights() -> None:
    info = library_info(NAME)
    assert info.preprocess == Preprocess(size=224, resize=256, interpolation="bilinear")
    assert (info.pixel_mean, info.supervision) == ((0.485, 0.456, 0.406), "labels")
    timm = library_info("timm/tf_efficientnet_lite0")
    assert timm.preprocess == Preprocess(size=224, resize=256, interpolation="bicubic")
    assert (timm.pixel_mean, timm.pixel_std) == ((0.5,) * 3, (0.5,) * 3)
    assert (timm.supervision, timm.licence) == ("labels", "apache-2.0")
    assert library_info("timm/vit_small_patch16_224.dino").supervision == "none"


def test_another_side_keeps_the_share_of_the_crop(weights: Path) -> None:
    assert published_encoder(NAME, weights, size=112).preprocess == Preprocess(
        size=112, resize=128, interpolation="bilinear"
    )


def test_the_same_tensors_under_other_names_are_taken_in_order(
    network: torch.nn.Module, weights: Path, tmp_path: Path
) -> None:
    renamed = {f"layer{n}.{k.rpartition('.')[2]}": v for n, (k, v) in enumerate(network.state_dict().items())}
    partly = {k if n < 5 else f"more.{k}": v for n, (k, v) in enumerate(network.state_dict().items())}
    picture_ = torch.from_numpy(np.resize(picture(5), (1, 64, 64, 3)))
    with torch.inference_mode():
        plain = published_encoder(NAME, weights, size=64).encode(picture_).features
        for names in (renamed, partly):
            torch.save(names, tmp_path / "renamed.pth")
            other = published_encoder(NAME, tmp_path / "renamed.pth", size=64)
            assert torch.equal(plain, other.encode(picture_).features)
    swapped = list(renamed.items())
    swapped[1], swapped[2] = swapped[2], swapped[1]  # weight and bias: the same shape, another meaning
    torch.save(dict(swapped), tmp_path / "swapped.pth")
    with pytest.raises(MismatchError, match="tensors do not fit"):
        published_encoder(NAME, tmp_path / "swapped.pth", size=64)


def test_a_projector_that_was_never_trained_is_not_served(weights: Path, tmp_path: Path) -> None:
    source = find_encoder(NAME, EncoderOptions(weights=weights, size=64))
    options = ExportOptions(space="projector", calibration_source=str(tmp_path))
    with pytest.raises(InputError, match="has none here that was trained; serve --space features"):
        export_encoder(source, tmp_path / "m.onnx", options)


def test_names_of_no_published_network_are_refused() -> None:
    with pytest.raises(InputError, match="nothing is published; train it"):
        published_encoder("resnet8")
    with pytest.raises(InputError, match="shufflenet_v2_x0_5"):
        published_encoder("torchvision/shufflenet_v2_x05")


@pytest.mark.parametrize("name", ["missing", "runs/missing"])
def test_a_run_that_is_not_there_is_said_to_be_none(name: str) -> None:
    with pytest.raises(
        InputError, match=f"there is no run, checkpoint or ONNX file '{name}' here, and no network"
    ):
        find_encoder(name, EncoderOptions())
