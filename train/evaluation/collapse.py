"""Embeddings of different images -> indicators of representation collapse.

Shape letters: N images, D dimension.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

FLAT = 0.02
"""A spread below this is a code that no longer tells images apart."""


@torch.no_grad()
def spread(codes: Tensor) -> float:
    """sqrt(D) * mean over dimensions of the deviation of the L2-normalised rows.

    (N, D) -> about 1 for healthy zero-mean codes, 0.3 to 0.6 for features after a ReLU, 0 for
    collapse.
    """
    unit = functional.normalize(codes.float(), dim=1, eps=1e-6)
    return math.sqrt(codes.shape[1]) * float(unit.std(dim=0, correction=0).mean())


@torch.no_grad()
def effective_rank(codes: Tensor) -> float:
    """exp of the entropy of the normalised singular values of the centred rows, (N, D) -> 1..D.

    After RankMe (Garrido et al. 2023). A high rank alone does not certify a run.
    """
    centred = codes.double() - codes.double().mean(dim=0)
    values = torch.linalg.svdvals(centred)
    shares = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-(shares * (shares + 1e-12).log()).sum()))


@torch.no_grad()
def mean_cosine_between(codes: Tensor) -> float:
    """Mean cosine between different rows, (N, D) -> -1..1; rising to 1 = collapse."""
    unit = functional.normalize(codes.float(), dim=1, eps=1e-6)
    count = len(unit)
    total = float(unit.sum(dim=0).square().sum()) - float(unit.square().sum())
    return total / max(count * (count - 1), 1)


def collapse_reason(indicators: dict[str, float]) -> str | None:
    """Say which indicator shows a complete collapse, or None.

    indicators: `spread_features`, `spread_mean` and further `spread_*` as `train.evaluation.monitor` logs
    them. The variance's spread is not judged: a constant variance vector satisfies VSSL's loss
    without harm to the features.
    """
    for name in ("spread_features", "spread_mean"):
        value = indicators.get(name)
        if value is not None and not value >= FLAT:
            return f"{name} is {value:.3g} (healthy codes are above {FLAT:g})"
    return None
