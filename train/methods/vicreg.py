"""VICReg: equal codes whose dimensions keep their variance and share nothing.

Bardes, Ponce and LeCun (2022).

Shape letters: B batch, S side of a view, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from train.losses.agreement import vicreg
from train.methods.method import Method, StepOutput
from train.models.heads import MlpForm


@dataclass(frozen=True)
class VicRegOptions:
    """The weights of the three terms."""

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0


class VicReg(Method):
    """Variance-invariance-covariance regularisation."""

    options_type = VicRegOptions
    options: VicRegOptions
    projector_form = MlpForm(hidden_layers=2)

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Views (B, S, S, 3) -> the weighted sum of the terms."""
        o = self.options
        own, _ = self.encode(first, second)
        return self.output(vicreg(own[0].mean, own[1].mean, o.invariance, o.variance, o.covariance), own)


METHOD = VicReg
