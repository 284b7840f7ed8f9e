"""The fitted head recovers a variance that is known in closed form."""

from __future__ import annotations

import copy
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.calibration.degrade import degrade
from export.calibration.head import (
    CalibrationConfig,
    calibrate,
    fit_head,
    judge,
    likelihood,
    rank_correlation,
)
from export.calibration.quality import COUNT
from export.calibration.view_statistics import ViewStatistics, view_statistics
from export.served_encoder import ServedMean, head_inputs
from train.models.encoder import EncoderOutput

FEATURES = ServedMean("features")
QUICK = CalibrationConfig(first_images=10_000, images=600, views=8, epochs=40, report_views=64)


class BlockMeans(nn.Module):
    """An encoder whose features are the nine 4 x 4 block means of a 12 x 12 picture, scaled to 0..1."""

    def forward(self, images: Tensor) -> EncoderOutput:
        pooled = (
            nn.functional.avg_pool2d(images.float().permute(0, 3, 1, 2).mean(1, keepdim=True), 4).flatten(1)
            / 255
        )
        return EncoderOutput(pooled, pooled, None)


class NoiseByBrightness:
    """Views that add one offset a block, of standard deviation 25 grey levels x the block's own mean in 0..1.

    The variance of a block mean under these views is (25/255 x mean)^2, exactly.
    """

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        grey = images.permute(0, 3, 1, 2).mean(1, keepdim=True)
        level = nn.functional.avg_pool2d(grey, 4) / 255
        offset = 25 * level * torch.randn(level.shape, generator=generator)
        return images + nn.functional.interpolate(offset, scale_factor=4, mode="nearest").permute(0, 2, 3, 1)


def pictures(count: int) -> np.ndarray:
    """Pictures whose blocks differ in brightness."""
    random = np.random.default_rng(3)
    blocks = random.uniform(30, 220, (count, 3, 3, 1))
    return np.repeat(np.repeat(blocks, 4, 1), 4, 2).repeat(3, 3).astype(np.uint8)


def shown(count: int) -> tuple[Tensor, Tensor]:
    """Features of pictures, and what a head is given of them."""
    images = torch.from_numpy(pictures(count))
    features = BlockMeans()(images).features
    return features, head_inputs(features, images)


def test_the_sample_variance_of_views_estimates_the_true_one() -> None:
    images = pictures(40)
    found, none = view_statistics(
        BlockMeans(), NoiseByBrightness(), images, FEATURES, count=400, seed=0, size=12
    )
    assert len(none) == 0
    truth = (25 / 255 * found.inputs[:, :9]) ** 2
    assert torch.allclose(found.variance / truth, torch.ones(40, 9), atol=0.35)
    assert float((found.variance / truth).mean()) == pytest.approx(1.0, abs=0.02)


def test_a_worse_form_s_variance_is_its_squared_distance_from_the_views_of_its_image() -> None:
    images = pictures(60)
    good, bad = view_statistics(
        BlockMeans(), NoiseByBrightness(), images, FEATURES, count=400, worse=4, seed=0, size=12
    )
    assert len(bad) == 4 * 60
    plain = BlockMeans()(torch.from_numpy(images)).features
    own = plain[bad.image]
    truth = (25 / 255 * own) ** 2 + (bad.inputs[:, :9] - own) ** 2
    assert float((bad.variance / truth).mean()) == pytest.approx(1.0, abs=0.05)
    assert float((bad.variance > good.variance[bad.image]).float().mean()) > 0.8


def test_a_damaged_picture_is_less_sure_than_itself_undamaged() -> None:
    images = pictures(600)
    variance, *_ = calibrate(BlockMeans(), NoiseByBrightness(), images, FEATURES, 12, QUICK)
    fresh = torch.from_numpy(pictures(700)[600:]).float()
    worse = degrade(fresh, torch.Generator().manual_seed(9))

    def total(shown: Tensor) -> Tensor:
        with torch.inference_mode():
            features = BlockMeans()(shown).features
            return variance(head_inputs(features, shown), features).sum(1)

    assert float((total(worse) > total(fresh)).float().mean()) > 0.75


def test_damage_adds_nothing_to_pictures_as_they_are_and_much_to_damaged_ones() -> None:
    images = pictures(600)
    good, bad = view_statistics(
        BlockMeans(), NoiseByBrightness(), images, FEATURES, count=8, worse=6, seed=0, size=12
    )
    head = fit_head(good, bad, QUICK).eval()
    undamaged = copy.deepcopy(head)
    undamaged.quiet.fill_(torch.inf)
    fresh = torch.from_numpy(pictures(700)[600:]).float()
    worse = degrade(fresh, torch.Generator().manual_seed(9))
    with torch.inference_mode():
        added = [
            (head(inputs, features) / undamaged(inputs, features)).mean(1)
            for features, inputs in (
                (BlockMeans()(shown).features, head_inputs(BlockMeans()(shown).features, shown))
                for shown in (fresh, worse)
            )
        ]
    assert float((added[0] == 1).float().mean()) > 0.9
    assert float((added[1] > 1.5).float().mean()) > 0.5


def test_views_among_the_worse_forms_count_for_the_variance() -> None:
    few, more = (
        view_statistics(
            BlockMeans(), NoiseByBrightness(), pictures(60), FEATURES, count=3, worse=worse, seed=0, size=12
        )[0]
        for worse in (0, 24)
    )
    truth = (25 / 255 * few.inputs[:, :9]) ** 2
    error = [float((found.variance / truth - 1).square().mean()) for found in (few, more)]
    assert error[1] < 0.4 * error[0]  # of 15 views instead of 3


def test_the_fitted_head_predicts_the_variance_of_images_it_never_saw() -> None:
    variance, calibration, *_ = calibrate(
        BlockMeans(), NoiseByBrightness(), pictures(600), FEATURES, 12, QUICK
    )
    assert calibration.kind == "fitted-head"
    assert calibration.ratio == pytest.approx(1.0, abs=0.1)
    assert calibration.rank_correlation is not None
    assert calibration.rank_correlation > 0.8
    fresh, inputs = shown(50)
    truth = (25 / 255 * fresh) ** 2
    with torch.inference_mode():
        error = (variance(inputs, fresh).log() - truth.log()).abs().median()
    assert float(error) < 0.25


def test_it_says_how_many_views_the_variance_was_measured_on() -> None:
    class Counted(NoiseByBrightness):
        drawn = 0

        def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
            self.drawn += len(images)
            return super().__call__(images, generator)

    views, config = Counted(), replace(QUICK, images=100, epochs=1, report_views=16)
    _, calibration, *_ = calibrate(BlockMeans(), views, pictures(100), FEATURES, 12, config)
    held = 10
    of_held = held * (config.report_views + 1)  # one of its two worse forms is a view
    assert calibration.views == (views.drawn - of_held) / (100 - held)
    assert calibration.views == config.variance_views == 11


@pytest.mark.parametrize("seed", [0, 1])
def test_the_total_is_right_where_the_variance_is_no_straight_line(seed: int) -> None:
    mean = torch.randn((3000, 1), generator=torch.Generator().manual_seed(seed))
    truth = torch.exp(mean - 0.2 * mean.square())  # a line predicts too much at both ends
    rows, whole = torch.arange(3000), torch.zeros(3000, dtype=torch.bool)
    everything = ViewStatistics(torch.zeros(3000, COUNT), mean, truth, rows, whole)
    good = _of(everything, slice(1500))
    head = fit_head(good, _of(good, slice(0)), replace(QUICK, seed=seed)).eval()
    ratio, *_ = judge(head, _of(everything, slice(1500, 3000)))
    assert ratio == pytest.approx(1.0, abs=0.1)


def _of(statistics: ViewStatistics, rows: slice) -> ViewStatistics:
    return ViewStatistics(*(getattr(statistics, field.name)[rows] for field in fields(ViewStatistics)))


def test_blank_pictures_whose_views_are_all_alike_do_not_make_the_variance_vanish() -> None:
    images = pictures(300)
    blank = np.zeros_like(images[:60])  # black: this noise is none where there is no light
    everything = np.concatenate([images, blank])
    variance, calibration, *_ = calibrate(BlockMeans(), NoiseByBrightness(), everything, FEATURES, 12, QUICK)
    assert calibration.ratio == pytest.approx(1.0, abs=0.2)
    fresh, inputs = shown(50)
    with torch.inference_mode():
        error = (variance(inputs, fresh).log() - (25 / 255 * fresh).square().log()).abs().median()
    assert float(error) < 0.4


def test_too_few_images_get_one_constant_variance_a_dimension() -> None:
    variance, calibration, *_ = calibrate(
        BlockMeans(), NoiseByBrightness(), pictures(20), FEATURES, 12, QUICK
    )
    assert (calibration.kind, calibration.ratio, calibration.rank_correlation) == ("scale", None, None)
    with torch.inference_mode():
        zeros, ones = (variance(x.expand(1, 9 + COUNT), x.expand(1, 9)) for x in torch.eye(2)[:, :1, None])
    assert torch.equal(zeros, ones)


def test_the_likelihood_is_least_at_the_true_variance() -> None:
    sample = torch.tensor([[0.5, 2.0]]).square()
    best = likelihood(sample, sample)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert likelihood(sample * factor, sample) > best


def test_fitting_twice_gives_the_same_head() -> None:
    means, row, whole = torch.zeros(200, 3), torch.arange(200), torch.zeros(200, dtype=torch.bool)
    good = ViewStatistics(torch.rand(100, 4), means[:100], torch.rand(100, 3) + 0.1, row[:100], whole[:100])
    worse = ViewStatistics(torch.rand(200, 4), means, torch.rand(200, 3) + 0.5, row % 100, ~whole)
    first, second = (fit_head(good, worse, QUICK) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_judge_gives_ratio_one_and_full_correlation_to_a_perfect_head() -> None:
    statistics = ViewStatistics(
        torch.rand(80, 4),
        torch.zeros(80, 3),
        torch.rand(80, 3) + 0.1,
        torch.arange(80),
        torch.zeros(80, dtype=torch.bool),
    )

    class Perfect(nn.Module):
        def forward(self, inputs: Tensor, mean: Tensor) -> Tensor:
            return statistics.variance

    ratio, correlation, interval = judge(Perfect(), statistics)  # type: ignore[arg-type]
    assert (ratio, correlation) == pytest.approx((1.0, 1.0))
    assert interval == pytest.approx((1.0, 1.0))


def test_the_ratio_has_an_interval_that_holds_a_planted_one() -> None:
    generator = torch.Generator().manual_seed(5)
    truth = (torch.rand(100, 3, generator=generator) + 0.1).repeat(2, 1)
    noisy = truth * torch.tensor([0.5, 1.5]).repeat_interleave(100)[:, None]  # right in the mean
    statistics = ViewStatistics(
        torch.log(2 * truth),
        torch.zeros(200, 3),
        noisy,
        torch.arange(200),
        torch.zeros(200, dtype=torch.bool),
    )

    class Doubled(nn.Module):
        def forward(self, inputs: Tensor, mean: Tensor) -> Tensor:
            return inputs.exp()

    ratio, _, (low, high) = judge(Doubled(), statistics)  # type: ignore[arg-type]
    assert low < ratio < high
    assert low < 2.0 < high
    assert high - low < 0.4


def test_the_rank_correlation_agrees_with_scipy() -> None:
    scipy = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 50))
    assert rank_correlation(a, a + b) == pytest.approx(scipy.spearmanr(a, a + b).statistic)
    assert rank_correlation(a, np.zeros(50)) == 0.0
