"""Embeddings of calibration images -> the linear map that is served after them.

What all images have in common is taken off, and directions in which images differ a lot are drawn
in: an encoder that was trained for minutes spreads its images along a handful of directions, and a
cosine hears nothing else. Half whitening (power 1/2) measured best: docs/variance.md.
Shape letters: N images, S side, D embedding dimension.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.served_encoder import ServedMean
from train.models.encoder import Encoder

MIN_IMAGES = 64
SMALLEST = 1e-4
"""Least variance of a direction that is believed, of the largest."""


def fit_mean(
    encoder: Encoder,
    images: NDArray[np.uint8],
    space: str,
    size: int,
    whitening: float = 0.5,
    batch: int = 128,
) -> ServedMean:
    """Fit the centre and the map on pictures (N, C, C, 3); under 64 of them nothing is changed.

    whitening: 0 keeps the embedding's own spread, 1 makes it the same in all directions.
    """
    plain = ServedMean(space)
    if len(images) < MIN_IMAGES:
        return plain
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            some = torch.from_numpy(np.ascontiguousarray(images[start : start + batch])).float()
            parts.append(plain(encoder(shrink(some, size))).double())
    means = torch.cat(parts).clone()
    centre = means.mean(0)
    covariance = (means - centre).T @ (means - centre) / len(means)
    matrix = partial_whitening(covariance, len(means), whitening)
    return ServedMean(space, centre.float(), matrix.float())


def partial_whitening(covariance: Tensor, count: int, power: float) -> Tensor:
    """Return the symmetric map (D, D) that takes a covariance (D, D) to its power 1 - `power`, total kept.

    count: images it was estimated on; too few of them are drawn towards a sphere, whose map is 1.
    """
    dim = len(covariance)
    level = covariance.diagonal().mean()
    if power == 0 or not level > 0:
        return torch.eye(dim, dtype=covariance.dtype)
    towards = min(1.0, (dim / count) ** 2)
    sphere = level * torch.eye(dim, dtype=covariance.dtype)
    values, directions = torch.linalg.eigh((1 - towards) * covariance + towards * sphere)
    values = values.clamp_min(SMALLEST * values.max())
    scale = values ** (-power / 2)
    scale = scale * (values.sum() / (values * scale**2).sum()).sqrt()
    matrix: Tensor = (directions * scale) @ directions.T
    return matrix


def shrink(cached: Tensor, size: int) -> Tensor:
    """Cached pictures (N, C, C, 3) -> (N, S, S, 3), anti-aliased, in 0..255."""
    if cached.shape[1] == size:
        return cached
    resized = torch.nn.functional.interpolate(
        cached.permute(0, 3, 1, 2), size=(size, size), mode="bicubic", antialias=True, align_corners=False
    )
    return resized.clamp(0, 255).permute(0, 2, 3, 1)
