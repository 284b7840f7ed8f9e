"""One name a network: the project's own plain, others with their library, unknown ones with what is near."""

from __future__ import annotations

import sys

import pytest

from train.settings.backbone_names import full_name
from train.settings.config import NetworkConfig, TrainConfig
from vssl.errors import InputError


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("resnet18", "resnet18"),  # this project's, although both libraries have one of this name
        ("torchvision/resnet18", "torchvision/resnet18"),
        ("resnet50", "torchvision/resnet50"),
        ("convnext_tiny", "torchvision/convnext_tiny"),
        ("vit_b_16", "torchvision/vit_b_16"),
    ],
)
def test_a_name_means_one_network(written: str, meant: str) -> None:
    assert full_name(written) == meant
    assert full_name(meant) == meant


def test_other_names_are_looked_up_in_timm() -> None:
    pytest.importorskip("timm", reason="timm is not installed (the extra backbones)")
    assert full_name("vit_small_patch16_224") == "timm/vit_small_patch16_224"
    assert full_name("timm/resnet50") == "timm/resnet50"
    assert full_name("vit_small_patch16_224.dino") == "timm/vit_small_patch16_224.dino"
    with pytest.raises(InputError, match=r"vit_small_patch16_224\.dino"):
        full_name("timm/vit_small_patch16_224.nobody")


def test_settings_and_checkpoints_say_the_full_name() -> None:
    config = TrainConfig(network=NetworkConfig("resnet50", stem="large"))
    assert config.to_dict()["network"]["backbone"] == "torchvision/resnet50"
    assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "near it: .*resnet18"),
        ("torchvision/convnext_tinny", "near it: torchvision/convnext_tiny"),
        ("torchvision/vgg11", "torchvision's families resnet, .*; timm has more"),
        ("huggingface/resnet50", "torchvision/NAME or timm/NAME"),
        ("nonesuch", "expected one of resnet18, resnet10, resnet8"),
        ("", "expected one of resnet18"),
    ],
)
def test_unknown_names_are_refused_with_near_ones(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NetworkConfig(name)


def test_without_timm_its_names_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # an import fails as where it is not installed
    for name in ("timm/vit_tiny_patch16_224", "vit_tiny_patch16_224"):
        with pytest.raises(InputError, match=r"pip install 'vssl\[backbones\]'"):
            NetworkConfig(name)
    assert full_name("resnet50") == "torchvision/resnet50"
