"""Served Gaussians of labelled pictures -> k-NN accuracy and R-AUROC, each picture against the others.

Shape letters: N images, K neighbours, D embedding dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from train.evaluation.knn import nearest_others, vote
from train.evaluation.uncertainty import r_auroc
from vssl.embeddings.gaussian import GaussianEmbedding

MIN_LABELLED = 50
NEIGHBOURS = 20


@dataclass(frozen=True)
class Accuracy:
    """How well N labelled pictures find their like, none of them finding itself.

    knn_top1: accuracy of the weighted 20-NN vote (T = 0.07, cosine); r_auroc: AUROC of the
    uncertainty for "the nearest picture has another label", None when all or none have.
    """

    images: int
    knn_top1: float
    r_auroc: float | None


def accuracy(gaussians: GaussianEmbedding, labels: list[str | None]) -> Accuracy | None:
    """Measure; None unless all of at least 50 pictures are labelled, with two labels or more."""
    known = [label for label in labels if label is not None]
    if len(known) < len(labels) or len(known) < MIN_LABELLED or len(set(known)) < 2:
        return None
    classes = torch.from_numpy(np.unique(np.array(known), return_inverse=True)[1])
    mean = torch.from_numpy(gaussians.mean)
    cosines, rows = nearest_others(mean, NEIGHBOURS)
    right = vote(cosines, classes[rows], int(classes.max()) + 1) == classes
    ordered = r_auroc(torch.from_numpy(gaussians.uncertainty), mean, classes)
    return Accuracy(len(known), float(right.double().mean()), None if math.isnan(ordered) else ordered)
