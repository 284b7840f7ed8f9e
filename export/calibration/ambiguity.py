"""A served mean -> how unclear it is which part of the embedding space the picture belongs to.

The calibration images are gathered around some dozens of directions; a picture that is about as
near to many of them as to any is one whose neighbours are likely to be of another kind, however
little its views scatter. Of features, so is one whose mean is short, close to what all images have in common:
it is divided by the square root of its length alone, half way between cosines, for which length says nothing, and
dot products. A projector is trained by cosines, which leave its lengths to chance, so there they say
nothing. What is measured is the collision entropy: minus the logarithm of the probability that two draws from the
softmax over the directions are the same, which the largest shares decide and a tail of small ones hardly moves
(docs/measurements/encoders.md has all of it). It is a few thousand multiplications in the graph that is served,
needs no gallery, and no labels were used.
Shape letters: B batch, N images, K directions, D embedding dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.models.clusters import spherical_kmeans

IMAGES_EACH = 8
"""Fewest images for each direction."""
SPREAD = 0.12
"""exp(entropy) of the average image, the effective number of directions, of K: from one (1/K) to all of them (1)."""
ROUNDS = 20
TINY = 1e-6
LENGTH_POWER = {"features": 0.5, "projector": 0.0}
"""Power of a mean's length that is left, by the space it is served in: 0 for cosines, 1 for dot products."""


class Ambiguity(nn.Module):
    """Means (B, D) -> collision entropy (B,) over K directions, in nats, 0 to ln K (Renyi, 1961, of order 2)."""

    directions: Tensor
    sharpness: Tensor

    def __init__(self, directions: Tensor, sharpness: float, length_power: float = 0.0) -> None:
        super().__init__()
        self.length_power = length_power
        self.register_buffer("directions", directions)
        self.register_buffer("sharpness", torch.tensor(sharpness))

    def forward(self, mean: Tensor) -> Tensor:
        """(B, D) -> (B,)."""
        length = mean.norm(dim=1, keepdim=True).clamp_min(TINY)
        scaled = mean / length.pow(1.0 - self.length_power)
        shares = functional.softmax(scaled @ self.directions.T * self.sharpness, dim=1)
        return -shares.square().sum(dim=1).log()


def fit_ambiguity(means: Tensor, count: int, seed: int = 0, length_power: float = 0.0) -> Ambiguity:
    """Gather calibration means (N, D) around `count` directions, as sharply as leaves the entropy a spread."""
    unit = functional.normalize(means.float(), dim=1, eps=TINY)
    directions, _ = spherical_kmeans(unit, count, ROUNDS, torch.Generator().manual_seed(seed))
    found = Ambiguity(directions, 1.0, length_power)
    size = float(means.float().norm(dim=1).mean().clamp_min(TINY)) ** length_power
    low, high = 0.1 / size, 1000.0 / size
    for _ in range(40):  # the entropy falls as the sharpness grows
        middle = (low * high) ** 0.5
        found.sharpness.fill_(middle)
        wide = found(means).exp().mean() / count > SPREAD
        low, high = (middle, high) if wide else (low, middle)
    return found
