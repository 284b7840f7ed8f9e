"""A method's raw variance output -> positive variances and one number, to watch while it trains.

What is served is calibrated at export; this is the head as the loss knows it.
Shape letters: N images, D embedding dimension.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from train.losses.vssl_gaussian import bounded_log_variance
from train.methods.vje import VARIANCE_FLOOR
from vssl.embeddings.gaussian import GaussianEmbedding

LEAST = 1e-12


def positive_variance(method: str, raw: Tensor) -> Tensor:
    """Read a head's raw output (N, D) as variances (N, D) > 0, float32.

    `vssl-gaussian` trains log-variances; `vje` a softplus. VSSL's cosine form trains a
    direction only, so that its softplus has no scale of its own, though it has an order.
    """
    if method == "vssl-gaussian":
        return bounded_log_variance(raw).exp()
    floor = VARIANCE_FLOOR if method == "vje" else 0.0
    return (functional.softplus(raw.float()) + floor).clamp(min=LEAST)


def one_number(mean: Tensor, variance: Tensor) -> Tensor:
    """Return the uncertainty (N,) that search would show for means and variances (N, D)."""
    arrays = (np.ascontiguousarray(x.float().cpu().numpy()) for x in (mean, variance))
    return torch.from_numpy(GaussianEmbedding(*arrays).uncertainty).to(mean.device)
