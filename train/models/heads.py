"""Features -> what a loss compares: projectors, predictors and denoisers.

Shape letters: B batch, F feature dimension, H hidden width, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


class Head(nn.Sequential):
    """Linear - batch norm - ReLU - Linear: (B, inside) -> (B, outside).

    The two-layer block of BYOL, which VSSL's projector, predictor and denoisers share
    (arXiv 2504.04318, section III-G).
    """

    def __init__(self, inside: int, hidden: int, outside: int) -> None:
        super().__init__(
            nn.Linear(inside, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, outside),
        )


class GaussianHead(nn.Module):
    """A Head whose output is split in halves: mean (B, D) and raw variance (B, D).

    The second half is unconstrained: the loss that reads it says what it means.
    """

    def __init__(self, inside: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.trunk = Head(inside, hidden, 2 * dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, inside) -> mean (B, D), raw variance (B, D)."""
        mean, raw_variance = self.trunk(x).chunk(2, dim=1)
        return mean, raw_variance


class AnchoredProjector(nn.Module):
    """A projector over frozen features that begins as their principal directions and learns what to add.

    mean = (x - centre) directions + gate * projector(x).mean, with the gate at 0: a projector that begins at random
    would first have to find again what the features hold already. A raw variance is the projector's own.
    """

    centre: Tensor
    directions: Tensor

    def __init__(self, projector: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.projector = projector
        with torch.no_grad():
            found = projector.eval()(torch.zeros(1, feature_dim))
        projector.train()
        dim = (found[0] if isinstance(found, tuple) else found).shape[1]
        self.gate = nn.Parameter(torch.zeros(()))
        self.register_buffer("centre", torch.zeros(feature_dim))
        self.register_buffer("directions", torch.eye(feature_dim, dim))

    def begin_at(self, features: Tensor) -> None:
        """Take centre and directions from features (N, F), in units of their standard deviation.

        Of all F directions none is first: then they stay the features' own, so that a mean can be compared with them.
        """
        features = features.double()
        self.centre.copy_(features.mean(dim=0))
        covariance = torch.cov(features.T)
        dim = self.directions.shape[1]
        chosen = torch.eye(len(covariance), dim, dtype=torch.float64, device=features.device)
        if dim < len(covariance):
            chosen = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :dim]
        spread = ((chosen.T @ covariance @ chosen).trace() / dim).sqrt().clamp(min=1e-12)
        self.directions.copy_(chosen / spread)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(B, F) -> mean (B, D), and the raw variance (B, D) where the projector gives one."""
        found = self.projector(x)
        mean, raw_variance = found if isinstance(found, tuple) else (found, None)
        mean = (x - self.centre) @ self.directions + self.gate * mean
        return mean if raw_variance is None else (mean, raw_variance)


def mlp(
    widths: Sequence[int],
    *,
    norm: bool = True,
    norm_last: bool = False,
    affine_last: bool = True,
    bias_last: bool = True,
) -> nn.Sequential:
    """Linear layers of the given widths, each but the last followed by batch norm and ReLU.

    widths: inside, hidden ..., outside. norm: whether hidden layers are normalised; norm_last:
    whether the output is, with a learned scale and shift when `affine_last`. A linear layer
    before a norm has no bias of its own; bias_last: whether a last layer without norm has one.
    """
    layers: list[nn.Module] = []
    for place, (inside, outside) in enumerate(pairwise(widths)):
        last = place == len(widths) - 2
        normed = norm_last if last else norm
        layers.append(nn.Linear(inside, outside, bias=not normed and (bias_last or not last)))
        if normed:
            layers.append(nn.BatchNorm1d(outside, affine=affine_last if last else True))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class MlpForm:
    """What a perceptron with one width of hidden layers looks like; norms as in `mlp`."""

    hidden_layers: int = 1
    norm: bool = True
    norm_last: bool = False
    affine_last: bool = True

    def build(self, inside: int, hidden: int, outside: int) -> nn.Sequential:
        """(B, inside) -> (B, outside)."""
        widths = [inside, *[hidden] * self.hidden_layers, outside]
        return mlp(widths, norm=self.norm, norm_last=self.norm_last, affine_last=self.affine_last)
