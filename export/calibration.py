"""Frozen encoder + unlabelled images -> a variance that can be checked.

The served variance of an image is, per dimension, the expected squared deviation of its
embedding under the training's views. A small head on the features predicts it in the same
forward pass, fitted by Gaussian likelihood: for the sample variance s of V views and a
predicted v, (V - 1)/2 (ln v + s / v) is the negative log-likelihood up to a constant.

Two thirds of the inputs are views themselves, so that the head has seen pictures worse than
the folder's own and knows how far *their* views spread; docs/variance.md has the comparison.
Shape letters: N images, V views, D embedding dimension, F feature dimension, C cached side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.served import VarianceHead, served_mean
from train.encoder import Encoder
from train.views import Views
from vssl.card import Calibration

MIN_IMAGES_FOR_HEAD = 64
FLOOR, RELATIVE_FLOOR = 1e-12, 1e-3
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CalibrationConfig:
    """How the head is fitted.

    images: most images used; views: V per input; worse: how many views of each image are inputs
    beside the image itself; epochs, learning_rate, weight_decay, hidden, batch: the head's own
    training; report_views: views of the held-out images that judge it.
    """

    images: int = 2000
    views: int = 8
    worse: int = 2
    report_views: int = 32
    epochs: int = 100
    learning_rate: float = 1e-3
    weight_decay: float = 0.3
    hidden: int = 256
    batch: int = 128
    seed: int = 0


@dataclass(frozen=True, eq=False)
class ViewStatistics:
    """Per input picture: features (N, F), the sample variance (N, D) of its views' embeddings, and
    which image (N,) it was made from.
    """

    features: Tensor
    variance: Tensor
    image: Tensor


def join(parts: Sequence[ViewStatistics]) -> ViewStatistics:
    """Stack statistics of the same images."""
    return ViewStatistics(
        torch.cat([part.features for part in parts]),
        torch.cat([part.variance for part in parts]),
        torch.cat([part.image for part in parts]),
    )


def view_statistics(
    encoder: Encoder,
    views: Views,
    images: NDArray[np.uint8],
    space: str,
    *,
    count: int,
    degraded: bool,
    seed: int,
    size: int,
    batch: int = 128,
    report: Progress | None = None,
) -> ViewStatistics:
    """Embed each picture once and `count` views of it.

    images: (N, C, C, 3); degraded: first replace every picture by one of its own views; size: the
    network's input side S. Returns features of the picture as it would be served and the
    unbiased variance over its views.
    """
    generator = torch.Generator().manual_seed(seed)
    features, variances = [], []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            cached = torch.from_numpy(np.ascontiguousarray(images[start : start + batch])).float()
            plain = shrink(cached, size)
            if degraded:
                plain = views(cached, generator)
                cached = torch.nn.functional.interpolate(
                    plain.permute(0, 3, 1, 2), size=cached.shape[1:3], mode="bilinear", align_corners=False
                ).permute(0, 2, 3, 1)
            features.append(served_mean(encoder, plain, space)[1])
            reference = served_mean(encoder, plain, space)[0].double()
            total, square = torch.zeros_like(reference), torch.zeros_like(reference)
            for _ in range(count):
                # Deviations from the picture's own embedding keep the sums small and exact.
                offset = served_mean(encoder, views(cached, generator), space)[0].double() - reference
                total, square = total + offset, square + offset**2
            variances.append((square - total**2 / count) / (count - 1))
            if report is not None:
                report(min(start + batch, len(images)), len(images))
    return ViewStatistics(
        torch.cat(features).float(), torch.cat(variances).clamp_min(FLOOR).float(), torch.arange(len(images))
    )


def shrink(cached: Tensor, size: int) -> Tensor:
    """Cached pictures (N, C, C, 3) -> (N, S, S, 3), anti-aliased, in 0..255."""
    if cached.shape[1] == size:
        return cached
    resized = torch.nn.functional.interpolate(
        cached.permute(0, 3, 1, 2), size=(size, size), mode="bicubic", antialias=True, align_corners=False
    )
    return resized.clamp(0, 255).permute(0, 2, 3, 1)


def likelihood(predicted: Tensor, sample: Tensor) -> Tensor:
    """Return the mean of ln v + s / v: the Gaussian negative log-likelihood of sample variances."""
    return (torch.log(predicted) + sample / predicted).mean()


def fit_head(statistics: ViewStatistics, config: CalibrationConfig) -> VarianceHead:
    """Fit a head; the epoch that does best on a held-out quarter of the images is kept."""
    torch.manual_seed(config.seed)
    features = statistics.features
    # A blank picture's views are all alike: a variance of nothing would outweigh every other image.
    sample = statistics.variance.clamp_min(RELATIVE_FLOOR * statistics.variance.mean(0))
    head = VarianceHead(features.shape[1], sample.shape[1], config.hidden)
    head.shift.copy_(features.mean(0))
    head.scale.copy_(1.0 / features.std(0).clamp_min(1e-6))
    head.base.copy_(torch.log(sample.mean(0)))
    if len(features) < MIN_IMAGES_FOR_HEAD:
        return head
    images = int(statistics.image.max()) + 1
    is_held = torch.zeros(images, dtype=torch.bool)
    is_held[torch.randperm(images)[: images // 4]] = True
    held, fit = (
        torch.nonzero(mask)[:, 0] for mask in (is_held[statistics.image], ~is_held[statistics.image])
    )
    optimiser = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    best, best_state = float("inf"), None
    for _ in range(config.epochs):
        for rows in torch.split(fit[torch.randperm(len(fit))], config.batch):
            optimiser.zero_grad()
            loss = likelihood(head(features[rows]), sample[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.inference_mode():
            found = float(likelihood(head(features[held]), sample[held]))
        if found < best:
            best, best_state = found, {k: v.clone() for k, v in head.state_dict().items()}
    if best_state is not None:
        head.load_state_dict(best_state)
    with torch.inference_mode():  # one number puts the held-out quarter's total at its true level
        head.base.sub_(torch.log(head(features[held]).sum() / sample[held].sum()))
    return head


def judge(head: VarianceHead, statistics: ViewStatistics) -> tuple[float, float]:
    """Return (ratio, rank correlation) of predicted and measured total variance across images.

    ratio is the predicted variance of all images over the measured; 1 is calibrated. The mean of
    the images' own ratios would be at the mercy of a blank one, whose views are all alike.
    """
    with torch.inference_mode():
        predicted = head(statistics.features).sum(1).double().numpy()
    measured = statistics.variance.sum(1).double().numpy()
    return float(predicted.sum() / measured.sum()), spearman(predicted, measured)


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation of two vectors without ties; 0 when either is constant."""
    ranks = [np.argsort(np.argsort(x)).astype(np.float64) for x in (a, b)]
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def common_mean(
    encoder: Encoder, images: NDArray[np.uint8], space: str, size: int, batch: int = 128
) -> Tensor:
    """Return the mean embedding (D,) of pictures (N, C, C, 3); zeros when they are too few to have one."""
    total, count = torch.zeros(()), 0
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            some = torch.from_numpy(np.ascontiguousarray(images[start : start + batch])).float()
            means = served_mean(encoder, shrink(some, size), space)[0].double()
            total, count = total + means.sum(0), count + len(means)
    centre = (total / count).float()
    return (centre if count >= MIN_IMAGES_FOR_HEAD else torch.zeros_like(centre)).clone()


def calibrate(
    encoder: Encoder,
    views: Views,
    images: NDArray[np.uint8],
    space: str,
    size: int,
    config: CalibrationConfig | None = None,
    report: Progress | None = None,
) -> tuple[VarianceHead, Calibration]:
    """Fit the head on (N, C, C, 3) pictures and judge it on a tenth of them that it never saw."""
    config = config or CalibrationConfig()
    order = np.random.default_rng(config.seed).permutation(len(images))[: config.images]
    held = max(1, len(order) // 10) if len(order) >= MIN_IMAGES_FOR_HEAD else 0
    fit_images = images[np.sort(order[held:])]
    inputs = 1 + config.worse

    def part(number: int) -> ViewStatistics:
        """The images themselves first, then one view of each, then another."""

        def seen(done: int, _: int) -> None:
            if report is not None:
                report(number * len(fit_images) + done, inputs * len(fit_images))

        return view_statistics(
            encoder,
            views,
            fit_images,
            space,
            count=config.views,
            degraded=number > 0,
            seed=config.seed + 1 + number,
            size=size,
            report=seen,
        )

    head = fit_head(join([part(number) for number in range(inputs)]), config)
    kind = "fitted-head" if len(order) >= MIN_IMAGES_FOR_HEAD else "scale"
    ratio = correlation = None
    if held:
        judged = view_statistics(
            encoder,
            views,
            images[np.sort(order[:held])],
            space,
            count=config.report_views,
            degraded=False,
            seed=config.seed + 1000,
            size=size,
        )
        ratio, correlation = judge(head, judged)
    return head.eval(), Calibration(kind, len(order), config.views, ratio, correlation)
