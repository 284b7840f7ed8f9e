"""SimCLR: each view finds its partner among all views of the batch.

Chen et al. (2020).

Shape letters: B batch, S side of a view, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from train.losses.contrast import nt_xent
from train.methods.method import Method, StepOutput
from train.models.heads import MlpForm


@dataclass(frozen=True)
class SimClrOptions:
    """temperature: of the softmax over cosines."""

    temperature: float = 0.2


class SimClr(Method):
    """Contrastive learning within the batch."""

    options_type = SimClrOptions
    options: SimClrOptions
    projector_form = MlpForm(norm=False)

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Views (B, S, S, 3) -> NT-Xent."""
        options = self.options
        own, _ = self.encode(first, second)
        return self.output(nt_xent(own[0].mean, own[1].mean, options.temperature), own)


METHOD = SimClr
