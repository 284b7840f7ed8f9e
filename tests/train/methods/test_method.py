"""What all methods share: options that are checked, noise of the right shape, raw variances read as variances."""

from __future__ import annotations

import math

import pytest
import torch

from tests.train.methods.test_every_method import config
from train.methods import METHODS, method_class, new_method
from train.methods.method import cosine_momentum, parse_options
from train.methods.simclr import SimClrOptions
from vssl.errors import InputError


def test_raw_variances_are_read_as_variances() -> None:
    raw = torch.tensor([[0.0, 1.0, 20.0, -500.0]])
    assert method_class("vssl-gaussian").positive_variance(raw)[0].tolist() == pytest.approx(
        [1.0, math.e, math.exp(8), math.exp(-8)], rel=1e-5
    )
    soft = [math.log(2), math.log(1 + math.e), 20.0]
    assert method_class("vssl").positive_variance(raw)[0, :3].tolist() == pytest.approx(soft, rel=1e-5)
    assert method_class("vje").positive_variance(raw)[0].tolist() == pytest.approx(
        [*(v + 1e-4 for v in soft), 1e-4], rel=1e-5
    )
    assert (method_class("vssl").positive_variance(raw) > 0).all()


@pytest.mark.parametrize("name", list(METHODS))
def test_an_option_of_another_method_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"unknown setting options.warmth: expected one of \w"):
        new_method(config(name, {"warmth": 3}))


def test_an_option_of_another_type_is_refused_and_whole_numbers_pass_as_floats() -> None:
    assert parse_options(SimClrOptions, {"temperature": 1}).temperature == 1.0
    with pytest.raises(InputError, match=r"options.temperature: found 'warm', expected float"):
        parse_options(SimClrOptions, {"temperature": "warm"})


@pytest.mark.parametrize(("name", "dim"), [("vssl", 6), ("vssl-gaussian", 6), ("vje", 32), ("byol", 0)])
def test_noise_is_drawn_for_the_whole_batch_from_the_generator(name: str, dim: int) -> None:
    method, seen = new_method(config(name, {})), []

    def loss(
        first: torch.Tensor, second: torch.Tensor, noise: torch.Tensor, rows: torch.Tensor | None
    ) -> None:
        seen.append(noise)

    method.loss = loss
    view = torch.zeros(4, 16, 16, 3)
    for seed, rows in ((1, None), (1, None), (2, None), (1, torch.arange(9))):
        method(view, view, torch.Generator().manual_seed(seed), rows)
    assert [tuple(noise.shape) for noise in seen] == [(2, 4, dim)] * 3 + [(2, 9, dim)]
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2]) == (dim == 0)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_the_teacher_moves_towards_the_student(momentum: float) -> None:
    method = new_method(config("byol", {}))
    assert method.teacher is not None
    torch.nn.init.ones_(method.student.backbone.stem[0].weight)
    before = [p.clone() for p in method.teacher.parameters()]
    method.update_teacher(momentum)
    for old, kept, moving in zip(
        before, method.teacher.parameters(), method.student.parameters(), strict=True
    ):
        torch.testing.assert_close(kept, momentum * old + (1 - momentum) * moving)


def test_the_momentum_goes_from_its_start_to_its_end_as_half_a_cosine() -> None:
    assert [cosine_momentum(0.9, 1.0, step, 4) for step in (0, 2, 4)] == pytest.approx([0.9, 0.95, 1.0])
    assert cosine_momentum(0.9, 1.0, 1, 4) == pytest.approx(1 - 0.1 * (math.cos(math.pi / 4) + 1) / 2)
