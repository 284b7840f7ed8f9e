"""VSSL's step: gradients reach the student's parts only, and the readings differ as they say."""

from __future__ import annotations

import pytest
import torch

from train.losses.vssl import cosine_kl, cosine_likelihood
from train.methods import new_method
from train.methods.method import cosine_momentum
from train.settings.config import NetworkConfig, TrainConfig
from vssl.errors import InputError

NETWORK = NetworkConfig("resnet8", 8, "medium", 6, 16, 16, 16)


def views(seed: int) -> torch.Tensor:
    return 255 * torch.rand(8, 16, 16, 3, generator=torch.Generator().manual_seed(seed))


def method(**options: str | int | bool) -> torch.nn.Module:
    torch.manual_seed(0)
    return new_method(TrainConfig(network=NETWORK, options=options))


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def test_the_loss_is_k_plus_n_over_the_crossed_pairs() -> None:
    found = method()
    output = found(views(1), views(2), noise())
    again = method()
    own = [again.student(v) for v in (views(1), views(2))]
    kept = [again.teacher(v) for v in (views(1), views(2))]
    drawn, expected = noise(), torch.zeros(())
    for i, j in ((0, 1), (1, 0)):
        mean, variance = again.heads["predictor"](torch.cat([own[i].mean, own[i].raw_variance], 1))
        sample = mean + variance * torch.randn(mean.shape, generator=drawn).abs()
        target = (kept[j].mean, kept[j].raw_variance)
        denoised = (again.heads["mean_denoiser"](sample), again.heads["variance_denoiser"](sample))
        expected = expected + cosine_kl(mean, variance, *target).mean()
        expected = expected + cosine_likelihood(*denoised, *target).mean()
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.parts["kl"] + output.parts["likelihood"], output.loss.detach())
    assert output.features.shape == (2, 8, 32)
    assert not output.features.requires_grad


@pytest.mark.parametrize("target", ["teacher", "student"])
def test_gradients_reach_the_student_and_never_the_teacher(target: str) -> None:
    found = method(target=target)
    found(views(1), views(2), noise()).loss.backward()
    for name, parameter in found.named_parameters():
        if name.startswith("teacher"):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all()


def test_readings_change_the_loss() -> None:
    base = method()(views(1), views(2), noise())
    every = method(pairs="all")(views(1), views(2), noise())
    assert every.loss != base.loss
    minus = method(likelihood_sign=-1)(views(1), views(2), noise())
    torch.testing.assert_close(minus.loss.detach(), base.parts["kl"] - base.parts["likelihood"])


def test_the_teacher_s_predictor_is_the_moving_average_of_the_student_s() -> None:
    plain, literal = method(), method(teacher_predictor=True)
    torch.testing.assert_close(literal.heads["predictor"].state_dict(), plain.heads["predictor"].state_dict())
    kept = literal.heads["teacher_predictor"]
    before = {name: p.clone() for name, p in kept.named_parameters()}
    own = dict(literal.heads["predictor"].named_parameters())
    for name, parameter in before.items():
        assert torch.equal(parameter, own[name])
    with torch.no_grad():
        for parameter in own.values():
            parameter.add_(1.0)
    literal.update_teacher(0.75)
    for name, parameter in kept.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 0.25)


def test_the_target_is_what_the_teacher_s_predictor_says() -> None:
    literal = method(teacher_predictor=True)
    with torch.no_grad():
        literal.heads["teacher_predictor"].trunk[3].bias.add_(1.0)  # so that it is not the student's
    output = literal.eval()(views(1), views(2), noise())
    drawn, kl = noise(), torch.zeros(())
    for i, j in ((0, 1), (1, 0)):
        own, kept = literal.student((views(1), views(2))[i]), literal.teacher((views(1), views(2))[j])
        mean, variance = literal.heads["predictor"](torch.cat([own.mean, own.raw_variance], 1))
        torch.randn(mean.shape, generator=drawn)
        prior = literal.heads["teacher_predictor"](torch.cat([kept.mean, kept.raw_variance], 1))
        kl = kl + cosine_kl(mean, variance, *prior).mean()
    torch.testing.assert_close(output.parts["kl"], kl.detach())
    output.loss.backward()
    assert all(p.grad is None for p in literal.heads["teacher_predictor"].parameters())


def test_wrong_readings_are_refused() -> None:
    for options in ({"pairs": "some"}, {"target": "none"}, {"likelihood_sign": 2}, {"sign": 1}):
        with pytest.raises(InputError, match="options"):
            method(**options)
    with pytest.raises(InputError, match="found 'magic', expected one of vssl"):
        new_method(TrainConfig(method="magic"))


def test_the_teacher_follows_slowly_and_keeps_its_own_statistics() -> None:
    found = method()
    with torch.no_grad():
        for parameter in found.student.parameters():
            parameter.add_(1.0)
        found.student.backbone.stem[1].running_mean.add_(5.0)
    before = {n: p.clone() for n, p in found.teacher.named_parameters()}
    found.update_teacher(0.75)
    for name, parameter in found.teacher.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 0.25)
    assert found.teacher.backbone.stem[1].running_mean.abs().max() == 0


def test_the_momentum_rises_as_a_cosine() -> None:
    values = [cosine_momentum(0.99, 1.0, step, 100) for step in (0, 50, 100)]
    assert values == pytest.approx([0.99, 0.995, 1.0])
