"""Encoder + variance head -> the network that is served: images in, mean, variance, features out.

Shape letters: B batch, S side, D embedding dimension, F feature dimension, P inputs of the head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from export.calibration.ambiguity import Ambiguity
from export.calibration.quality import quality
from train.models.encoder import Encoder, EncoderOutput
from vssl.errors import InputError

LOG_RANGE = 12.0
"""The head may move a log variance this far from the mean one, so that no input overflows it."""

NO_DAMAGE = -30.0
"""Softplus of this is nothing: what an untrained head says of damage."""


class ServedOutput(NamedTuple):
    """mean (B, D), variance (B, D) > 0, features (B, F), all float32."""

    mean: Tensor
    variance: Tensor
    features: Tensor


class VarianceHead(nn.Module):
    """Inputs (B, P), features and picture quality -> variance (B, D).

    The variance of a good picture, a two-layer map added to one log variance a dimension, times
    what the picture's damage adds, which is never less than 1. An untrained head is the constant
    variance `base`.
    """

    shift: Tensor
    scale: Tensor
    base: Tensor

    def __init__(self, inputs: int, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.register_buffer("base", torch.zeros(dim))
        self.good = _two_layers(inputs, hidden, dim, 0.0)
        self.damage = _two_layers(inputs, hidden, dim, NO_DAMAGE)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return variance (B, D) > 0."""
        standard = (inputs - self.shift) * self.scale
        offset = self.good(standard).clamp(-LOG_RANGE, LOG_RANGE)
        added = torch.nn.functional.softplus(self.damage(standard)).clamp(max=LOG_RANGE)
        return torch.exp(self.base + offset + added)

    def begin_damage(self, level: float) -> None:
        """Set what damage adds to the log variance, before it is fitted: softplus(level)."""
        with torch.no_grad():
            self.damage.get_parameter("2.bias").fill_(level)


def _two_layers(inputs: int, hidden: int, outputs: int, start: float) -> nn.Sequential:
    """Build a map that is one number until it is trained."""
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, start)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), last)


def head_inputs(features: Tensor, images: Tensor) -> Tensor:
    """Features (B, F) and the pictures (B, S, S, 3) in 0..255 they were made of -> (B, P)."""
    return torch.cat([features.float(), quality(images)], dim=1)


class ServedMean(nn.Module):
    """An encoder's output -> what is served as its mean (B, D).

    space: `features` or `projector`; centre (D): what all images have in common, taken off; matrix
    (D, D): applied to the rest. Without them the embedding is served as it is.
    """

    centre: Tensor | None
    matrix: Tensor | None

    def __init__(self, space: str, centre: Tensor | None = None, matrix: Tensor | None = None) -> None:
        super().__init__()
        if space not in ("features", "projector"):
            raise InputError(f"space: found {space!r}, expected 'features' or 'projector'")
        self.space = space
        self.register_buffer("centre", centre)
        self.register_buffer("matrix", matrix)

    def forward(self, output: EncoderOutput) -> Tensor:
        """Return (B, D)."""
        mean = output.features if self.space == "features" else output.mean
        if self.centre is not None:
            mean = mean - self.centre
        return mean if self.matrix is None else mean @ self.matrix


class ServedVariance(nn.Module):
    """The head's inputs (B, P) and the served mean (B, D) -> variance (B, D).

    The head says what views do to the picture; `ambiguity` raises it where the picture lies between
    others, and lowers it elsewhere, so that the total over images stays.
    """

    def __init__(self, head: VarianceHead, ambiguity: Ambiguity | None = None) -> None:
        super().__init__()
        self.head = head
        self.ambiguity = ambiguity

    def forward(self, inputs: Tensor, mean: Tensor) -> Tensor:
        """Return variance (B, D) > 0."""
        variance: Tensor = self.head(inputs)
        if self.ambiguity is None:
            return variance
        return variance * torch.exp(self.ambiguity(mean))[:, None]


class ServedEncoder(nn.Module):
    """uint8 (B, S, S, 3) -> ServedOutput. The features are given as they are."""

    def __init__(self, encoder: Encoder, mean: ServedMean, variance: ServedVariance) -> None:
        super().__init__()
        self.encoder = encoder
        self.mean = mean
        self.variance = variance

    def forward(self, images: Tensor) -> ServedOutput:
        """Return mean (B, D), variance (B, D), features (B, F)."""
        output = self.encoder(images)
        mean = self.mean(output)
        variance = self.variance(head_inputs(output.features, images), mean)
        return ServedOutput(mean, variance, output.features)
