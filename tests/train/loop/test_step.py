"""One step: what it changes, by how much, and that it depends on (seed, number) alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.train.methods.test_every_method import SMALL
from tests.train.picture_folder import TINY
from train.augment.views import Views
from train.loop.optimisers import learning_rate
from train.loop.step import Learner, Length, epoch_order, require_sound_cuda_graphs
from train.methods import new_method
from train.methods.method import cosine_momentum
from train.settings.config import TrainConfig
from train.settings.recipe import merge
from train.state.distributed import ProcessGroup
from train.state.randomness import generator_for, seed_of
from vssl.errors import InputError

CPU = torch.device("cpu")
LENGTH = Length(steps_per_epoch=5, total=20, images_per_step=16)


def learner(method: str = "byol", over: dict[str, Any] | None = None, classes: int = 0) -> Learner:
    settings = merge(merge(TINY, {"method": method, "options": SMALL.get(method, {})}), over or {})
    return Learner(TrainConfig.from_dict(settings), LENGTH, classes, CPU)


def pictures(seed: int = 0, count: int = 16) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 16, 16, 3), generator=random, dtype=torch.uint8)


def student(trained: Learner) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trained.method.student.named_parameters()}


def test_the_same_seed_and_number_make_the_same_step() -> None:
    learners = [learner(), learner(), learner(over={"seed": 6})]
    losses = [float(one.step(3, [pictures()], None)["loss"]) for one in learners]
    assert losses[0] == losses[1] != losses[2]
    after = [student(one) for one in learners]
    assert all(torch.equal(after[0][name], after[1][name]) for name in after[0])
    again = learner()
    assert float(again.step(4, [pictures()], None)["loss"]) != losses[0]  # other views


def test_accumulated_batches_give_the_gradient_of_their_mean_loss() -> None:
    over = {"optimiser": {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0, "accumulate": 2}}
    trained, images = learner("simsiam", over), [pictures(1), pictures(2)]
    before = student(trained)
    logged = trained.step(7, images, None)

    torch.manual_seed(seed_of(trained.config.seed, "weights"))
    method = new_method(trained.config)
    losses = []
    for part, batch in enumerate(images):
        drawn = generator_for(CPU, trained.config.seed, "views", 2 * 7 + part)
        views = [Views(a, 16)(batch, drawn) for a in (trained.config.augment, trained.config.augment_second)]
        losses.append(method(views[0], views[1], drawn).loss)
    loss = (losses[0] + losses[1]) / 2
    loss.backward()
    assert float(logged["loss"]) == pytest.approx(loss.item(), rel=1e-4)
    rate = learning_rate(trained.config.optimiser, 16, 7, 5, 20)
    for name, weight in method.student.named_parameters():
        assert weight.grad is not None
        expected = before[name] - rate * weight.grad
        torch.testing.assert_close(student(trained)[name], expected, rtol=1e-4, atol=1e-6)


def test_the_teacher_moves_by_its_momentum_after_the_student() -> None:
    trained = learner("byol", {"teacher_momentum": [0.5, 1.0]})
    assert trained.method.teacher is not None
    before = {name: value.clone() for name, value in trained.method.teacher.named_parameters()}
    trained.step(10, [pictures()], None)
    momentum = cosine_momentum(0.5, 1.0, 10, 19)
    for name, value in trained.method.teacher.named_parameters():
        expected = momentum * before[name] + (1 - momentum) * student(trained)[name]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)


def test_a_constant_predictor_keeps_its_rate_while_the_others_follow_the_schedule() -> None:
    trained = learner("simsiam", {"optimiser": {"constant_predictor": True, "lr": 0.2}})
    predictor = set(trained.method.heads["predictor"].parameters())
    for number in (0, 10, 19):
        trained.step(number, [pictures()], None)
        scheduled = learning_rate(trained.config.optimiser, 16, number, 5, 20)
        for group in trained.optimiser.param_groups:
            steady = set(group["params"]) <= predictor
            assert group["lr"] == pytest.approx(0.2 * 16 / 256 if steady else scheduled)
    grouped = [weight for group in trained.optimiser.param_groups for weight in group["params"]]
    assert set(grouped) == {p for p in trained.method.parameters() if p.requires_grad}
    assert len(grouped) == len(set(grouped))
    with pytest.raises(InputError, match="'simclr' has no predictor"):
        learner("simclr", {"optimiser": {"constant_predictor": True}})


def test_gradients_are_clipped_to_their_norm() -> None:
    over = {"optimiser": {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0, "clip_norm": 1e-3}}
    trained = learner("simclr", over)
    before = student(trained)
    trained.step(10, [pictures()], None)
    moved = torch.cat([(student(trained)[name] - value).flatten() for name, value in before.items()])
    rate = learning_rate(trained.config.optimiser, 16, 10, 5, 20)
    assert float(moved.norm()) == pytest.approx(rate * 1e-3, rel=0.01)  # so small a step rounds


def test_the_classifier_learns_from_known_labels_only_and_the_student_nothing_from_it() -> None:
    with_labels, without = learner(classes=3), learner()
    labels = torch.tensor([0, 1, 2, -1] * 4)
    values = with_labels.step(0, [pictures()], [labels])
    without.step(0, [pictures()], None)
    assert 0.3 < float(values["classifier_loss"]) < 3.0
    assert all(
        torch.equal(a, b)
        for a, b in zip(student(with_labels).values(), student(without).values(), strict=True)
    )
    assert with_labels.classifier is not None
    unknown = learner(classes=3)
    assert unknown.classifier is not None
    assert set(unknown.step(0, [pictures()], None)) == {"loss"}


def test_half_precision_is_the_device_s_own_where_asked_for() -> None:
    assert not learner(over={"precision": "fp32"}).half
    half = learner(over={"precision": "bf16"})
    assert half.half
    full = learner().step(0, [pictures()], None)["loss"]
    assert float(half.step(0, [pictures()], None)["loss"]) == pytest.approx(float(full), rel=0.05)
    assert all(value.dtype == torch.float32 for value in student(half).values())


def test_translated_encoders_make_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.loop.step.TRANSLATOR", "aot_eager")  # traces as the default does, in seconds
    eager, translated = learner("vssl"), learner("vssl", {"compile": True})
    assert translated.method.state_dict().keys() == eager.method.state_dict().keys()
    for number in range(2):
        values = [one.step(number, [pictures(number)], None) for one in (eager, translated)]
        assert float(values[1]["loss"]) == pytest.approx(float(values[0]["loss"]), rel=1e-4)
    for name, value in student(eager).items():
        torch.testing.assert_close(student(translated)[name], value, rtol=1e-3, atol=1e-5)
    with pytest.raises(InputError, match=r"found 2 processes.*Set compile = false"):
        Learner(translated.config, LENGTH, 0, CPU, ProcessGroup(0, 2))


@pytest.mark.parametrize("compiled", [False, True])
def test_cuda_graphs_are_for_translated_encoders_on_a_gpu(compiled: bool) -> None:
    with pytest.raises(
        InputError, match=f"found compile = {str(compiled).lower()} on cpu, expected compile = true"
    ):
        learner("vssl", {"compile": compiled, "cuda_graphs": True})


@pytest.mark.parametrize(
    ("version", "accumulate", "found"),
    [
        ("2.11.0+cu130", 1, "found torch 2.11.0.*expected torch 2.13 or newer"),
        ("2.12.1", 1, "found torch 2.12.1"),
        ("2.14.1+cu130", 2, "found optimiser.accumulate = 2, expected 1"),
        ("2.13.0", 1, None),
        ("2.14.1+cu130", 1, None),
    ],
)
def test_cuda_graphs_are_refused_where_gradients_may_be_overwritten(
    version: str, accumulate: int, found: str | None
) -> None:
    over = {"compile": True, "cuda_graphs": True, "optimiser": {"accumulate": accumulate}}
    config = TrainConfig.from_dict(merge(TINY, over))
    if found is None:
        require_sound_cuda_graphs(config, torch.device("cuda"), version)
    else:
        with pytest.raises(InputError, match=found):
            require_sound_cuda_graphs(config, torch.device("cuda"), version)


def test_full_precision_is_full_on_gpus_too_and_convolutions_are_tuned() -> None:
    cudnn, product = torch.backends.cudnn, torch.backends.cuda.matmul
    cudnn.allow_tf32, product.allow_tf32, cudnn.benchmark = True, True, False
    learner(over={"precision": "fp32"})
    assert (cudnn.allow_tf32, product.allow_tf32, cudnn.benchmark) == (False, False, True)


def test_the_order_of_an_epoch_is_a_permutation_of_its_own() -> None:
    orders = [epoch_order(50, 5, epoch).tolist() for epoch in (0, 1, 0)]
    assert sorted(orders[0]) == list(range(50))
    assert orders[0] == orders[2] != orders[1]


def test_a_batch_smaller_than_the_number_of_processes_is_refused() -> None:
    one = Learner(replace(learner().config, batch_size=2), LENGTH, 0, CPU, ProcessGroup(0, 3))
    with pytest.raises(InputError, match="a batch of 2 images cannot be divided over 3 processes"):
        one.step(0, [pictures(count=1)], None, [torch.arange(2)])
