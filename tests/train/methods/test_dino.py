"""DINO's teacher sharpens as published: a straight line from one temperature to another."""

from __future__ import annotations

import pytest
import torch

from train.losses.assignment import self_distillation
from train.methods import new_method
from train.methods.dino import DinoOptions
from train.settings.config import NetworkConfig, TrainConfig


@pytest.mark.parametrize(("step", "expected"), [(1, 0.04), (6, 0.055), (11, 0.07), (500, 0.07)])
def test_the_teacher_s_temperature_is_warmed_up(step: int, expected: float) -> None:
    options = DinoOptions(warm_temperature=0.04, teacher_temperature=0.07, warm_steps=10)
    assert options.sharpness(torch.tensor(step)).item() == pytest.approx(expected)


@pytest.mark.parametrize("step", [1, 2, 100])
def test_without_warm_steps_it_is_constant(step: int) -> None:
    assert DinoOptions(teacher_temperature=0.07).sharpness(torch.tensor(step)).item() == pytest.approx(0.07)


def test_the_loss_uses_the_temperature_of_its_step() -> None:
    network = NetworkConfig("resnet8", 4, "medium", 6, 16, 12, 12)
    options = {"prototypes": 10, "frozen_steps": 0, "warm_steps": 4, "centre_momentum": 1.0}
    torch.manual_seed(0)
    method = new_method(TrainConfig(method="dino", network=network, options=options)).eval()
    view = 255 * torch.rand(8, 16, 16, 3, generator=torch.Generator().manual_seed(1))
    scores = method.heads["student"](method.student(view).mean)
    for temperature in (0.04, 0.0475, 0.055, 0.0625, 0.07, 0.07):
        found = method(view, view, torch.Generator()).loss
        expected = self_distillation(scores, scores, torch.zeros(10), 0.1, temperature)
        torch.testing.assert_close(found, expected)
