"""Barlow Twins: the views' cross-correlation matrix is drawn to the identity.

Zbontar et al. (2021).

Shape letters: B batch, S side of a view, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from train.losses.agreement import barlow_twins
from train.methods.method import Method, StepOutput
from train.models.heads import MlpForm


@dataclass(frozen=True)
class BarlowTwinsOptions:
    """redundancy: weight of the off-diagonal; scale: of the whole loss."""

    redundancy: float = 0.0051
    scale: float = 0.1


class BarlowTwins(Method):
    """Redundancy reduction."""

    options_type = BarlowTwinsOptions
    options: BarlowTwinsOptions
    projector_form = MlpForm(hidden_layers=2)

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Views (B, S, S, 3) -> distance of the correlation matrix from the identity."""
        options = self.options
        own, _ = self.encode(first, second)
        loss = barlow_twins(own[0].mean, own[1].mean, options.redundancy, options.scale)
        return self.output(loss, own)


METHOD = BarlowTwins
