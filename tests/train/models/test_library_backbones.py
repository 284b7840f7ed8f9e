"""Networks of torchvision and timm give one vector a picture, at any side that they can take."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from train.loop.synced_batchnorm import share_batches
from train.methods import new_encoder, new_method
from train.models.backbones import Backbone
from train.models.encoder import Encoder
from train.models.library_backbones import build_outside, feature_dim
from train.settings.config import NetworkConfig, TrainConfig
from train.state.distributed import SINGLE
from vssl.errors import InputError

needs_timm = pytest.mark.skipif(
    find_spec("timm") is None,
    reason="timm is not installed (the extra backbones)",
)
SMALL = {  # the smallest of each family, and F
    "torchvision/resnet18": 512,
    "torchvision/shufflenet_v2_x0_5": 1024,
    "timm/resnet18": 512,
    "timm/test_convnext": 64,
    "timm/test_vit": 64,
    "timm/test_efficientnet": 256,
}


def names(*, of: str = "") -> list[Any]:
    return [
        pytest.param(name, marks=[needs_timm] if name.startswith("timm/") else [])
        for name in SMALL
        if of in name
    ]


def config(name: str, size: int = 32, stem: str = "large") -> TrainConfig:
    return TrainConfig(
        method="simclr", size=size, cache_size=size, network=NetworkConfig(name, 8, stem, 6, 8, 8, 8)
    )


def pictures(size: int, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("size", [32, 64])
def test_features_are_one_vector_a_picture(name: str, size: int) -> None:
    encoder = new_encoder(config(name, size)).eval()
    with torch.inference_mode():
        output = encoder(pictures(size))
    assert encoder.feature_dim == SMALL[name] == feature_dim(name, "large", size)
    assert output.features.shape == (3, SMALL[name])
    assert output.mean.shape == (3, 6)
    assert not torch.allclose(output.features[0], output.features[1])


@pytest.mark.parametrize("name", names())
def test_the_classifier_is_gone_and_its_name_is_known(name: str) -> None:
    from torchvision import models

    library, _, bare = name.partition("/")
    backbone = Backbone(NetworkConfig(name, stem="large"))
    if library == "torchvision":
        whole = models.get_model(bare)
    else:
        import timm

        whole = timm.create_model(bare)
    assert backbone.model is not None
    gone = set(whole.state_dict()) - set(backbone.model.state_dict())
    assert gone == {f"{backbone.classifiers[0]}.{part}" for part in ("weight", "bias")}


@pytest.mark.parametrize("name", names(of="resnet18"))
def test_smaller_stems_of_residual_networks_keep_more_of_a_picture(name: str) -> None:
    # The map of features before pooling is 32 times smaller than the picture with the stock stem.
    sides = {stem: last_map(name, stem) for stem in ("large", "medium", "small")}
    assert sides == {"large": 1, "medium": 2, "small": 4}


@needs_timm
@pytest.mark.parametrize("name", ["timm/test_convnext", "torchvision/convnext_tiny"])
def test_smaller_stems_of_convnexts_keep_more_of_a_picture(name: str) -> None:
    with torch.device("meta"):
        sides = {stem: last_map(name, stem) for stem in ("large", "medium", "small")}
    assert sides["medium"] == 2 * sides["large"]
    assert sides["small"] == 4 * sides["large"]


def last_map(name: str, stem: str) -> int:
    """The side of the last map that a network of convolutions makes of 32 px."""
    seen: list[int] = []
    model = build_outside(name, stem, 32).model.eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[-1]))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    return seen[-1]


@needs_timm
def test_a_transformer_has_a_position_for_each_patch_of_its_pictures() -> None:
    for size, stem, patches in ((32, "large", 2), (64, "large", 4), (32, "medium", 4), (32, "small", 8)):
        found = Backbone(NetworkConfig("timm/test_vit", stem=stem))
        found.fit(size)
        state = found.state_dict()
        assert state["model.pos_embed"].shape[1] in (patches**2, patches**2 + 1)


def test_torchvisions_transformer_is_built_for_its_pictures_too() -> None:
    with torch.device("meta"):  # it has 86 million parameters
        model = build_outside("torchvision/vit_b_16", "medium", 32).model
        assert model.state_dict()["encoder.pos_embedding"].shape == (1, 17, 768)
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 768)


@needs_timm
@pytest.mark.parametrize(
    ("name", "size", "stem"),
    [
        ("timm/test_vit", 40, "large"),  # no multiple of its patches
        ("timm/vit_small_patch16_224", 30, "large"),  # which timm would cut down to one patch of 16 px
        ("torchvision/vit_b_16", 40, "large"),
        ("timm/test_convnext", 16, "large"),  # nothing is left of it
        ("timm/mixer_s32_224", 32, "large"),  # made for one side
    ],
)
def test_a_side_that_it_cannot_take_is_refused(name: str, size: int, stem: str) -> None:
    with pytest.raises(InputError, match=rf"takes no pictures of {size} px .*choose another size"):
        feature_dim(name, stem, size)


@needs_timm
def test_a_stem_that_cannot_be_changed_is_refused() -> None:
    with pytest.raises(InputError, match="use the stem large"):
        build_outside("timm/test_resnet", "small", 32)


@pytest.mark.parametrize("name", [*names(of="shufflenet"), *names(of="test_")])
def test_a_training_step_moves_every_weight(name: str) -> None:
    torch.manual_seed(0)
    method = new_method(config(name, 32)).to(memory_format=torch.channels_last)
    method.train()
    views = pictures(32, 8).float()
    output = method(views, views.flip(2), torch.Generator().manual_seed(1))
    output.loss.backward()  # type: ignore[no-untyped-call]
    still = [
        n
        for n, p in method.student.backbone.named_parameters()
        if p.grad is None or not torch.isfinite(p.grad).all() or not p.grad.any()
    ]
    # A class token that a network pools away has nothing to learn; all else has.
    assert [n for n in still if "cls_token" not in n and "rel_pos" not in n] == []


# The last one's own classifier comes with dropout.
@pytest.mark.parametrize("name", [*names(of="test_"), "torchvision/mnasnet0_5"])
def test_nothing_is_left_to_chance_in_training(name: str) -> None:
    encoder = new_encoder(config(name, 32)).train()
    again = copy.deepcopy(encoder)
    found = [e(pictures(32, 8)).features for e in (encoder, again)]
    assert torch.equal(*found)


@needs_timm
def test_shared_batch_norms_keep_the_activations_that_timms_carry() -> None:
    method = new_method(config("timm/test_efficientnet"))
    plain: Encoder = copy.deepcopy(method.student).eval()
    share_batches(method, SINGLE)
    method.eval()
    with torch.inference_mode():
        found, expected = (e(pictures(32)).features for e in (method.student, plain))
    assert torch.equal(found, expected)
