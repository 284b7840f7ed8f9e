"""Encoder + variance head -> the network that is served: images in, mean, variance, features out.

Shape letters: B batch, S side, D embedding dimension, F feature dimension, H hidden width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from train.encoder import Encoder
from vssl.errors import InputError

LOG_RANGE = 12.0
"""The head may move a log variance this far from the mean one, so that no input overflows it."""


class ServedOutput(NamedTuple):
    """mean (B, D), variance (B, D) > 0, features (B, F), all float32."""

    mean: Tensor
    variance: Tensor
    features: Tensor


class VarianceHead(nn.Module):
    """Features (B, F) -> variance (B, D): a two-layer map added to one log variance a dimension.

    The last layer starts at zero, so an untrained head is the constant variance `base`.
    """

    shift: Tensor
    scale: Tensor
    base: Tensor

    def __init__(self, features: int, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("base", torch.zeros(dim))
        self.hidden = nn.Linear(features, hidden)
        self.out = nn.Linear(hidden, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return variance (B, D) > 0."""
        hidden = torch.nn.functional.silu(self.hidden((features - self.shift) * self.scale))
        offset = self.out(hidden).clamp(-LOG_RANGE, LOG_RANGE)
        return torch.exp(self.base + offset)


class ServedEncoder(nn.Module):
    """uint8 (B, S, S, 3) -> ServedOutput.

    `space` chooses what is served as mean; `centre` (D) is what all images have in common and is
    taken off it, so that cosines compare what tells images apart. docs/variance.md has the
    figures. The features are given as they are.
    """

    centre: Tensor

    def __init__(
        self, encoder: Encoder, head: VarianceHead, space: str, centre: Tensor | None = None
    ) -> None:
        super().__init__()
        if space not in ("features", "projector"):
            raise InputError(f"space: found {space!r}, expected 'features' or 'projector'")
        self.encoder = encoder
        self.head = head
        self.space = space
        self.register_buffer("centre", torch.zeros_like(head.base) if centre is None else centre)

    def forward(self, images: Tensor) -> ServedOutput:
        """Return mean (B, D), variance (B, D), features (B, F)."""
        output = self.encoder(images)
        mean = output.features if self.space == "features" else output.mean
        return ServedOutput(mean - self.centre, self.head(output.features), output.features)


def served_mean(encoder: Encoder, images: Tensor, space: str) -> tuple[Tensor, Tensor]:
    """Return (mean (B, D), features (B, F)) of images without a variance."""
    output = encoder(images)
    return (output.features if space == "features" else output.mean), output.features
