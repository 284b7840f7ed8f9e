"""The uncertainty: undecided pictures and damaged ones are less sure, and the number is a rank."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from export.calibration.uncertainty import (
    FEWEST,
    WEIGHTS,
    displacement,
    fit_uncertainty,
    judge_uncertainty,
)
from export.calibration.view_statistics import ViewStatistics, empty_like
from export.served_encoder import UncertaintyHead

CORNERS = 20


def pictures(count: int, seed: int) -> tuple[ViewStatistics, ViewStatistics, Tensor]:
    """Pictures at twenty corners, every fourth in the middle between two; and forms moved, as far from the origin.

    Of the inputs, the first two tell how far a form was moved, and the others are noise. Returns images,
    forms, and whether each image lies between two corners.
    """
    generator = torch.Generator().manual_seed(seed)
    row = torch.arange(count)
    corner, other = torch.eye(CORNERS)[row % CORNERS], torch.eye(CORNERS)[(row + 7) % CORNERS]
    is_between = row // CORNERS % 4 == 3
    mean = torch.where(is_between[:, None], 0.7 * (corner + other), 1.4 * corner)
    mean = mean + 0.1 * torch.randn(count, CORNERS, generator=generator)
    noise = torch.randn(2 * count, 4, generator=generator)
    far = torch.rand(count, 1, generator=generator) + 0.3
    moved = mean + far * torch.randn(count, CORNERS, generator=generator)
    moved = moved * mean.norm(dim=1, keepdim=True) / moved.norm(dim=1, keepdim=True)
    variance, whole = torch.ones(count, 3), torch.zeros(count, dtype=torch.bool)
    good = ViewStatistics(torch.cat([0 * far, noise[:count]], 1), mean, variance, row, whole)
    bad = ViewStatistics(torch.cat([far, noise[count:]], 1), moved, variance, row, row % 2 == 0)
    return good, bad, is_between


def of_rows(statistics: ViewStatistics, rows: Tensor) -> ViewStatistics:
    return ViewStatistics(*(getattr(statistics, name)[rows] for name in statistics.__dataclass_fields__))


def fitted(count: int = 800, **more: Tensor) -> UncertaintyHead:
    good, bad, _ = pictures(count, 1)
    head = fit_uncertainty(good, bad, **more)
    assert head is not None
    return head


def test_pictures_between_clusters_are_less_sure_than_others() -> None:
    good, _, is_between = pictures(400, 2)
    head = fitted()
    with torch.inference_mode():
        found = head(good.inputs, good.mean)
    higher = (found[is_between][:, None] > found[~is_between]).float().mean()
    assert float(higher) > 0.95


def test_pictures_among_undecided_ones_are_less_sure_than_as_decided_ones_elsewhere() -> None:
    good, bad, is_between = pictures(1600, 11)
    crowded = good.image % CORNERS < CORNERS // 2
    kept = crowded | ~is_between  # so that only half of the corners have undecided pictures around them
    rows = torch.nonzero(kept)[:, 0]
    head = fit_uncertainty(of_rows(good, rows), of_rows(bad, rows))
    assert head is not None
    new, _, between = pictures(400, 12)
    with torch.inference_mode():
        found, own = head(new.inputs, new.mean), head.indecision(new.mean)
    near = (new.image % CORNERS < CORNERS // 2) & ~between
    far = ~(new.image % CORNERS < CORNERS // 2) & ~between
    higher = (found[near][:, None] > found[far]).float().mean()
    alone = (own[near][:, None] > own[far]).float().mean()
    assert float(higher) > float(alone) + 0.1


def test_damaged_pictures_are_less_sure_than_themselves_undamaged() -> None:
    good, bad, _ = pictures(400, 3)
    head = fitted()
    with torch.inference_mode():
        assert float((head(bad.inputs, bad.mean) > head(good.inputs, good.mean)).float().mean()) > 0.95


def test_forms_that_no_weight_tells_apart_do_not_make_damage_count_most() -> None:
    good, bad, _ = pictures(800, 1)
    harmless = (
        torch.arange(800) % 2 == 0
    )  # nothing in their inputs says that they are worse, and they are not
    inputs = torch.where(
        harmless[:, None], torch.cat([0 * bad.inputs[:, :1], bad.inputs[:, 1:]], 1), bad.inputs
    )
    mean = torch.where(harmless[:, None], good.mean, bad.mean)
    head = fit_uncertainty(good, replace(bad, inputs=inputs, mean=mean))
    assert head is not None
    assert float(head.weight) == min(WEIGHTS)


def test_it_is_the_rank_among_pictures_of_the_same_kind() -> None:
    good, _, _ = pictures(2000, 4)
    head = fitted(2000)
    with torch.inference_mode():
        found = head(good.inputs, good.mean)
    assert found.min() >= 0
    assert found.max() <= 1
    for share in (0.1, 0.5, 0.9):
        assert float((found < share).float().mean()) == pytest.approx(share, abs=0.06)


def test_far_beyond_what_was_seen_it_still_orders() -> None:
    head, (good, _, _) = fitted(), pictures(40, 5)
    inputs = good.inputs[:1].repeat(4, 1)
    inputs[:, 0] = torch.tensor([1.0, 1.5, 2.0, 2.5])
    with torch.inference_mode():
        found = head(inputs, good.mean[:1].repeat(4, 1))
    assert (torch.diff(found) > 0).all()


def test_the_length_of_a_mean_counts_among_features_alone() -> None:
    good, bad, _ = pictures(800, 1)
    shorter = 0.5 * good.mean
    for space, counts in (("features", True), ("projector", False)):
        head = fit_uncertainty(good, bad, space=space)
        assert head is not None
        with torch.inference_mode():
            raised = head(good.inputs, shorter) - head(good.inputs, good.mean)
        assert bool(raised.mean() > 0.05) == counts


def test_further_means_make_more_clusters() -> None:
    good, bad, _ = pictures(256, 6)
    few = fit_uncertainty(good, bad)
    many = fit_uncertainty(good, bad, pictures(1000, 7)[0].mean)
    assert few is not None
    assert many is not None
    assert len(few.clusterings) < len(many.clusterings)


def test_the_same_pictures_give_the_same_head_whatever_was_drawn_before() -> None:
    first = fitted(300)
    torch.rand(7)
    second = fitted(300)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_too_few_pictures_get_no_head() -> None:
    good, bad, _ = pictures(FEWEST - 1, 8)
    assert fit_uncertainty(good, bad) is None
    good, bad, _ = pictures(FEWEST, 8)
    assert fit_uncertainty(good, empty_like(bad)) is None


def test_displacement_by_a_slow_loop() -> None:
    good, bad, _ = pictures(30, 9)
    shuffled = of_rows(good, torch.arange(30).flip(0))
    found = displacement(shuffled, bad)
    for row in range(30):
        a, b = good.mean[row], bad.mean[row]
        assert float(found[row]) == pytest.approx(1 - float(a @ b / a.norm() / b.norm()), abs=1e-5)


def test_the_card_tells_what_it_does_on_held_out_pictures() -> None:
    good, bad, _ = pictures(200, 10)
    found = judge_uncertainty(fitted(), good, bad, pictures(800, 1)[0].mean, 800)
    assert found.images == 800
    assert found.rank_correlation is not None
    assert found.rank_correlation > 0.2
    assert found.cropped is not None
    assert found.damaged is not None
    assert min(found.cropped, found.damaged) > 0.9
