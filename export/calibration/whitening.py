"""Embeddings of calibration images -> the linear map that is served after them.

What all images have in common is taken off, and directions in which images differ a lot are drawn
in: an encoder that was trained for minutes spreads its images along a handful of directions, and a
cosine sees nothing else. Half whitening (power 1/2) measured best: docs/explanation/variance.md.
Shape letters: N images, S side, D embedding dimension.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.served_encoder import Encode, ServedMean

MIN_IMAGES = 64
SMALLEST = 1e-4
"""Least variance of a direction, as a share of the largest: smaller ones count as this."""


def fit_mean(
    encoder: Encode,
    images: NDArray[np.uint8],
    space: str,
    size: int,
    whitening: float = 0.5,
    batch: int = 128,
    dim: int | None = None,
) -> ServedMean:
    """Fit the centre and the map on pictures (N, C, C, 3); under 64 of them nothing is changed.

    whitening: 0 keeps the embedding's own spread, 1 makes it the same in all directions; dim: how many
    principal directions are kept, all when None.
    """
    return served_map(embedded(encoder, images, space, size, batch), space, whitening, dim)


def embedded(encoder: Encode, images: NDArray[np.uint8], space: str, size: int, batch: int = 128) -> Tensor:
    """Return the embeddings (N, D) of pictures (N, C, C, 3) in a space, before any map, float64."""
    return served_means(encoder, images, ServedMean(space), size, batch).double()


def served_means(
    encoder: Encode, images: NDArray[np.uint8], served: ServedMean, size: int, batch: int = 128
) -> Tensor:
    """Return what is served as the mean (N, D) of pictures (N, C, C, 3)."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            some = torch.from_numpy(np.ascontiguousarray(images[start : start + batch])).float()
            parts.append(served(encoder(shrink(some, size))))
    return torch.cat(parts).clone()


def served_map(means: Tensor, space: str, whitening: float, dim: int | None = None) -> ServedMean:
    """Return centre and map fitted on embeddings (N, D); `dim` of their principal directions are kept.

    Under 64 embeddings nothing is changed.
    """
    if len(means) < MIN_IMAGES:
        return ServedMean(space)
    centre = means.mean(0)
    covariance = (means - centre).T @ (means - centre) / len(means)
    if dim is None or dim >= len(covariance):
        matrix = partial_whitening(covariance, len(means), whitening)
    else:
        directions = torch.linalg.eigh(covariance)[1].flip(1)[:, :dim]
        kept = directions.T @ covariance @ directions
        matrix = directions @ partial_whitening(kept, len(means), whitening)
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
