"""Frozen encoder + unlabelled images -> a variance that can be checked.

The served variance of an image is, per dimension, the expected squared deviation of its
embedding under the training's views. A small head on features and quality predicts it in the same
forward pass, fitted by Gaussian likelihood: for the sample variance s of V views and a
predicted v, (V - 1)/2 (ln v + s / v) is the negative log-likelihood up to a constant. Of a picture as it
is, the log variance is a ridge regression of ln s on mean and quality, whose strength held-out likelihood
chooses: with the noise of few views it does better than a deeper map.

The head then learns what damage adds, from forms of the same images made worse: their deviation
is from the embeddings of the views of the image they were made from, so that what the damage
moved counts. The uncertainty has a head of its own (export/calibration/uncertainty.py), fitted on the same
views. docs/explanation/variance.md has the comparison.
Shape letters: N images, V views, W worse forms, P inputs of the head, D embedding dimension, C
cached side.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.calibration.uncertainty import FEWEST, fit_uncertainty, judge_uncertainty
from export.calibration.view_statistics import (
    Progress,
    ViewStatistics,
    join,
    shifted,
    view_statistics,
    views_among,
)
from export.calibration.whitening import MIN_IMAGES, served_means
from export.served_encoder import Encode, ServedMean, UncertaintyHead, VarianceHead
from train.augment.views import Views
from vssl.model.card import Calibration, UncertaintyFit
from vssl.rank_statistics import spearman

RELATIVE_FLOOR = 1e-3
MOST_STEPS = 100  # of an epoch: more images make larger batches, not a longer fit
SLIGHT_DAMAGE = -3.0  # where the fit of damage begins: softplus of it adds 5 %
RIDGES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
UNDAMAGED = 0.99  # share of the images as they are to whose variance damage adds nothing
LEAST_GAIN = 0.01  # of held-out log likelihood a dimension that is worth another round of images


@dataclass(frozen=True)
class CalibrationConfig:
    """How the heads are fitted.

    images: most images whose views are drawn; first_images: of the first round; minutes: after which no
    round begins; held: most images kept back to judge by; cluster_images: most images used in all, those
    beyond `images` for the uncertainty's clusters alone; views: V of each; worse: W of each, every second a view of
    the training, the others made worse by `export.calibration.degrade`; weight: how often an image itself counts
    against its worse forms when damage is fitted; epochs, learning_rate, weight_decay, hidden,
    batch: the head's own training; report_views: views of the held-out images that judge it.
    """

    images: int = 2000
    first_images: int = 500
    minutes: float = 30.0
    held: int = 100
    cluster_images: int = 12_000
    views: int = 8
    worse: int = 6
    weight: int = 10
    report_views: int = 64
    epochs: int = 80
    learning_rate: float = 1e-3
    weight_decay: float = 0.3
    hidden: int = 256
    batch: int = 64
    seed: int = 0

    @property
    def variance_views(self) -> int:
        """Views of each image that its variance is measured on: V, and those among the worse forms."""
        return self.views + views_among(self.worse)

    @property
    def pictures(self) -> int:
        """Pictures that are embedded of each image: itself, its views and its worse forms."""
        return 1 + self.views + self.worse


def likelihood(predicted: Tensor, sample: Tensor) -> Tensor:
    """Return the mean of ln v + s / v: the Gaussian negative log-likelihood of sample variances."""
    return (torch.log(predicted) + sample / predicted).mean()


def fit_head(good: ViewStatistics, bad: ViewStatistics, config: CalibrationConfig) -> VarianceHead:
    """Fit a head: first the variance of the pictures as they are, then what damage adds to it.

    What does best on a held-out quarter of the images is kept.
    """
    torch.manual_seed(config.seed)
    good, bad = _above_blank(good), _above_blank(bad)
    head = VarianceHead(good.inputs.shape[1], good.variance.shape[1], config.hidden)
    everything = join([good] * config.weight + [bad])
    head.shift.copy_(everything.inputs.mean(0))
    head.scale.copy_(1.0 / everything.inputs.std(0).clamp_min(1e-6))
    head.mean_scale.copy_(1.0 / good.mean.std().clamp_min(1e-6))
    head.base.copy_(torch.log(good.variance.mean(0)))
    if len(good) < MIN_IMAGES:
        return head
    is_held = torch.zeros(int(good.image.max()) + 1, dtype=torch.bool)
    is_held[torch.randperm(len(is_held))[: len(is_held) // 4]] = True
    ratio = _fit_good(head, good, is_held[good.image])
    if len(bad):
        head.begin_damage(SLIGHT_DAMAGE)
        _fit(head, head.damage, everything, is_held, config)
        with torch.inference_mode():
            if len(good) >= FEWEST:  # otherwise the variance is all that the uncertainty is made of
                seen = head.damage_seen((good.inputs - head.shift) * head.scale).mean(1)
                head.quiet.copy_(torch.quantile(seen, UNDAMAGED))
            unseen = good.inputs[is_held[good.image]], good.mean[is_held[good.image]]
            # What damage adds to pictures as they are is larger where it was not fitted.
            ratio *= float(head(*unseen).sum() / head.undamaged(*unseen).sum())
    head.base.sub_(math.log(ratio))  # one number puts the total of unseen pictures at its true level
    return head


def _fit_good(head: VarianceHead, good: ViewStatistics, is_held: Tensor) -> float:
    """Fit the variance of pictures as they are; returns predicted over measured total of unseen ones.

    The strength that is best for the held pictures (N,) is used once more with all of them.
    """
    signals, everyone = head.signals(good.inputs, good.mean).double(), torch.ones_like(is_held)

    def solve(rows: Tensor, strength: float) -> None:
        seen, target = signals[rows], torch.log(good.variance[rows].double())
        centre = seen.mean(0)
        square = (seen - centre).T @ (seen - centre) + strength * torch.eye(
            seen.shape[1], dtype=torch.float64
        )
        weight = torch.linalg.solve(square, (seen - centre).T @ (target - target.mean(0)))
        head.good.weight.copy_(weight.T)
        head.good.bias.copy_(-centre @ weight)
        residual = good.variance[rows] / torch.exp((seen - centre) @ weight)
        head.base.copy_(torch.log(residual.mean(0)))

    held = good.inputs[is_held], good.mean[is_held]
    with torch.no_grad():
        scores = []
        for strength in RIDGES:
            solve(~is_held, strength)
            scores.append(float(likelihood(head(*held), good.variance[is_held])))
        best = RIDGES[int(np.argmin(scores))]
        solve(~is_held, best)
        unseen = float(head(*held).sum() / good.variance[is_held].sum())
        solve(everyone, best)
    return unseen


def _above_blank(statistics: ViewStatistics) -> ViewStatistics:
    """A blank picture's views are all alike: a variance of nothing would outweigh every other image."""
    if not len(statistics):
        return statistics
    floor = RELATIVE_FLOOR * statistics.variance.mean(0)
    return replace(statistics, variance=statistics.variance.clamp_min(floor))


def _fit(
    head: VarianceHead, part: nn.Module, data: ViewStatistics, is_held: Tensor, config: CalibrationConfig
) -> None:
    """Train one part of the head on the images that are not held, and keep the epoch best on those that are."""
    held, fit = (torch.nonzero(mask)[:, 0] for mask in (is_held[data.image], ~is_held[data.image]))
    optimiser = torch.optim.AdamW(
        part.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    best, best_state = float("inf"), None
    for _ in range(config.epochs):
        for rows in torch.split(fit[torch.randperm(len(fit))], max(config.batch, len(fit) // MOST_STEPS)):
            optimiser.zero_grad()
            likelihood(head(data.inputs[rows], data.mean[rows]), data.variance[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.inference_mode():
            found = float(likelihood(head(data.inputs[held], data.mean[held]), data.variance[held]))
        if found < best:
            best, best_state = found, {k: v.clone() for k, v in part.state_dict().items()}
    if best_state is not None:
        part.load_state_dict(best_state)


class Fit(NamedTuple):
    """What calibration gives: the variance and how well it fits, the uncertainty and how well it does.

    The last two are None where there are too few images.
    """

    variance: VarianceHead
    calibration: Calibration
    uncertainty: UncertaintyHead | None = None
    uncertainty_fit: UncertaintyFit | None = None


def judge(variance: VarianceHead, statistics: ViewStatistics) -> tuple[float, float, tuple[float, float]]:
    """Return (ratio, rank correlation, interval of the ratio) of predicted and measured total variance.

    ratio is the predicted variance of all images over the measured; 1 is calibrated. The mean of
    the images' own ratios would be dominated by a blank one, whose views are all alike. The interval
    holds 95 % of the ratios of resampled images.
    """
    with torch.inference_mode():
        predicted = variance(statistics.inputs, statistics.mean).sum(1).double().numpy()
    measured = statistics.variance.sum(1).double().numpy()
    draws = np.random.default_rng(0).integers(len(measured), size=(1000, len(measured)))
    low, high = np.quantile(predicted[draws].sum(1) / measured[draws].sum(1), [0.025, 0.975])
    ratio = float(predicted.sum() / measured.sum())
    return ratio, rank_correlation(predicted, measured), (float(low), float(high))


def rank_correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return Spearman's rank correlation; 0 when either is constant and orders nothing."""
    return float(np.nan_to_num(spearman(a, b)))


def calibrate(
    encoder: Encode,
    views: Views,
    images: NDArray[np.uint8],
    served: ServedMean,
    size: int,
    config: CalibrationConfig | None = None,
    report: Progress | None = None,
    means: Tensor | None = None,
) -> Fit:
    """Fit variance and uncertainty on (N, C, C, 3) pictures and judge them on some that they never saw.

    means (N, D): what is served of the pictures, where that is known.
    Pictures are added, twice as many each time, until the likelihood of the held-out ones stops improving,
    `config.images` are used or the minutes are over. The others still count for the uncertainty's clusters.
    """
    config = config or CalibrationConfig()
    end = time.monotonic() + 60.0 * config.minutes
    order = np.random.default_rng(config.seed).permutation(len(images))
    most = min(len(order), config.images)
    held = min(config.held, max(1, most // 10)) if most >= MIN_IMAGES else 0
    seen = partial(view_statistics, encoder, views, served=served, size=size)
    judged = judged_bad = None
    if held:
        judged, judged_bad = seen(
            images[np.sort(order[:held])], count=config.report_views, worse=2, seed=config.seed + 1000
        )
    good: list[ViewStatistics] = []
    bad: list[ViewStatistics] = []
    used, best = held, float("inf")
    while True:
        stop = min(most, max(config.first_images, 2 * used))
        some, some_bad = seen(
            images[np.sort(order[used:stop])], count=config.views, worse=config.worse,
            seed=config.seed + used, report=report and partial(_tell, report, used, most),
        )  # fmt: skip
        good.append(shifted(some, used))
        bad.append(shifted(some_bad, used))
        variance, used = fit_head(join(good), join(bad), config), stop
        if used == most or judged is None:
            break
        with torch.inference_mode():
            found = float(likelihood(variance(judged.inputs, judged.mean), judged.variance))
        if found > best - LEAST_GAIN or time.monotonic() > end:
            break
        best = found
    more = None
    if used < len(order) and used - held >= FEWEST:
        rest = np.sort(order[used:])
        more = served_means(encoder, images[rest], served, size) if means is None else means[rest]
    uncertainty = fit_uncertainty(join(good), join(bad), more, config.seed, space=served.space)
    calibration = Calibration("fitted-head" if most >= MIN_IMAGES else "scale", used, config.variance_views)
    if judged is None or judged_bad is None:
        return Fit(variance.eval(), calibration)
    return _judged(
        Fit(variance.eval(), calibration, uncertainty), judged, judged_bad, join(good).mean, len(order) - held
    )


def _judged(fit: Fit, judged: ViewStatistics, bad: ViewStatistics, means: Tensor, images: int) -> Fit:
    """Return the fit with how well it does on held-out pictures and worse forms of them.

    means: (N, D) of the pictures it was fitted on; images: how many there were.
    """
    ratio, correlation, (low, high) = judge(fit.variance, judged)
    calibration = replace(
        fit.calibration, ratio=ratio, rank_correlation=correlation, ratio_low=low, ratio_high=high
    )
    if fit.uncertainty is None:
        return Fit(fit.variance, calibration)
    fitted = judge_uncertainty(fit.uncertainty, judged, bad, means, images)
    return Fit(fit.variance, calibration, fit.uncertainty, fitted)


def _tell(report: Progress, start: int, total: int, done: int, _: int) -> None:
    report(start + done, total)
