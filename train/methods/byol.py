"""BYOL: the student's prediction regresses on the teacher's projection of the other view.

Grill et al. (2020), with the two crossed pairs and no negatives.

Shape letters: B batch, S side of a view, D embedding dimension.
"""

from __future__ import annotations

from torch import Tensor, nn

from train.losses.agreement import regression
from train.methods.method import Method, StepOutput
from train.models.heads import Head
from train.settings.config import TrainConfig


class Byol(Method):
    """Bootstrap your own latent."""

    keeps_teacher = True

    @staticmethod
    def projector(feature_dim: int, config: TrainConfig) -> nn.Module:
        """Linear - norm - ReLU - Linear."""
        return Head(feature_dim, config.network.projector_hidden, config.network.dim)

    def build_heads(self) -> nn.ModuleDict:
        """The predictor, of the same form."""
        network = self.config.network
        return nn.ModuleDict({"predictor": Head(network.dim, network.predictor_hidden, network.dim)})

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Views (B, S, S, 3) -> sum over the crossed pairs of 2 - 2 cos."""
        own, kept = self.encode(first, second)
        predicted = [self.heads["predictor"](o.mean) for o in own]
        loss = regression(predicted[0], kept[1].mean) + regression(predicted[1], kept[0].mean)
        return self.output(loss, own)


METHOD = Byol
