"""Weights under torchvision's and timm's names begin a run, from a file and from where they are published."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.train.picture_folder import TINY, write_pictures
from train.loop.run import train_images
from train.methods import new_encoder
from train.models.encoder import Encoder
from train.models.published_weights import PRETRAINED, published_weights
from train.models.weights import initialise, read_weights
from train.settings.config import NetworkConfig, TrainConfig
from train.settings.recipe import merge
from vssl.errors import InputError, MismatchError

needs_timm = pytest.mark.skipif(
    find_spec("timm") is None, reason="timm is not installed (the extra backbones)"
)
SMALL = "shufflenet_v2_x0_5"  # torchvision's smallest


def encoder(name: str, size: int = 32, stem: str = "large") -> Encoder:
    network = NetworkConfig(name, 8, stem, 6, 8, 8, 8)
    return new_encoder(TrainConfig(method="simclr", size=size, cache_size=size, network=network))


def test_a_file_of_torchvisions_names_begins_a_backbone(tmp_path: Path) -> None:
    from torchvision import models

    torch.manual_seed(4)
    whole = models.get_model(SMALL).eval()
    for wrapped, path in (
        (whole.state_dict(), tmp_path / "plain.pth"),
        ({"state_dict": {f"module.{k}": v for k, v in whole.state_dict().items()}}, tmp_path / "nested.pth"),
    ):
        torch.save(wrapped, path)
        student = encoder(f"torchvision/{SMALL}").eval()
        before = {k: v.clone() for k, v in student.projector.state_dict().items()}
        initialise(student, read_weights(path), str(path))
        images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
        whole.fc = torch.nn.Identity()
        with torch.inference_mode():
            expected = whole(student.normalise(images))
            assert torch.equal(student(images).features, expected)
        assert all(torch.equal(v, before[k]) for k, v in student.projector.state_dict().items())


@needs_timm
def test_a_file_of_timms_names_begins_a_transformer_for_smaller_pictures(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(4)
    whole = timm.create_model("test_vit")  # for 160 px, 10 x 10 patches
    save_file(whole.state_dict(), tmp_path / "vit.safetensors")
    student = encoder("timm/test_vit", 32)
    initialise(student, read_weights(tmp_path / "vit.safetensors"), "vit.safetensors")
    fresh = timm.create_model(
        "test_vit",
        pretrained=True,
        num_classes=0,
        img_size=32,
        pretrained_cfg_overlay={"state_dict": whole.state_dict()},
    )
    expected = fresh.state_dict()
    found = {
        k.removeprefix("backbone.model."): v
        for k, v in student.state_dict().items()
        if k.startswith("backbone.")
    }
    assert found.keys() == expected.keys()
    assert all(torch.equal(v, found[k]) for k, v in expected.items())
    assert found["pos_embed"].shape != whole.state_dict()["pos_embed"].shape


def test_what_does_not_fit_is_named_with_what_to_set(tmp_path: Path) -> None:
    weights = encoder(f"torchvision/{SMALL}").backbone.model
    assert weights is not None
    with pytest.raises(MismatchError, match=r"network.backbone = \"torchvision/resnet18\""):
        initialise(encoder("resnet18"), {"layer1.0.conv1.weight": torch.zeros(1)}, "file.pth")
    with torch.device("meta"):
        given, small = encoder("torchvision/resnet18"), encoder("torchvision/resnet18", stem="small")
        assert given.backbone.model is not None
        with pytest.raises(MismatchError, match=r'found \(64, 3, 7, 7\).*(.|\n)*fit the stem "large"'):
            initialise(small, given.backbone.model.state_dict(), "file.pth")


def test_published_weights_come_from_the_librarys_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(9)
    kept = models.get_model(SMALL).state_dict()
    file = Path(models.get_model_weights(SMALL).DEFAULT.url).name
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(kept, tmp_path / "hub" / "checkpoints" / file)
    pictures = write_pictures(tmp_path / "pictures", 12)
    over = {"epochs": 0, "size": 32, "cache_size": 32, "network": {"backbone": SMALL, "stem": "large"}}
    outcome = train_images(
        str(pictures),
        tmp_path / "run",
        recipe="small",
        settings=merge(TINY, over),
        device="cpu",
        threads=1,
        init=PRETRAINED,
    )
    student = outcome.checkpoint.student
    assert torch.equal(student["backbone.model.conv5.0.weight"], kept["conv5.0.weight"])
    assert outcome.checkpoint.summary["init"] == "pretrained"


@needs_timm
def test_timms_come_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    torch.manual_seed(9)
    kept = timm.create_model("test_convnext").state_dict()
    place = tmp_path / "models--timm--test_convnext.r160_in1k"
    (place / "snapshots" / "1").mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("1")
    save_file(kept, place / "snapshots" / "1" / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    student = encoder("timm/test_convnext")
    initialise(student, published_weights("timm/test_convnext"), "pretrained")
    assert torch.equal(student.state_dict()["backbone.model.stem.0.weight"], kept["stem.0.weight"])


def test_where_they_cannot_be_had_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(InputError, match=r"cannot be fetched from https://.*pth.*give it: --init .*\.pth"):
        published_weights(f"torchvision/{SMALL}")
    with pytest.raises(InputError, match=r"network of this project.*torchvision/resnet18"):
        published_weights("resnet18")


@needs_timm
def test_timms_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"cannot be fetched from .*timm/test_convnext.*give it: --init"):
        published_weights("timm/test_convnext")
    with pytest.raises(InputError, match="timm has no weights"):
        published_weights("timm/vit_tiny_patch16_384_nonesuch")
