"""Two batches of embeddings of the same images -> scalars that fall as they agree.

The losses of the baselines that need no negatives. All arithmetic is in float32. Shape letters:
B batch, D dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from train.losses.vssl import cosine


def regression(predicted: Tensor, target: Tensor) -> Tensor:
    """2 - 2 cos, the squared distance of unit vectors: mean over the batch (BYOL, equation 2)."""
    return (2.0 - 2.0 * cosine(predicted, target)).mean()


def negative_cosine(predicted: Tensor, target: Tensor) -> Tensor:
    """-cos: mean over the batch (SimSiam, equation 1)."""
    return -cosine(predicted, target).mean()


def barlow_twins(first: Tensor, second: Tensor, redundancy: float = 0.0051, scale: float = 0.1) -> Tensor:
    """Scaled distance of the views' cross-correlation matrix from the identity.

    sum_i (1 - C_ii)^2 + redundancy * sum_{i != j} C_ij^2, times `scale`; each dimension is
    standardised over the batch first (Zbontar et al. 2021, equation 1).
    """
    with torch.autocast(first.device.type, enabled=False):
        a, b = (_standardised(x.float()) for x in (first, second))
        correlation = a.T @ b / len(a)
        diagonal = correlation.diagonal()
        off = correlation.square().sum() - diagonal.square().sum()
        return scale * ((1.0 - diagonal).square().sum() + redundancy * off)


def _standardised(x: Tensor) -> Tensor:
    return (x - x.mean(dim=0)) / torch.sqrt(x.var(dim=0, correction=0) + 1e-5)


def vicreg(
    first: Tensor, second: Tensor, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0
) -> Tensor:
    """Squared distance, a hinge that keeps each dimension's deviation at 1, and decorrelation.

    Bardes et al. (2022), equation 6, with the hinge summed over the two views as solo-learn
    does (the paper's listing halves it).
    """
    with torch.autocast(first.device.type, enabled=False):
        first, second = first.float(), second.float()
        loss = invariance * functional.mse_loss(first, second)
        for x in (first, second):
            deviation = torch.sqrt(x.var(dim=0) + 1e-4)
            centred = x - x.mean(dim=0)
            matrix = centred.T @ centred / (len(x) - 1)
            off = matrix.square().sum() - matrix.diagonal().square().sum()
            loss = loss + variance * functional.relu(1.0 - deviation).mean() + covariance * off / x.shape[1]
        return loss
