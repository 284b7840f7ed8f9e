"""What holds for every method: a finite step that moves the student, and an encoder to export."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from train.methods import METHODS, build_encoder, new_method
from train.settings.config import NetworkConfig, TrainConfig
from train.state.checkpoint import Checkpoint
from vssl.errors import InputError
from vssl.images.preprocess import Preprocess

SMALL: dict[str, dict[str, Any]] = {
    "deepcluster-v2": {"prototypes": 5, "rounds": 3},
    "moco-v2plus": {"queue": 24},
    "nnclr": {"queue": 24},
    "ressl": {"queue": 24},
    "swav": {"prototypes": 10, "queue": 16, "queue_from": 1, "frozen_steps": 0},
    "dino": {"prototypes": 10, "frozen_steps": 0, "centre_momentum": 1.0},
}
CASES = [
    *((name, SMALL.get(name, {})) for name in METHODS),
    ("vje", {"form": "strict", "kl_weight": 1.0}),
    ("vje", {"normalise": True}),
    ("vssl-gaussian", {"bounded": True}),
]


def config(name: str, options: dict[str, Any]) -> TrainConfig:
    return TrainConfig(
        method=name, network=NetworkConfig("resnet8", 8, "medium", 6, 16, 12, 12), options=options
    )


def views(seed: int) -> torch.Tensor:
    return 255 * torch.rand(8, 16, 16, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_steps_move_the_student_and_lower_the_loss(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    method = new_method(config(name, options))
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=0.003)
    first, second, losses = views(1), views(2), []
    rows = torch.arange(8)
    method.begin_epoch(lambda: [(rows, first)])
    for step in range(30):
        output = method(first, second, torch.Generator().manual_seed(step), rows)
        optimiser.zero_grad()
        output.loss.backward()
        for key, parameter in method.student.backbone.named_parameters():
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all()
        optimiser.step()
        losses.append(output.loss.item())
        assert output.features.shape[1:] == (8, 32)
    # With views and teacher fixed there is something to fit for each of them.
    assert sum(losses[-5:]) < sum(losses[5:10])
    if method.teacher is not None:
        assert all(p.grad is None for p in method.teacher.parameters())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_encoder_is_built_from_a_checkpoint(name: str, options: dict[str, Any]) -> None:
    method = new_method(config(name, options))
    checkpoint = Checkpoint(
        config=method.config,
        preprocess=Preprocess(size=16, resize=16),
        student=method.student.state_dict(),
        teacher=None if method.teacher is None else method.teacher.state_dict(),
        heads=method.heads.state_dict(),
        step=0,
        epoch=0,
    )
    method.eval()
    images = views(3).to(torch.uint8)
    found, expected = build_encoder(checkpoint)(images), method.student(images)
    torch.testing.assert_close(found.mean, expected.mean)
    assert (found.raw_variance is not None) == name.startswith("v") * (name != "vicreg")
    if method.teacher is None:
        with pytest.raises(InputError, match="keeps no teacher"):
            build_encoder(checkpoint, "teacher")
    else:
        assert build_encoder(checkpoint, "teacher")(images).mean.shape == (8, 6)
    with pytest.raises(InputError, match="student or teacher"):
        build_encoder(checkpoint, "prior")


@pytest.mark.parametrize("name", sorted(SMALL))
def test_queues_and_centres_are_part_of_the_state(name: str) -> None:
    method = new_method(
        config(name, {**SMALL[name], "centre_momentum": 0.9} if name == "dino" else SMALL[name])
    )
    rows = torch.arange(8)
    method.begin_epoch(lambda: [(rows, views(0))])
    before = {k: v.clone() for k, v in method.heads.state_dict().items()}
    method(views(1), views(2), torch.Generator().manual_seed(0), rows)
    buffers = {k for k, _ in method.heads.named_buffers()}
    changed = {k for k, v in method.heads.state_dict().items() if not torch.equal(v, before[k])}
    assert changed & buffers
