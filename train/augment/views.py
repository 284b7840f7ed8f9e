"""Stored images (B, C0, C0, 3) uint8 -> random views (B, S, S, 3) float in 0..255, on any device.

The whole batch is augmented at once where it lies, every image by its own random numbers:
crop + resize + flip, warp, colour jitter, grey, blur, solarise, noise, in that order. The
distributions are torchvision's, image by image. Shape letters: B batch, C0 side of the stored
image, S side of the view.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from train.augment import colour
from train.augment.resample import blur, blur_matrix, crop_and_resize, resampling_matrix
from train.settings.config import AugmentConfig

TRIES = 10  # crops drawn before the whole picture is taken instead, as torchvision does


class _Uniform(Protocol):
    def __call__(self, low: float, high: float, *shape: int) -> Tensor: ...


class ViewDraw(NamedTuple):
    """The random numbers of one batch of views; all (B,) except where said.

    top, left, height, width: the crop, pixels of the stored image; flip, jittered, grey,
    solarised: bool; factors, order: (B, 4), see `train.augment.colour.jitter`; sigma: blur in pixels,
    0 for none; warp: (B, 2, 3) view coordinates -> source coordinates in -1..1; noise: its
    standard deviation in grey levels.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor
    jittered: Tensor
    factors: Tensor
    order: Tensor
    grey: Tensor
    sigma: Tensor
    solarised: Tensor
    warp: Tensor
    noise: Tensor


class Views:
    """Draws one random view of each image of a batch."""

    def __init__(self, config: AugmentConfig, size: int) -> None:
        self.config = config
        self.size = size

    def __call__(
        self, images: Tensor, generator: torch.Generator, share: slice | None = None, total: int = 0
    ) -> Tensor:
        """(B, C0, C0, 3) uint8 -> (B, S, S, 3) float32 in 0..255.

        The generator lives on the images' device; the same state gives the same views. share:
        the images are these rows of a batch of `total` that several processes divide; their
        views are then those that the whole batch would give them.
        """
        count, rows = (len(images), slice(None)) if share is None else (total, share)
        drawn = ViewDraw(*(x[rows] for x in self.draw(count, images.shape[1], generator)))
        views = self.apply(images, drawn)
        if self.config.noise:
            spread = torch.randn((count, *views.shape[1:]), generator=generator, device=views.device)[rows]
            views = (views + spread * drawn.noise[:, None, None, None]).clamp(0.0, 255.0)
        return views

    def draw(self, count: int, side: int, generator: torch.Generator) -> ViewDraw:
        """Draw the random numbers for `count` stored images of side `side`."""
        c, device = self.config, generator.device

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(shape or (count,), generator=generator, device=device)

        top, left, height, width = self._boxes(count, side, uniform)
        factors = torch.stack(
            [uniform(max(0.0, 1.0 - s), 1.0 + s) for s in (c.brightness, c.contrast, c.saturation)]
            + [uniform(-c.hue, c.hue)],
            dim=1,
        )
        blurred = uniform(0.0, 1.0) < c.blur
        angle = uniform(-c.rotate, c.rotate) * (math.pi / 180.0)
        zoom = uniform(*c.zoom)
        move = uniform(-2.0 * c.shift, 2.0 * c.shift, 2, count)  # the side spans -1..1
        cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        return ViewDraw(
            top=top,
            left=left,
            height=height,
            width=width,
            flip=uniform(0.0, 1.0) < c.flip,
            jittered=uniform(0.0, 1.0) < c.jitter,
            factors=factors,
            order=uniform(0.0, 1.0, count, 4).argsort(dim=1),
            grey=uniform(0.0, 1.0) < c.grey,
            sigma=torch.where(blurred, uniform(*c.blur_sigma), 0.0),
            solarised=uniform(0.0, 1.0) < c.solarise,
            warp=torch.stack([cosine, -sine, move[0], sine, cosine, move[1]], dim=1).view(count, 2, 3),
            noise=uniform(0.0, c.noise),
        )

    def apply(self, images: Tensor, drawn: ViewDraw) -> Tensor:
        """Make the views that the drawn numbers describe, except for the noise."""
        c, side = self.config, images.shape[1]
        vertical = resampling_matrix(drawn.top, drawn.height, side, self.size, c.interpolation)
        horizontal = resampling_matrix(drawn.left, drawn.width, side, self.size, c.interpolation)
        horizontal = torch.where(drawn.flip[:, None, None], horizontal.flip(1), horizontal)
        views = crop_and_resize(images, vertical, horizontal).clamp_(0.0, 255.0)  # bicubic overshoots
        if c.rotate or c.shift or c.zoom != (1.0, 1.0):
            views = warp(views, drawn.warp)
        if c.jitter:
            views = colour.jitter(views, drawn.factors, drawn.order, drawn.jittered)
        if c.grey:
            views = colour.to_grey(views, drawn.grey)
        if c.blur:
            radius = min(math.ceil(3.0 * c.blur_sigma[1]), self.size - 1)
            views = blur(views, blur_matrix(drawn.sigma, self.size, radius))
        if c.solarise:
            views = colour.solarise(views, drawn.solarised)
        return views.permute(0, 2, 3, 1)

    def _boxes(self, count: int, side: int, uniform: _Uniform) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw crop boxes as torchvision's RandomResizedCrop does: the first of ten tries that fits."""
        low, high = self.config.crop_ratio
        area = side * side * uniform(*self.config.crop_scale, count, TRIES)
        ratio = torch.exp(uniform(math.log(low), math.log(high), count, TRIES))
        width, height = torch.sqrt(area * ratio).round(), torch.sqrt(area / ratio).round()
        fits = (width >= 1) & (width <= side) & (height >= 1) & (height <= side)
        first = fits.to(torch.int8).argmax(dim=1, keepdim=True)
        found = fits.any(dim=1)
        whole_width = side if high >= 1.0 else round(side * high)
        whole_height = side if low <= 1.0 else round(side / low)
        width = torch.where(found, width.gather(1, first)[:, 0], float(whole_width))
        height = torch.where(found, height.gather(1, first)[:, 0], float(whole_height))
        top = torch.where(
            found, (uniform(0.0, 1.0) * (side - height + 1)).floor(), ((side - height) / 2).floor()
        )
        left = torch.where(
            found, (uniform(0.0, 1.0) * (side - width + 1)).floor(), ((side - width) / 2).floor()
        )
        return top, left, height, width


def warp(views: Tensor, matrix: Tensor) -> Tensor:
    """Turn, shift and magnify (B, 3, S, S) bilinearly by (B, 2, 3) view -> source coordinates in -1..1.

    What comes from outside the picture has its background's colour, the median of its border:
    a digit on black stays on black.
    """
    border = torch.cat([views[:, :, 0], views[:, :, -1], views[:, :, :, 0], views[:, :, :, -1]], dim=2)
    background = border.median(dim=2).values[:, :, None, None]
    grid = functional.affine_grid(matrix, list(views.shape), align_corners=False)
    return functional.grid_sample(views - background, grid, align_corners=False) + background
