"""An encoder in training and a fixed set of plain images -> the numbers logged with an epoch.

Measured in eval mode on images as export and search will see them, never on views, except for
`view_recall`. Shape letters: N images, S side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from train.collapse import effective_rank, mean_cosine_between, spread
from train.config import EvaluationConfig
from train.encoder import Encoder, EncoderOutput
from train.losses.cosine import cosine
from train.neighbours import knn_accuracy
from train.views import Views

BATCH = 256
RANK_ROWS = 1000  # images whose singular values are taken


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Plain images for watching a run.

    bank, queries: (N, S, S, 3) uint8, training and held-out images; bank_labels, query_labels:
    (N,) class numbers, or None when the images have no usable labels; classes: how many.
    stored: (N, C0, C0, 3) uint8, the held-out images as views are drawn from them.
    """

    bank: NDArray[np.uint8]
    queries: NDArray[np.uint8]
    stored: NDArray[np.uint8]
    bank_labels: NDArray[np.int64] | None = None
    query_labels: NDArray[np.int64] | None = None
    classes: int = 0


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
    views: tuple[Views, Views],
    config: EvaluationConfig,
    device: torch.device,
    generator: torch.Generator,
) -> dict[str, float]:
    """Return the indicators: k-NN and linear accuracy where labels exist, and collapse signals."""
    modes = [(m, m.training) for m in (student, teacher) if m is not None]
    for encoder, _ in modes:
        encoder.eval()
    try:
        held = embed(student, data.queries, device)
        metrics = {
            "spread_features": spread(held.features),
            "spread_mean": spread(held.mean),
            "rank_features": effective_rank(held.features[:RANK_ROWS]),
            "rank_mean": effective_rank(held.mean[:RANK_ROWS]),
            "cosine_between_features": mean_cosine_between(held.features),
            "cosine_between_mean": mean_cosine_between(held.mean),
            "view_recall": _view_recall(student, data.stored, views, device, generator),
        }
        if held.raw_variance is not None:
            metrics["spread_variance"] = spread(held.raw_variance)
            metrics["norm_variance"] = float(held.raw_variance.norm(dim=1).mean())
        if teacher is not None:
            kept = embed(teacher, data.queries, device)
            metrics["teacher_cosine_mean"] = float(cosine(held.mean, kept.mean).mean())
            if held.raw_variance is not None and kept.raw_variance is not None:
                metrics["teacher_cosine_variance"] = float(
                    cosine(held.raw_variance, kept.raw_variance).mean()
                )
        if data.bank_labels is not None and data.query_labels is not None:
            bank = embed(student, data.bank, device)
            labels = torch.from_numpy(data.bank_labels).to(device)
            truth = torch.from_numpy(data.query_labels).to(device)
            fixed = (data.classes, config.neighbours, config.temperature)
            metrics["knn_top1"] = knn_accuracy(bank.features, labels, held.features, truth, *fixed)
            metrics["knn_top1_mean"] = knn_accuracy(bank.mean, labels, held.mean, truth, *fixed)
            if classifier is not None:
                right = classifier(held.features).argmax(dim=1) == truth
                metrics["linear_top1"] = float(right.float().mean())
        return metrics
    finally:
        for encoder, mode in modes:
            encoder.train(mode)


def _view_recall(
    encoder: Encoder,
    stored: NDArray[np.uint8],
    views: tuple[Views, Views],
    device: torch.device,
    generator: torch.Generator,
) -> float:
    """Share of images one view of which finds the other first among all: needs no labels."""
    blocks = [
        torch.from_numpy(np.ascontiguousarray(stored[i : i + BATCH])).to(device)
        for i in range(0, len(stored), BATCH)
    ]
    first, second = (
        functional.normalize(
            torch.cat([encoder(view(block, generator)).features for block in blocks]).float(), dim=1
        )
        for view in views
    )
    nearest = (first @ second.T).argmax(dim=1)
    return float((nearest == torch.arange(len(first), device=device)).float().mean())
