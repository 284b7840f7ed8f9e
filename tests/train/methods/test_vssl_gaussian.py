"""The teacher's codes may grow without end; what the loss hears of them does not."""

from __future__ import annotations

import pytest
import torch

from tests.train.methods.test_every_method import config, views
from train.methods import new_method


@pytest.mark.parametrize("bounded", [True, False])
def test_the_loss_does_not_hear_how_far_the_teacher_s_codes_have_grown(bounded: bool) -> None:
    torch.manual_seed(0)
    method = new_method(config("vssl-gaussian", {"bounded": bounded}))
    assert method.teacher is not None
    first, second = views(1), views(2)
    *_, last = (
        module for module in method.teacher.projector.modules() if isinstance(module, torch.nn.Linear)
    )

    def grown(times: float) -> float:
        with torch.no_grad():
            last.weight.mul_(times)
            if last.bias is not None:
                last.bias.mul_(times)
        return float(method(first, second, torch.Generator().manual_seed(0)).loss.item())

    grown(1000.0)
    far, farther = grown(1.0), grown(3.0)
    assert (farther == pytest.approx(far, rel=1e-3)) is bounded


def test_codes_of_ordinary_size_are_aimed_at_as_they_are() -> None:
    losses = []
    for bounded in (True, False):
        torch.manual_seed(0)
        method = new_method(config("vssl-gaussian", {"bounded": bounded}))
        losses.append(method(views(1), views(2), torch.Generator().manual_seed(0)).loss.item())
    assert losses[0] == losses[1]
