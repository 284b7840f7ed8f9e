"""Served Gaussians of labelled pictures -> k-NN accuracy and R-AUROC, each picture against the others.

Shape letters: N images, K neighbours, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vssl.gaussian import GaussianEmbedding

MIN_LABELLED = 50
NEIGHBOURS, TEMPERATURE = 20, 0.07
BLOCK = 1024  # pictures compared with all at once


@dataclass(frozen=True)
class Accuracy:
    """How well N labelled pictures find their like, none of them finding itself.

    knn_top1: accuracy of the weighted 20-NN vote (T = 0.07, cosine); r_auroc: AUROC of
    -uncertainty for "the nearest picture has my label", None when all or none have.
    """

    images: int
    knn_top1: float
    r_auroc: float | None


def accuracy(gaussians: GaussianEmbedding, labels: list[str | None]) -> Accuracy | None:
    """Measure; None unless all of at least 50 pictures are labelled, with two labels or more."""
    known = [label for label in labels if label is not None]
    if len(known) < len(labels) or len(known) < MIN_LABELLED or len(set(known)) < 2:
        return None
    classes = np.unique(np.array(known), return_inverse=True)[1]
    nearest = nearest_others(gaussians.mean, 1)[1][:, 0]
    ordered = auroc(-gaussians.uncertainty.astype(np.float64), classes[nearest] == classes)
    return Accuracy(len(known), leave_one_out_knn(gaussians.mean, classes), ordered)


def nearest_others(mean: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return cosines and rows, (N, K) each, of every row's nearest others, the nearest first."""
    unit = functional.normalize(torch.from_numpy(mean), dim=1)
    cosines, rows = [], []
    for start in range(0, len(unit), BLOCK):
        similarity = unit[start : start + BLOCK] @ unit.T
        own = torch.arange(len(similarity))
        similarity[own, start + own] = -torch.inf
        best = similarity.topk(min(count, len(unit) - 1), dim=1)
        cosines.append(best.values)
        rows.append(best.indices)
    return torch.cat(cosines).numpy(), torch.cat(rows).numpy()


def leave_one_out_knn(mean: NDArray[np.float32], classes: NDArray[np.int64], k: int = NEIGHBOURS) -> float:
    """Return the accuracy of a weighted k-NN vote in which no picture votes for itself."""
    cosines, rows = nearest_others(mean, k)
    votes = np.zeros((len(mean), int(classes.max()) + 1))
    weight = np.exp((cosines - 1.0) / TEMPERATURE)
    np.add.at(votes, (np.arange(len(mean))[:, None], classes[rows]), weight)
    return float((votes.argmax(axis=1) == classes).mean())


def auroc(score: NDArray[np.float64], correct: NDArray[np.bool_]) -> float | None:
    """Return the chance that a correct row scores above a wrong one, ties counting half; None with one kind only."""
    good, bad = score[correct], np.sort(score[~correct])
    if not len(good) or not len(bad):
        return None
    below = np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")
    return float(below.sum() / (2 * len(good) * len(bad)))
