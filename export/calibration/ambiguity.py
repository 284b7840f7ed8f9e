"""A served mean -> how unclear it is which part of the embedding space the picture belongs to.

The calibration images are gathered around some dozens of directions; a picture that is about as
near to many of them as to any is one whose neighbours are likely to be of another kind, however
little its views scatter. The entropy over those directions is a few thousand multiplications in
the graph that is served, needs no gallery, and no labels were used.
Shape letters: B batch, N images, K directions, D embedding dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.models.clusters import spherical_kmeans

MOST, IMAGES_EACH, FEWEST = 128, 16, 16
"""Directions at most; calibration images for each; and the fewest that are worth an entropy."""
SPREAD = 0.22
"""exp(entropy) of the average image, of K: between one direction (1/K) and all of them (1)."""
ROUNDS = 20


class Ambiguity(nn.Module):
    """Means (B, D) -> log factors of the variance (B,): strength x standardised entropy."""

    directions: Tensor
    sharpness: Tensor
    centre: Tensor
    strength: Tensor

    def __init__(self, directions: Tensor, sharpness: float) -> None:
        super().__init__()
        self.register_buffer("directions", directions)
        self.register_buffer("sharpness", torch.tensor(sharpness))
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("strength", torch.zeros(()))

    def entropy(self, mean: Tensor) -> Tensor:
        """(B, D) -> (B,) nats, 0 to ln K."""
        cosines = functional.normalize(mean, dim=1, eps=1e-6) @ self.directions.T
        shares = functional.log_softmax(cosines * self.sharpness, dim=1)
        return -(shares.exp() * shares).sum(dim=1)

    def forward(self, mean: Tensor) -> Tensor:
        """(B, D) -> (B,)."""
        return self.strength * (self.entropy(mean) - self.centre)


def fit_ambiguity(means: Tensor, seed: int = 0) -> Ambiguity | None:
    """Gather calibration means (N, D) around directions; without effect until `strength` is set.

    None when there are too few images.
    """
    count = min(MOST, len(means) // IMAGES_EACH)
    if count < FEWEST:
        return None
    unit = functional.normalize(means.float(), dim=1, eps=1e-6)
    directions, _ = spherical_kmeans(unit, count, ROUNDS, torch.Generator().manual_seed(seed))
    found = Ambiguity(directions, 1.0)
    low, high = 0.1, 1000.0
    for _ in range(40):  # the entropy falls as the sharpness grows
        middle = (low * high) ** 0.5
        found.sharpness.fill_(middle)
        wide = found.entropy(means).exp().mean() / count > SPREAD
        low, high = (middle, high) if wide else (low, middle)
    entropy = found.entropy(means)
    found.centre.copy_(entropy.mean())
    return found
