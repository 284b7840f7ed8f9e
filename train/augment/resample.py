"""Crop boxes -> resampling matrices: a crop, an anti-aliased resize and a flip as two products.

Each image of a batch has its own box, so each axis of each image gets its own matrix of
filter weights; applying them is a batched matrix product, which every device does well. The
weights are those of Pillow's and torchvision's anti-aliased resize.
Shape letters: B batch, C0 side of the stored image, S side of the view.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
"""Half width of each filter, in pixels of the coarser grid."""


def resampling_matrix(start: Tensor, length: Tensor, side: int, size: int, interpolation: str) -> Tensor:
    """Return (B, S, C0) weights that resize the interval [start, start + length) to `size` pixels.

    start, length: (B,) whole numbers as float32. Rows sum to 1; weights outside the interval
    are 0, as if it had been cut out before the resize.
    """
    device = start.device
    scale = (length / size)[:, None, None]
    stretch = scale.clamp(min=1.0)  # an enlargement interpolates, a reduction averages
    support = SUPPORT[interpolation] * stretch
    centre = (torch.arange(size, device=device)[None, :, None] + 0.5) * scale
    first = (centre - support + 0.5).floor().clamp(min=0.0)
    last = torch.minimum((centre + support + 0.5).floor(), length[:, None, None])
    # Only the pixels within reach are weighed, as many as the strongest reduction needs.
    reach = min(math.ceil(2.0 * SUPPORT[interpolation] * max(side / size, 1.0)) + 1, side)
    position = first + torch.arange(reach, device=device)
    weights = _filter((position + 0.5 - centre) / stretch, interpolation)
    weights = torch.where(position < last, weights, 0.0)
    weights = weights / weights.sum(dim=2, keepdim=True)
    where = (position + start[:, None, None]).clamp(max=side - 1.0).long()
    return torch.zeros(len(start), size, side, device=device).scatter_add_(2, where, weights)


def _filter(x: Tensor, interpolation: str) -> Tensor:
    x = x.abs()
    if interpolation == "bilinear":
        return (1.0 - x).clamp(min=0.0)
    # Keys' cubic with a = -1/2: a part that ends at 1, and one of the way from 2 back to 1.
    near, back = x.clamp(max=1.0), (2.0 - x).clamp(0.0, 1.0)
    return (1.5 * near - 2.5) * near * near + 1.0 + 0.5 * back * back * (back - 1.0)


def blur_matrix(sigma: Tensor, size: int, radius: int) -> Tensor:
    """Return (B, S, S): Gaussian blur along one axis, mirrored at the borders.

    sigma: (B,) standard deviations in pixels, 0 for none; weights beyond `radius` pixels are 0.
    """
    device = sigma.device
    offsets = torch.arange(-radius, radius + 1, device=device)
    # A blur of 0 is the limit: all weight on the middle.
    weights = torch.exp(-0.5 * (offsets[None, :] / sigma[:, None].clamp(min=1e-3)) ** 2)
    weights = weights / weights.sum(dim=1, keepdim=True)
    place = torch.arange(size, device=device)[:, None] + offsets[None, :]
    place = place.abs()
    place = torch.where(place >= size, 2 * (size - 1) - place, place)
    reach = (place[:, :, None] == torch.arange(size, device=device)).to(weights.dtype)  # (S, 2r+1, S)
    return torch.einsum("bd,odi->boi", weights, reach)


def crop_and_resize(images: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Apply per-image matrices to both axes: (B, H, W, 3) uint8, (B, S, H), (B, S, W) -> (B, 3, S, S).

    The pixels are multiplied as they lie in memory; only the shortened picture is rearranged.
    """
    count, height, width, _ = images.shape
    flat = images.reshape(count, height, 3 * width).to(vertical.dtype)
    tall = torch.bmm(vertical, flat).view(count, -1, width, 3)
    planes = tall.permute(0, 3, 1, 2).reshape(count, -1, width)
    return torch.bmm(planes, horizontal.transpose(1, 2)).view(count, 3, vertical.shape[1], -1)


def blur(images: Tensor, matrix: Tensor) -> Tensor:
    """Apply one matrix (B, S, S) per image to both axes: (B, 3, S, S) -> (B, 3, S, S)."""
    count, _, size, _ = images.shape
    wide = torch.bmm(images.reshape(count, 3 * size, size), matrix.transpose(1, 2)).view_as(images)
    return torch.matmul(matrix[:, None], wide)
