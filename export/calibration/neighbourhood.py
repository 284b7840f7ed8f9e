"""Means, and how undecided each is -> a line by which a mean tells how undecided its neighbours are; no labels.

A picture may be decided itself and lie among others that are not: kinds overlap there, and its nearest is of
another kind more often than its own indecision says. What the calibration images around each of them say on
average is learnt as a ridge regression on the served mean, one weight a dimension, so that the graph needs no
gallery. docs/measurements/encoders.md has the comparison.
Shape letters: N images, D embedding dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

NEIGHBOURS = 20
MOST = 10_000
"""Images at most whose neighbours are sought: their number grows with the square."""
STRENGTH = 100.0
"""Of the ridge, where the means' typical component is 1."""
CHUNK = 1024
TINY = 1e-6


def fit_neighbourhood(means: Tensor, undecided: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight (D,) and bias () of the line, whose values at the means (N, D) have mean 0 and deviation 1."""
    step = -(-len(means) // MOST)
    means, undecided = means[::step].double(), undecided[::step].double()
    target = around(means, undecided)
    centre, size = means.mean(0), means.std().clamp_min(TINY)
    seen = (means - centre) / size
    square = seen.T @ seen + STRENGTH * torch.eye(seen.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(square, seen.T @ (target - target.mean()))
    weight = weight / ((seen @ weight).std().clamp_min(TINY) * size)
    return weight.float(), -(centre @ weight).float()


def around(means: Tensor, undecided: Tensor) -> Tensor:
    """Return the mean (N,) of each image's and its 20 nearest neighbours' indecision, nearest by cosine."""
    unit = functional.normalize(means, dim=1, eps=TINY)
    nearest = min(NEIGHBOURS + 1, len(means))  # each is its own nearest
    parts = [(part @ unit.T).topk(nearest, dim=1).indices for part in torch.split(unit, CHUNK)]
    return undecided[torch.cat(parts)].mean(dim=1)
