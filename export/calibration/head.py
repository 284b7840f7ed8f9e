"""Frozen encoder + unlabelled images -> a variance that can be checked.

The served variance of an image is, per dimension, the expected squared deviation of its
embedding under the training's views. A small head on features and quality predicts it in the same
forward pass, fitted by Gaussian likelihood: for the sample variance s of V views and a
predicted v, (V - 1)/2 (ln v + s / v) is the negative log-likelihood up to a constant.

The head then learns what damage adds, from forms of the same images made worse: their deviation
is from the embeddings of the views of the image they were made from, so that what the damage
moved counts. Last, the variance of a picture that lies between others is raised (export/calibration/ambiguity.py), as
far as the predictions still rank pictures by what their views measure. docs/variance.md has the comparison.
Shape letters: N images, V views, W worse forms, P inputs of the head, D embedding dimension, C
cached side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.calibration.ambiguity import fit_ambiguity
from export.calibration.view_statistics import Progress, ViewStatistics, join, view_statistics
from export.calibration.whitening import MIN_IMAGES
from export.served_encoder import ServedMean, ServedVariance, VarianceHead
from train.augment.views import Views
from train.models.encoder import Encoder
from vssl.model.card import Calibration
from vssl.rank_statistics import spearman

RELATIVE_FLOOR = 1e-3
MOST_STEPS = 100  # of an epoch: more images make larger batches, not a longer fit
SLIGHT_DAMAGE = -3.0  # where the fit of damage begins: softplus of it adds 5 %
KEPT_RANKING = 0.9  # of the rank correlation with measured variances, when ambiguity has had its say
STRENGTHS = np.linspace(0.3, 0.0, 31)


@dataclass(frozen=True)
class CalibrationConfig:
    """How the head is fitted.

    images: most images used; views: V of each; worse: W of each, every second a view of
    the training, the others made worse by `export.calibration.degrade`; weight: how often an image itself counts
    beside its worse forms when damage is fitted; epochs, learning_rate, weight_decay, hidden,
    batch: the head's own training; report_views: views of the held-out images that judge it.
    """

    images: int = 2000
    views: int = 8
    worse: int = 6
    weight: int = 10
    report_views: int = 32
    epochs: int = 80
    learning_rate: float = 1e-3
    weight_decay: float = 0.3
    hidden: int = 256
    batch: int = 64
    seed: int = 0


def likelihood(predicted: Tensor, sample: Tensor) -> Tensor:
    """Return the mean of ln v + s / v: the Gaussian negative log-likelihood of sample variances."""
    return (torch.log(predicted) + sample / predicted).mean()


def fit_head(good: ViewStatistics, bad: ViewStatistics, config: CalibrationConfig) -> VarianceHead:
    """Fit a head: first the variance of the pictures as they are, then what damage adds to it.

    The epochs that do best on a held-out quarter of the images are kept.
    """
    torch.manual_seed(config.seed)
    good, bad = _above_blank(good), _above_blank(bad)
    head = VarianceHead(good.inputs.shape[1], good.variance.shape[1], config.hidden)
    everything = join([good] * config.weight + [bad])
    head.shift.copy_(everything.inputs.mean(0))
    head.scale.copy_(1.0 / everything.inputs.std(0).clamp_min(1e-6))
    head.base.copy_(torch.log(good.variance.mean(0)))
    if len(good) < MIN_IMAGES:
        return head
    is_held = torch.zeros(int(good.image.max()) + 1, dtype=torch.bool)
    is_held[torch.randperm(len(is_held))[: len(is_held) // 4]] = True
    _fit(head, head.good, good, is_held, config)
    if len(bad):
        head.begin_damage(SLIGHT_DAMAGE)
        _fit(head, head.damage, everything, is_held, config)
    with torch.inference_mode():  # one number puts the held-out quarter's total at its true level
        held = is_held[good.image]
        head.base.sub_(torch.log(head(good.inputs[held]).sum() / good.variance[held].sum()))
    return head


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
            likelihood(head(data.inputs[rows]), data.variance[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.inference_mode():
            found = float(likelihood(head(data.inputs[held]), data.variance[held]))
        if found < best:
            best, best_state = found, {k: v.clone() for k, v in part.state_dict().items()}
    if best_state is not None:
        part.load_state_dict(best_state)


def add_ambiguity(head: VarianceHead, statistics: ViewStatistics, seed: int) -> ServedVariance:
    """Raise the variance of ambiguous pictures, the total kept.

    The strength is the largest that leaves nine tenths of the rank correlation between predicted
    and measured variance of the pictures that the head was fitted on.
    """
    ambiguity = fit_ambiguity(statistics.mean, seed)
    if ambiguity is None:
        return ServedVariance(head)
    with torch.inference_mode():
        predicted = head(statistics.inputs).sum(1).double().numpy()
        entropy = ambiguity.entropy(statistics.mean).double().numpy()
    measured = statistics.variance.sum(1).double().numpy()
    standard = (entropy - entropy.mean()) / max(float(entropy.std()), 1e-6)
    least = KEPT_RANKING * rank_correlation(predicted, measured)
    factors = ((float(s), np.exp(s * standard)) for s in STRENGTHS)
    strength, factor = next(
        (s, f) for s, f in factors if s == 0 or rank_correlation(predicted * f, measured) >= least
    )
    ambiguity.strength.fill_(strength / max(float(entropy.std()), 1e-6))
    with torch.no_grad():
        head.base.sub_(float(np.log((predicted * factor).sum() / predicted.sum())))
    return ServedVariance(head, ambiguity)


def judge(variance: ServedVariance, statistics: ViewStatistics) -> tuple[float, float]:
    """Return (ratio, rank correlation) of predicted and measured total variance across images.

    ratio is the predicted variance of all images over the measured; 1 is calibrated. The mean of
    the images' own ratios would be at the mercy of a blank one, whose views are all alike.
    """
    with torch.inference_mode():
        predicted = variance(statistics.inputs, statistics.mean).sum(1).double().numpy()
    measured = statistics.variance.sum(1).double().numpy()
    return float(predicted.sum() / measured.sum()), rank_correlation(predicted, measured)


def rank_correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return Spearman's rank correlation; 0 when either is constant and orders nothing."""
    return float(np.nan_to_num(spearman(a, b)))


def calibrate(
    encoder: Encoder,
    views: Views,
    images: NDArray[np.uint8],
    served: ServedMean,
    size: int,
    config: CalibrationConfig | None = None,
    report: Progress | None = None,
) -> tuple[ServedVariance, Calibration]:
    """Fit the variance on (N, C, C, 3) pictures and judge it on a tenth of them that it never saw."""
    config = config or CalibrationConfig()
    order = np.random.default_rng(config.seed).permutation(len(images))[: config.images]
    held = max(1, len(order) // 10) if len(order) >= MIN_IMAGES else 0
    fit_images = images[np.sort(order[held:])]
    good, bad = view_statistics(
        encoder,
        views,
        fit_images,
        served,
        count=config.views,
        worse=config.worse,
        seed=config.seed + 1,
        size=size,
        report=report,
    )
    variance = add_ambiguity(fit_head(good, bad, config), good, config.seed)
    kind = "fitted-head" if len(order) >= MIN_IMAGES else "scale"
    ratio = correlation = None
    if held:
        judged, _ = view_statistics(
            encoder,
            views,
            images[np.sort(order[:held])],
            served,
            count=config.report_views,
            seed=config.seed + 1000,
            size=size,
        )
        ratio, correlation = judge(variance, judged)
    return variance.eval(), Calibration(kind, len(order), config.views, ratio, correlation)
