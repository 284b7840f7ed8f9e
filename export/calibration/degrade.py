"""Pictures -> pictures made worse, each in one of several ways and to a degree of its own.

For calibration: a head that has seen good pictures only cannot know that a bad one is bad. The
ways are what cameras and senders do: too few pixels, too little light, noise, something in front,
only a part. Shape letters: B batch, C side.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional


def degrade(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return (B, C, C, 3) pictures in 0..255, each made worse in one way drawn at random."""
    way = torch.randint(len(DEGRADATIONS), (len(images),), generator=generator)
    worse = images.float().clone()
    for number, change in enumerate(DEGRADATIONS):
        rows = torch.nonzero(way == number)[:, 0]
        if len(rows):
            worse[rows] = change(worse[rows], generator)
    return worse.clamp(0, 255).round()


def downsample(images: Tensor, generator: torch.Generator) -> Tensor:
    """Keep a half to a tenth of the pixels each way and enlarge what is left smoothly."""
    size = images.shape[1]
    kept = max(2, round(size * float(_between(0.1, 0.5, 1, generator))))
    small = functional.interpolate(images.permute(0, 3, 1, 2), size=kept, mode="area")
    large = functional.interpolate(small, size=size, mode="bicubic", align_corners=False)
    return large.permute(0, 2, 3, 1)


def darken(images: Tensor, generator: torch.Generator) -> Tensor:
    """Keep 3 to 50 % of the light, and add the noise of a sensor, three grey levels."""
    share = _between(0.03, 0.5, len(images), generator)[:, None, None, None]
    return images * share + 3 * torch.randn(images.shape, generator=generator)


def add_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of 8 to 90 grey levels."""
    level = _between(8.0, 90.0, len(images), generator)[:, None, None, None]
    return images + level * torch.randn(images.shape, generator=generator)


def occlude(images: Tensor, generator: torch.Generator) -> Tensor:
    """Put a rectangle of one colour over 15 to 90 % of the area."""
    inside = _window(images, _between(0.15, 0.9, len(images), generator), generator)
    colour = 255 * torch.rand((len(images), 1, 1, 3), generator=generator)
    return torch.where(inside, colour, images)


def crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Enlarge a part of 8 to 75 % of the area to the whole."""
    size = images.shape[1]
    side = max(2, round(size * float(_between(0.08, 0.75, 1, generator)) ** 0.5))
    top, left = torch.randint(size - side + 1, (2,), generator=generator).tolist()
    part = images[:, top : top + side, left : left + side].permute(0, 3, 1, 2)
    return functional.interpolate(part, size=size, mode="bicubic", align_corners=False).permute(0, 2, 3, 1)


def compress(images: Tensor, generator: torch.Generator) -> Tensor:
    """Send through JPEG of quality 3 to 45."""
    kept = []
    levels = torch.randint(3, 46, (len(images),), generator=generator).tolist()
    for picture, level in zip(images.round().to(torch.uint8).numpy(), levels, strict=True):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "jpeg", quality=level)
        kept.append(np.array(Image.open(io.BytesIO(file.getvalue()))))
    return torch.from_numpy(np.stack(kept)).float()


DEGRADATIONS = (downsample, darken, add_noise, occlude, crop, compress)


def _between(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    """Draw numbers whose logarithms are even between those of low and high, (count,)."""
    even = torch.rand(count, generator=generator)
    return low * (high / low) ** even


def _window(images: Tensor, area: Tensor, generator: torch.Generator) -> Tensor:
    """Return (B, C, C, 1) masks of squares of the given shares of the area, anywhere."""
    size = images.shape[1]
    side = (size * area.sqrt()).round()
    corner = (torch.rand((2, len(images)), generator=generator) * (size - side + 1)).floor()
    place = torch.arange(size)
    rows, columns = ((place >= c[:, None]) & (place < (c + side)[:, None]) for c in corner)
    inside: Tensor = (rows[:, :, None] & columns[:, None, :])[..., None]
    return inside
