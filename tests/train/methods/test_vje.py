"""VJE's loss is minus the two conditional bounds, put together here step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.train.methods.test_every_method import config, views
from train.losses.vje import direction_log_density, radius_log_density, standard_normal_kl
from train.methods import new_method
from train.methods.method import Method
from vssl.errors import InputError


def method(**options: Any) -> Method:
    torch.manual_seed(0)
    return new_method(config("vje", options))


@torch.no_grad()
def expected(built: Method, noise: torch.Tensor, weight: float, *, strict: bool, normalised: bool) -> float:
    posteriors = [built.student(views(seed)) for seed in (1, 2)]
    targets = [p.features for p in posteriors]
    if normalised:
        targets = [
            (t - t.mean(0)) / (t.var(0, correction=0) + 1e-5).sqrt() for t in targets
        ]  # as a batch norm without scale and shift
    total = 0.0
    for i, j in ((0, 1), (1, 0)):
        mean, variance = posteriors[i].mean, functional.softplus(posteriors[i].raw_variance) + 1e-4
        sample = mean + variance.sqrt() * noise[i]
        scale = variance / mean.square().sum(dim=1, keepdim=True) if strict else variance
        total -= float(direction_log_density(sample, targets[j], scale, 1.0).mean())
        total -= float(radius_log_density(sample, targets[j], torch.zeros(()), 1.0).mean())
        total += weight * float(standard_normal_kl(mean, variance).mean())
    return total / 32


@pytest.mark.parametrize(
    ("options", "strict", "normalised"),
    [({}, False, False), ({"normalise": True}, False, True), ({"form": "strict"}, True, True)],
)
def test_the_loss_is_minus_both_bounds_per_dimension(
    options: dict[str, Any], strict: bool, normalised: bool
) -> None:
    noise = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(3))
    given = {**options, "kl_weight": 0.5, "ramp_steps": 1}
    found = method(**given).loss(views(1), views(2), noise, None)
    by_hand = expected(method(**given), noise, 0.5, strict=strict, normalised=normalised)
    assert found.loss.item() == pytest.approx(by_hand, rel=1e-4)
    assert found.features.shape == (2, 8, 32)


def test_the_kl_s_weight_grows_over_the_ramp() -> None:
    built, noise = method(kl_weight=1.0, ramp_steps=4), torch.zeros(2, 8, 32)
    shares = []
    for _ in range(6):
        found = built.loss(views(1), views(2), noise, None)
        shares.append(((found.loss + found.parts["log_likelihood"]) / found.parts["kl"]).item())
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0], rel=1e-3)


def test_readings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match="form: found 'loose', expected shared or strict"):
        method(form="loose")
    with pytest.raises(InputError, match="expected positive numbers"):
        method(degrees=0.0)
