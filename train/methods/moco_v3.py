"""MoCo V3: the student's prediction finds the teacher's key among the batch's keys.

Chen, Xie and He (2021).

Shape letters: B batch, S side of a view, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from train.losses.contrast import in_batch
from train.methods.method import Method, StepOutput
from train.models.heads import MlpForm, mlp


@dataclass(frozen=True)
class MocoV3Options:
    """temperature: of the softmax over cosines."""

    temperature: float = 0.2


class MocoV3(Method):
    """Momentum contrast without a queue."""

    options_type = MocoV3Options
    options: MocoV3Options
    keeps_teacher = True
    projector_form = MlpForm(norm_last=True, affine_last=False)

    def build_heads(self) -> nn.ModuleDict:
        """The predictor; no linear layer of this method has a bias."""
        network = self.config.network
        widths = [network.dim, network.predictor_hidden, network.dim]
        return nn.ModuleDict({"predictor": mlp(widths, bias_last=False)})

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Views (B, S, S, 3) -> sum over the crossed pairs of 2 T times the cross-entropy."""
        temperature = self.options.temperature
        own, kept = self.encode(first, second)
        predicted = [self.heads["predictor"](o.mean) for o in own]
        loss = in_batch(predicted[0], kept[1].mean, temperature)
        loss = loss + in_batch(predicted[1], kept[0].mean, temperature)
        return self.output(2.0 * temperature * loss, own)


METHOD = MocoV3
