"""SimSiam: a prediction meets the other view's projection, whose gradient is stopped; no teacher.

Chen and He (2021).

Shape letters: B batch, S side of a view, D embedding dimension.
"""

from __future__ import annotations

from torch import Tensor, nn

from train.losses.agreement import negative_cosine
from train.methods.method import Method, StepOutput
from train.models.heads import Head, MlpForm


class SimSiam(Method):
    """Simple Siamese representation learning."""

    projector_form = MlpForm(hidden_layers=2, norm_last=True, affine_last=False)

    def build_heads(self) -> nn.ModuleDict:
        """The predictor: a bottleneck."""
        network = self.config.network
        return nn.ModuleDict({"predictor": Head(network.dim, network.predictor_hidden, network.dim)})

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Views (B, S, S, 3) -> mean over the crossed pairs of -cos."""
        own, _ = self.encode(first, second)
        predicted = [self.heads["predictor"](o.mean) for o in own]
        loss = negative_cosine(predicted[0], own[1].mean.detach())
        loss = (loss + negative_cosine(predicted[1], own[0].mean.detach())) / 2
        return self.output(loss, own)


METHOD = SimSiam
