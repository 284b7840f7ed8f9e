"""LARS takes the steps written down for it; rates warm up and fall."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from train.loop.optimisers import Lars, build_classifier_optimiser, build_optimiser, learning_rate
from train.settings.config import OptimiserConfig


def slow_lars(
    weight: np.ndarray, slopes: list[np.ndarray], lr: float, momentum: float, decay: float
) -> np.ndarray:
    buffer = np.zeros_like(weight)
    for place, slope in enumerate(slopes):
        update = slope
        if weight.ndim > 1:
            size, steepness = math.sqrt((weight**2).sum()), math.sqrt((slope**2).sum())
            if size > 0 and steepness > 0:
                local = 0.02 * size / (steepness + decay * size + 1e-8)
                update = (slope + decay * weight) * min(local / lr, 1.0)
        buffer = update if place == 0 else momentum * buffer + update
        weight = weight - lr * buffer
    return weight


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 3, 3), (5,)])
@pytest.mark.parametrize("lr", [0.001, 1.0])
@pytest.mark.parametrize("start", [1.0, 0.0])
def test_lars_steps(shape: tuple[int, ...], lr: float, start: float) -> None:
    random = np.random.default_rng(8)
    weight = start * random.normal(size=shape)
    slopes = [random.normal(size=shape) for _ in range(4)]
    parameter = torch.from_numpy(weight.copy()).requires_grad_()
    optimiser = Lars([parameter], lr=lr, momentum=0.9, weight_decay=0.01)
    for slope in slopes:
        parameter.grad = torch.from_numpy(slope.copy())
        optimiser.step()
    expected = slow_lars(weight, slopes, lr, 0.9, 0.01)
    torch.testing.assert_close(parameter.detach(), torch.from_numpy(expected))


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_vectors_are_decayed_by_sgd_alone(name: str) -> None:
    layer = nn.Linear(3, 3)
    optimiser = build_optimiser([layer], OptimiserConfig(name=name, lr=0.1, weight_decay=0.5))
    before = layer.bias.detach().clone()
    weight = layer.weight.detach().clone()
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, 1e-12)  # LARS leaves a tensor without a gradient alone
    optimiser.step()
    if name == "sgd":
        torch.testing.assert_close(layer.bias.detach(), (1 - 0.1 * 0.5) * before)
    else:
        torch.testing.assert_close(layer.bias.detach(), before, rtol=0.0, atol=1e-4)
    assert (layer.weight.abs() < weight.abs()).all()


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_the_online_classifier_learns_as_the_encoder_does_and_is_not_decayed(name: str) -> None:
    random = np.random.default_rng(2)
    layer = nn.Linear(4, 3).double()
    before = {key: value.detach().numpy().copy() for key, value in layer.named_parameters()}
    slopes = {key: [random.normal(size=value.shape) for _ in range(3)] for key, value in before.items()}
    optimiser = build_classifier_optimiser(layer, OptimiserConfig(name=name, weight_decay=0.5, momentum=0.8))
    for step in range(3):
        for group in optimiser.param_groups:
            group["lr"] = 0.1
        for key, value in layer.named_parameters():
            value.grad = torch.from_numpy(slopes[key][step].copy())
        optimiser.step()
    for key, value in layer.named_parameters():
        expected, buffer = before[key], np.zeros_like(before[key])
        if name == "lars":
            expected = slow_lars(expected, slopes[key], 0.1, 0.8, 0.0)
        else:
            for slope in slopes[key]:
                buffer = 0.8 * buffer + slope
                expected = expected - 0.1 * buffer
        torch.testing.assert_close(value.detach(), torch.from_numpy(expected))


def test_rates_warm_up_linearly_and_fall_as_a_cosine() -> None:
    config = OptimiserConfig(lr=0.5, warmup_epochs=2, warmup_lr=0.1, final_lr=0.05)
    rates = [learning_rate(config, 512, step, 10, 200) for step in range(200)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[19] == pytest.approx(1.0)
    assert rates[10] == pytest.approx(0.1 + 0.9 * 10 / 19)
    assert rates[110] == pytest.approx(0.1 + 0.9 * 0.5)  # half way down, from 1.0 to 0.1
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert max(rates) == pytest.approx(1.0)


def test_a_short_run_does_not_only_warm_up() -> None:
    config = OptimiserConfig(lr=0.5, warmup_epochs=10)
    assert learning_rate(config, 256, 2, 5, 10) == pytest.approx(0.5)
