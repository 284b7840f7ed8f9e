"""An encoder in training and a fixed set of plain images -> the numbers logged with an epoch.

Measured in eval mode on images as export and search will see them, never on views, except for
`view_recall` and the `*_views` figures. Shape letters: N images, M of them as views are drawn
from them, V views, S side, D embedding dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from train.augment.views import DrawnViews
from train.evaluation.collapse import effective_rank, mean_cosine_between, spread
from train.evaluation.knn import knn_accuracy
from train.evaluation.uncertainty import nearest_is_wrong, one_number, r_auroc, variation
from train.losses.vssl import cosine
from train.models.encoder import Encoder, EncoderOutput
from train.settings.config import EvaluationConfig

BATCH = 256
RANK_ROWS = 1000  # images whose singular values are taken
VIEW_DRAWS = 4  # views of an image whose spread stands in for a variance head


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Plain images for watching a run.

    train_images, queries: (N, S, S, 3) uint8, training and held-out images; train_labels, query_labels:
    (N,) class numbers, or None when the images have no usable labels; classes: how many.
    stored: (M, C0, C0, 3) uint8, held-out images as views are drawn from them; stored_rows: (M,)
    their places in `queries`, None where they are the same images in the same order; stored_aspects: (M,),
    `train.data.image_cache.ImageCache.aspects` of them; cache_rows: (M,) their places in the image cache.
    """

    train_images: NDArray[np.uint8]
    queries: NDArray[np.uint8]
    stored: NDArray[np.uint8]
    train_labels: NDArray[np.int64] | None = None
    query_labels: NDArray[np.int64] | None = None
    classes: int = 0
    stored_rows: NDArray[np.int64] | None = None
    stored_aspects: NDArray[np.float32] | None = None
    cache_rows: NDArray[np.int64] | None = None


@torch.no_grad()
def embed(encoder: Encoder, images: NDArray[np.uint8] | Tensor, device: torch.device) -> EncoderOutput:
    """Run an encoder over images (N, S, S, 3) in blocks; the caller sets its mode."""
    parts = []
    for start in range(0, len(images), BATCH):
        block = images[start : start + BATCH]
        tensor = block if isinstance(block, Tensor) else torch.from_numpy(np.ascontiguousarray(block))
        parts.append(encoder(tensor.to(device)))
    raw = [p.raw_variance for p in parts if p.raw_variance is not None]
    return EncoderOutput(
        torch.cat([p.features for p in parts]),
        torch.cat([p.mean for p in parts]),
        torch.cat(raw) if raw else None,
    )


@torch.no_grad()
def watch(
    student: Encoder,
    teacher: Encoder | None,
    classifier: nn.Linear | None,
    data: EvaluationSet,
    views: DrawnViews,
    config: EvaluationConfig,
    device: torch.device,
    generator: torch.Generator,
    positive_variance: Callable[[Tensor], Tensor],
) -> dict[str, float]:
    """Return the indicators by name; docs/reference/metrics.md explains each.

    positive_variance: how the method reads the encoder's raw variance (`train.methods.method`).

    Signals of collapse, view recall and the spread of the variance always; k-NN and linear
    accuracy and what the variance tells about wrong neighbours where labels exist.
    """
    modes = [(m, m.training) for m in (student, teacher) if m is not None]
    for encoder, _ in modes:
        encoder.eval()
    try:
        held = embed(student, data.queries, device)
        recall, codes = _views(student, data, views, device, generator)
        metrics = _codes(held) | {"view_recall": recall, "view_recall_mean": _recall_of(codes)}
        if teacher is not None:
            metrics |= _agreement(held, embed(teacher, data.queries, device))
        truth = None if data.query_labels is None else torch.from_numpy(data.query_labels).to(device)
        metrics |= _variances(held, truth, positive_variance) | _stand_in(
            held, codes, data.stored_rows, truth
        )
        if data.train_labels is not None and truth is not None:
            known = embed(student, data.train_images, device)
            labels = torch.from_numpy(data.train_labels).to(device)
            fixed = (data.classes, config.neighbours, config.temperature)
            metrics["knn_top1"] = knn_accuracy(known.features, labels, held.features, truth, *fixed)
            metrics["knn_top1_mean"] = knn_accuracy(known.mean, labels, held.mean, truth, *fixed)
            if classifier is not None:
                right = classifier(held.features).argmax(dim=1) == truth
                metrics["linear_top1"] = float(right.float().mean())
        # Where every nearest image is right, or none, there is nothing to order: no figure, instead of nan.
        return {n: v for n, v in metrics.items() if not (n.startswith("r_auroc") and math.isnan(v))}
    finally:
        for encoder, mode in modes:
            encoder.train(mode)


def _codes(held: EncoderOutput) -> dict[str, float]:
    """Measure whether the plain images' features and means still differ, and how large the means are."""
    return {
        "spread_features": spread(held.features),
        "spread_mean": spread(held.mean),
        "rank_features": effective_rank(held.features[:RANK_ROWS]),
        "rank_mean": effective_rank(held.mean[:RANK_ROWS]),
        "cosine_between_features": mean_cosine_between(held.features),
        "cosine_between_mean": mean_cosine_between(held.mean),
        "norm_mean": float(held.mean.float().norm(dim=1).mean()),
    }


def _agreement(held: EncoderOutput, kept: EncoderOutput) -> dict[str, float]:
    """Measure how far the teacher's codes of the same images are from the student's."""
    metrics = {"teacher_cosine_mean": float(cosine(held.mean, kept.mean).mean())}
    if held.raw_variance is not None and kept.raw_variance is not None:
        metrics["teacher_cosine_variance"] = float(cosine(held.raw_variance, kept.raw_variance).mean())
    return metrics


def _variances(
    held: EncoderOutput, truth: Tensor | None, positive_variance: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """Measure the method's own variance: its size, its spread, and what it tells about wrong neighbours."""
    if held.raw_variance is None:
        return {}
    raw = held.raw_variance.float()
    variance = positive_variance(raw)
    metrics = {
        "spread_variance": spread(raw),
        "norm_variance": float(raw.norm(dim=1).mean()),
        "variance_mean": float(variance.mean()),
        "variance_least": float(variance.min()),
        "variance_spread": variation(variance.mean(dim=1)),
        "variance_spread_dims": variation(variance.mean(dim=0)),
    }
    finite = bool(torch.isfinite(held.mean).all() and torch.isfinite(variance).all())
    if truth is not None and finite:
        unsure = one_number(held.mean, variance)
        metrics["r_auroc"] = r_auroc(unsure, held.mean, truth)
        metrics["r_auroc_features"] = r_auroc(unsure, held.features, truth)
    return metrics


def _stand_in(
    held: EncoderOutput, codes: Tensor, rows: NDArray[np.int64] | None, truth: Tensor | None
) -> dict[str, float]:
    """Measure the same of a variance that needs no head and no gallery: that of a few views' codes.

    codes: (V, M, D) unit vectors.
    """
    trace = codes.var(dim=0, correction=0).sum(dim=1)
    metrics = {"variance_spread_views": variation(trace)}
    if truth is not None:
        chosen = slice(None) if rows is None else torch.from_numpy(rows).to(truth.device)
        mean, labels = held.mean[chosen], truth[chosen]
        metrics["r_auroc_views"] = r_auroc(trace, mean, labels)
        known = labels >= 0
        if int(known.sum()) > 1:
            wrong = nearest_is_wrong(mean[known], labels[known])
            metrics["nearest_top1"] = 1.0 - float(wrong.float().mean())
    return metrics


def _recall_of(codes: Tensor) -> float:
    """Return how many of M images one view finds first by another, of unit codes (V, M, D): the mean over pairs."""
    rows = torch.arange(codes.shape[1], device=codes.device)
    pairs = [(a, b) for draw in range(0, len(codes), 2) for a, b in ((draw, draw + 1), (draw + 1, draw))]
    found = [((codes[a] @ codes[b].T).argmax(dim=1) == rows).float().mean() for a, b in pairs]
    return float(torch.stack(found).mean())


def _views(
    encoder: Encoder,
    data: EvaluationSet,
    views: DrawnViews,
    device: torch.device,
    generator: torch.Generator,
) -> tuple[float, Tensor]:
    """Return view recall, and unit codes (V, M, D) of VIEW_DRAWS views of each image.

    View recall is the share of images one view of which finds the other first among all, by
    features: it needs no labels.
    """
    blocks = [
        torch.from_numpy(np.ascontiguousarray(data.stored[i : i + BATCH])).to(device)
        for i in range(0, len(data.stored), BATCH)
    ]
    shapes: Sequence[Tensor | None] = [None] * len(blocks)
    if data.stored_aspects is not None:
        shapes = torch.split(torch.from_numpy(data.stored_aspects).to(device), BATCH)
    features, codes = [], []
    for draw in range(VIEW_DRAWS):
        view = views[draw % 2]
        output = [
            encoder(view(block, generator, aspects=shape))
            for block, shape in zip(blocks, shapes, strict=True)
        ]
        features.append(functional.normalize(torch.cat([o.features for o in output]).float(), dim=1))
        codes.append(functional.normalize(torch.cat([o.mean for o in output]).float(), dim=1))
    nearest = (features[0] @ features[1].T).argmax(dim=1)
    recall = float((nearest == torch.arange(len(nearest), device=device)).float().mean())
    return recall, torch.stack(codes)
