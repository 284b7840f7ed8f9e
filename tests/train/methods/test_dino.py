"""DINO begins as published, and its teacher's temperature changes once an epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from train.losses.assignment import self_distillation
from train.methods import new_method
from train.methods.dino import DinoOptions
from train.settings.config import NetworkConfig, TrainConfig


def test_the_teacher_s_temperature_is_warmed_up_epoch_by_epoch() -> None:
    options = DinoOptions(warm_temperature=0.04, teacher_temperature=0.07, warm_steps=20, warm_every=5)
    by_epoch = np.concatenate([np.linspace(0.04, 0.07, 4), np.full(3, 0.07)])
    for step in range(35):
        assert options.sharpness(torch.tensor(1 + step)).item() == pytest.approx(by_epoch[step // 5])


@pytest.mark.parametrize("step", [1, 2, 100])
def test_without_warm_steps_it_is_constant(step: int) -> None:
    assert DinoOptions(teacher_temperature=0.07).sharpness(torch.tensor(step)).item() == pytest.approx(0.07)


def test_the_loss_uses_the_temperature_of_its_step() -> None:
    network = NetworkConfig("resnet8", 8, "medium", 6, 16, 12, 12)
    options = {"prototypes": 10, "frozen_steps": 0, "warm_steps": 5, "centre_momentum": 1.0}
    torch.manual_seed(0)
    method = new_method(TrainConfig(method="dino", network=network, options=options)).eval()
    view = 255 * torch.rand(8, 16, 16, 3, generator=torch.Generator().manual_seed(1))
    scores = method.heads["student"](method.student(view).mean)
    for temperature in (0.04, 0.0475, 0.055, 0.0625, 0.07, 0.07):
        found = method(view, view, torch.Generator()).loss
        expected = self_distillation(scores, scores, torch.zeros(10), 0.1, temperature)
        torch.testing.assert_close(found, expected)


def test_the_projector_begins_small_and_the_prototypes_as_a_linear_layer() -> None:
    network = NetworkConfig("resnet8", 32, "medium", 64, 256, 12, 12)
    torch.manual_seed(0)
    method = new_method(TrainConfig(method="dino", network=network, options={"prototypes": 1000}))
    layers = [layer for layer in method.student.projector if isinstance(layer, nn.Linear)]
    assert len(layers) == 3
    for layer in layers:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert layer.weight.mean().abs() < 1e-3
        assert not layer.bias.any()
    found, expected = method.heads["student"].directions.detach(), nn.Linear(64, 1000).weight.detach()
    assert found.abs().max() <= 64**-0.5
    assert found.std().item() == pytest.approx(expected.std().item(), rel=0.02)
    assert torch.equal(found, method.heads["teacher"].directions)
