"""Codes, labels and one uncertainty per image -> whether the uncertain ones are the ones that go wrong.

Shape letters: N images, D dimension.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from train.evaluation.knn import nearest_others
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.rank_statistics import auroc


def one_number(mean: Tensor, variance: Tensor) -> Tensor:
    """Return the uncertainty (N,) that search would show for means and variances (N, D)."""
    arrays = (np.ascontiguousarray(x.float().cpu().numpy()) for x in (mean, variance))
    return torch.from_numpy(GaussianEmbedding(*arrays).uncertainty).to(mean.device)


@torch.no_grad()
def nearest_is_wrong(codes: Tensor, labels: Tensor) -> Tensor:
    """Return for each image whether the nearest other one, by cosine, has another label.

    codes (N, D), labels (N,) -> (N,) bool. Needs two images.
    """
    return labels[nearest_others(codes, 1)[1][:, 0]] != labels


@torch.no_grad()
def r_auroc(uncertainty: Tensor, codes: Tensor, labels: Tensor) -> float:
    """Return the AUROC of the uncertainty for "the nearest other image has another label".

    uncertainty (N,), codes (N, D), labels (N,), below 0 where unknown: those images are left
    out. 0.5 is chance, above is informative, nan where nothing or everything goes wrong
    (Kirchhof et al., URL benchmark, NeurIPS 2023, within one set of images).
    """
    known = labels >= 0
    if int(known.sum()) < 2:
        return math.nan
    wrong = nearest_is_wrong(codes[known], labels[known])
    return auroc(uncertainty[known].cpu().numpy(), wrong.cpu().numpy())


@torch.no_grad()
def variation(values: Tensor) -> float:
    """Return the coefficient of variation of positive values, (N,): deviation over mean."""
    values = values.double()
    return float(values.std(correction=0) / values.mean().clamp(min=1e-300))
