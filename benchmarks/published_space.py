"""What an encoder says of images -> how neighbours do over dimension and whitening; what a criterion chooses.

The criterion needs no labels: which share of its 10 nearest other pictures does a view of a picture have in common
with another view?
Shape letters: N images, M pictures with two views each, F feature dimension, P inputs of the heads, D embedding
dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from export.calibration.whitening import served_map
from export.served_encoder import ServedMean
from train.models.encoder import EncoderOutput

Doubles = NDArray[np.float64]
DIMENSIONS, WHITENINGS = (64, 128, 256, None), (0.0, 0.5, 1.0)
NEIGHBOURS = 10


@dataclass(frozen=True, eq=False)
class Shown:
    """What an encoder says of N pictures: features (N, F) and the heads' inputs (N, P)."""

    features: Tensor
    inputs: Tensor


def of(served: ServedMean, shown: Shown) -> Tensor:
    """Return what is served as the mean (N, D)."""
    with torch.inference_mode():
        return served(EncoderOutput(shown.features, shown.features, None)).clone()


def nearest(means: Tensor) -> tuple[NDArray[np.int64], Doubles]:
    """Return each picture's nearest other one and the cosine to it."""
    unit = functional.normalize(means, dim=1)
    rows, cosines = [], []
    for start in range(0, len(unit), 1024):
        similarity = unit[start : start + 1024] @ unit.T
        places = torch.arange(len(similarity))
        similarity[places, start + places] = -2.0
        value, row = similarity.max(dim=1)
        rows.append(row)
        cosines.append(value)
    return torch.cat(rows).numpy(), torch.cat(cosines).double().numpy()


def mean_average_precision(means: Tensor, labels: NDArray[np.int64], most: int = 1000) -> float:
    """Return mAP@R: of the R nearest, R the number of others of the class, over up to `most` queries."""
    unit, truth = functional.normalize(means, dim=1), torch.from_numpy(labels)
    total, asked = 0.0, torch.randperm(len(unit), generator=torch.Generator().manual_seed(0))[:most]
    for row in asked.tolist():
        similarity = unit @ unit[row]
        similarity[row] = -2.0
        count = int((truth == truth[row]).sum()) - 1
        if count:
            hit = (truth[similarity.topk(count).indices] == truth[row]).double()
            total += float((hit * hit.cumsum(0) / torch.arange(1, count + 1)).sum()) / count
    return total / len(asked)


def stability(first: Tensor, second: Tensor, pictures: Tensor) -> float:
    """Return which share of its neighbours among M pictures one view (M, D) has in common with the other."""
    unit, own = functional.normalize(pictures, dim=1), torch.arange(len(pictures))
    found = []
    for view in (first, second):
        similarity = functional.normalize(view, dim=1) @ unit.T
        similarity[own, own] = -2.0
        found.append(similarity.topk(NEIGHBOURS).indices)
    return float((found[0][:, :, None] == found[1][:, None, :]).any(2).double().mean())


def spaces(
    known: Shown, some: Shown, views: tuple[Shown, Shown], asked: Shown, labels: NDArray[np.int64]
) -> list[dict[str, float]]:
    """Return one row a space: fitted on `known`, two views of `some` pictures choosing, judged on `asked`."""
    rows = []
    for dim in DIMENSIONS:
        for whitening in WHITENINGS:
            served = served_map(known.features.double(), "features", whitening, dim)
            mapped = of(served, asked)
            found = labels[nearest(mapped)[0]] == labels
            rows.append(
                {"dim": dim or known.features.shape[1], "whitening": whitening, "recall_at_1": float(found.mean()),
                 "map_at_r": mean_average_precision(mapped, labels),
                 "stability": stability(*(of(served, view) for view in views), of(served, some))}
            )  # fmt: skip
    return rows
