"""A published backbone that is trained on: how it sees pictures, what moves and how far, which state is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.sources.run import run_encoder
from tests.train.picture_folder import TINY, write_pictures
from train.loop.optimisers import build_optimiser, set_rate
from train.loop.run import train_images
from train.loop.step import Learner, Length
from train.methods import build_encoder
from train.models.heads import AnchoredProjector
from train.settings.config import OptimiserConfig, TrainConfig
from train.settings.recipe import merge
from train.state.checkpoint import Checkpoint
from train.state.metrics_log import read_metrics
from vssl.errors import InputError

SMALL = "shufflenet_v2_x0_5"  # torchvision's smallest
HEADS = {"network": {**TINY["network"], "backbone": SMALL, "stem": "large"}}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures", side=40)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as torchvision names them."""
    from torchvision import models

    torch.manual_seed(4)
    file = tmp_path_factory.mktemp("published") / "shuffle.pth"
    torch.save(models.get_model(SMALL).state_dict(), file)
    return file


def run(pictures: Path, out: Path, init: Path | None, **over: Any) -> Checkpoint:
    settings = merge(merge(TINY, {**HEADS, "size": 32, "cache_size": 32}), over)
    outcome = train_images(
        str(pictures), out, recipe="folder", settings=settings, device="cpu", threads=1, init=init
    )
    return outcome.checkpoint


def test_a_published_backbone_sees_pictures_as_its_weights_expect_them(
    pictures: Path, published: Path, tmp_path: Path
) -> None:
    ended = run(pictures, tmp_path / "run", published, epochs=0)
    assert ended.config.finetune
    assert not ended.config.freeze
    assert ended.config.mean == (0.485, 0.456, 0.406)
    assert ended.config.std == (0.229, 0.224, 0.225)
    # torchvision shrinks to 256 and takes the middle 224: the same share of 32.
    assert (ended.preprocess.size, ended.preprocess.resize) == (32, round(256 * 32 / 224))
    assert isinstance(build_encoder(ended).projector, AnchoredProjector)


def test_a_backbone_of_a_small_share_hardly_moves_and_its_norms_keep_their_statistics() -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 16, 16, 3), generator=random, dtype=torch.uint8)
    length = Length(steps_per_epoch=5, total=20, images_per_step=16)
    moved = {}
    for share in (1.0, 0.01):
        optimiser = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0, "backbone_lr": share}
        settings = merge(TINY, {"method": "simsiam", "finetune": True, "optimiser": optimiser})
        learner = Learner(TrainConfig.from_dict(settings), length, 0, torch.device("cpu"))
        backbone = learner.method.student.backbone
        before = {name: value.clone() for name, value in backbone.state_dict().items()}
        learner.step(10, [images], None)
        after = backbone.state_dict()
        statistics = [name for name in before if "running" in name]
        assert statistics
        assert all(torch.equal(before[name], after[name]) for name in statistics)
        moved[share] = {name: after[name] - before[name] for name, _ in backbone.named_parameters()}
    for name, change in moved[1.0].items():
        assert change.abs().max() > 0, name
        torch.testing.assert_close(moved[0.01][name], change * 0.01, rtol=1e-2, atol=1e-7)


def test_the_rate_of_a_backbone_is_its_share_of_every_steps_rate() -> None:
    backbone, head = nn.Linear(3, 3), nn.Linear(3, 2)
    whole = nn.ModuleDict({"backbone": backbone, "head": head})
    for name in ("lars", "sgd", "adamw"):
        config = OptimiserConfig(name=name, lr=0.5, backbone_lr=0.01)
        optimiser = build_optimiser([whole], config, backbone=backbone)
        set_rate(optimiser, 0.2, 0.5)
        rates = {id(weight): group["lr"] for group in optimiser.param_groups for weight in group["params"]}
        assert [rates[id(w)] for w in head.parameters()] == [0.2, 0.2], name
        assert [rates[id(w)] for w in backbone.parameters()] == pytest.approx([0.002, 0.002]), name


def test_the_state_of_the_best_view_recall_is_kept(pictures: Path, tmp_path: Path) -> None:
    begun = train_images(
        str(pictures), tmp_path / "begun", recipe="small", settings=TINY, device="cpu", threads=1
    )
    backbone = {n: v for n, v in begun.checkpoint.student.items() if n.startswith("backbone.")}
    torch.save(backbone, tmp_path / "backbone.pth")
    settings = merge(TINY, {"finetune": True, "epochs": 3, "optimiser": {"lr": 10.0, "clip_norm": 1.0}})
    ended = train_images(
        str(pictures), tmp_path / "run", recipe="small", settings=settings, device="cpu", threads=1,
        init=tmp_path / "backbone.pth",
    ).checkpoint  # fmt: skip
    recalls = [row["view_recall_mean"] for row in read_metrics(tmp_path / "run")]
    assert len(recalls) == 4
    assert ended.summary["kept_epoch"] == int(np.argmax(recalls))
    same = all(torch.equal(ended.student[name], value) for name, value in backbone.items())
    assert same == (ended.summary["kept_epoch"] == 0)


def test_what_cannot_be_trained_on_is_refused(pictures: Path, published: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--init pretrained, or --init weights\.pth"):
        run(pictures, tmp_path / "run", None, finetune=True)
    with pytest.raises(InputError, match=r"finetune: found true together with freeze.*choose one"):
        TrainConfig.from_dict({"freeze": True, "finetune": True})


def test_its_card_says_what_it_began_as(pictures: Path, published: Path, tmp_path: Path) -> None:
    source = run_encoder(run(pictures, tmp_path / "run", published, epochs=0))
    assert source.weights == f"fine-tuned by vssl from torchvision/{SMALL}"
    assert (source.supervision, source.whitening) == ("labels", 0.0)
