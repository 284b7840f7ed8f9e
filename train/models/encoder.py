"""Pictures (B, S, S, 3) -> features, mean and raw variance: the part of a method that is kept.

The cast and the normalisation are the network's first layer, so that training, checkpoint and
exported graph all carry them. Shape letters: B batch, S side, F feature dimension, D embedding
dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from train.models.backbones import Backbone
from train.settings.config import TrainConfig


class EncoderOutput(NamedTuple):
    """features (B, F), mean (B, D) and raw_variance (B, D), None without a Gaussian head."""

    features: Tensor
    mean: Tensor
    raw_variance: Tensor | None


class Normalise(nn.Module):
    """(B, S, S, 3) in 0..255, uint8 or float -> (B, 3, S, S) with the data's mean and scale removed."""

    scale: Tensor
    offset: Tensor

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        deviation = torch.tensor(std).view(1, 3, 1, 1)
        self.register_buffer("scale", 1.0 / (255.0 * deviation))
        self.register_buffer("offset", -torch.tensor(mean).view(1, 3, 1, 1) / deviation)

    def forward(self, images: Tensor) -> Tensor:
        """(B, S, S, 3) -> (B, 3, S, S) float32."""
        return images.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.offset


class Encoder(nn.Module):
    """Normalise, backbone, projector.

    The projector gives either the mean (B, D) or the pair mean, raw variance, each (B, D).
    """

    def __init__(self, config: TrainConfig, projector: nn.Module, backbone: Backbone) -> None:
        super().__init__()
        backbone.fit(config.size)
        self.normalise = Normalise(config.mean, config.std)
        self.backbone = backbone
        self.projector = projector
        self.size = config.size

    @property
    def feature_dim(self) -> int:
        """F, the backbone's output dimension."""
        return self.backbone.feature_dim

    def forward(self, images: Tensor) -> EncoderOutput:
        """(B, S, S, 3), uint8 or float in 0..255, or features (B, F) made before -> EncoderOutput."""
        features: Tensor = images if images.ndim == 2 else self.backbone(self.normalise(images))
        projected = self.projector(features)
        if isinstance(projected, tuple):
            return EncoderOutput(features, projected[0], projected[1])
        return EncoderOutput(features, projected, None)
