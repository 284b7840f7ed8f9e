"""Features -> what a loss compares: projectors, predictors and denoisers.

Shape letters: B batch, F feature dimension, H hidden width, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
