"""Stored images (B, C0, C0, 3) uint8 -> random views (B, S, S, 3) float in 0..255, on any device.

The whole batch is augmented at once where it lies, every image by its own random numbers:
crop + resize + flip, warp, colour jitter, grey, blur, solarise, noise, in that order. The
distributions are torchvision's, image by image. Shape letters: B batch, C0 side of the stored
image, S side of the view.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from train.augment import colour
from train.augment.resample import blur, blur_matrix, crop_and_resize, resampling_matrix
from train.settings.config import AugmentConfig

TRIES = 10  # crops drawn before the whole picture is taken instead, as torchvision does
COLUMNS = [TRIES, TRIES, 2, 5, 4, 4, 1, 4, 1]
"""Numbers an image's view takes: shares of area, ratios, places, chances, strengths, order, blur, warp, noise."""


class ViewPlan(NamedTuple):
    """What is done to each image of a batch.

    corner, extent: (B, 2) the crop, vertical and horizontal, pixels of the stored image; flip,
    jittered, grey, solarised: (B,) bool; factors, order: (B, 4), see `train.augment.colour.jitter`;
    sigma: (B,) blur in pixels, 0 for none; warp: (B, 2, 3) view coordinates -> source coordinates in
    -1..1; noise: (B,) its standard deviation in grey levels.
    """

    corner: Tensor
    extent: Tensor
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
        self._ranges: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(
        self,
        images: Tensor,
        generator: torch.Generator,
        share: slice | None = None,
        total: int = 0,
        aspects: Tensor | None = None,
    ) -> Tensor:
        """(B, C0, C0, 3) uint8 -> (B, S, S, 3) float32 in 0..255.

        The generator lives on the images' device; the same state gives the same views. share:
        the images are these rows of a batch of `total` that several processes divide; their
        views are then those that the whole batch would give them. aspects: (B,) width over height
        of the pictures that were stretched to the stored squares; None where they are square.
        """
        count, rows = (len(images), slice(None)) if share is None else (total, share)
        numbers, noise = self.draw(count, generator)[rows], None
        if self.config.noise:
            shape = (count, self.size, self.size, 3)
            noise = torch.randn(shape, generator=generator, device=images.device)[rows]
        return self.apply(images, numbers, noise, aspects)

    def compile(self, backend: str) -> None:
        """Let torch.compile translate `apply`."""
        self.apply = torch.compile(self.apply, backend=backend)  # type: ignore[method-assign]

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw all random numbers of `count` views but the noise: (B, sum of COLUMNS), each in its range."""
        low, span = self._ranges_on(generator.device)
        drawn = torch.rand((count, len(low)), generator=generator, device=generator.device)
        return torch.addcmul(low, span, drawn)

    def apply(
        self, images: Tensor, numbers: Tensor, noise: Tensor | None = None, aspects: Tensor | None = None
    ) -> Tensor:
        """Make the views that the numbers stand for: a function of its arguments alone.

        (B, C0, C0, 3) uint8, what `draw` gives, (B, S, S, 3) standard normal, (B,) -> (B, S, S, 3).
        """
        plan = self.plan(numbers, images.shape[1], aspects)
        views = self.render(images, plan)
        if noise is None:
            return views
        return torch.addcmul(views, noise, plan.noise[:, None, None, None]).clamp(0.0, 255.0)

    def plan(self, numbers: Tensor, side: int, aspects: Tensor | None = None) -> ViewPlan:
        """Turn the numbers of `draw` into what is done to stored images of side `side`."""
        c = self.config
        shares, ratios, places, chances, strengths, order, sigma, warps, noise = torch.split(
            numbers, COLUMNS, dim=1
        )
        corner, extent = self._boxes(shares, ratios, places, side, aspects)
        flip, jittered, grey, blurred, solarised = chances.unbind(1)
        angle, zoom, right, down = warps.unbind(1)
        cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        return ViewPlan(
            corner=corner,
            extent=extent,
            flip=flip < c.flip,
            jittered=jittered < c.jitter,
            factors=strengths,
            order=order.argsort(dim=1),
            grey=grey < c.grey,
            sigma=torch.where(blurred < c.blur, sigma[:, 0], 0.0),
            solarised=solarised < c.solarise,
            warp=torch.stack([cosine, -sine, right, sine, cosine, down], dim=1).view(-1, 2, 3),
            noise=noise[:, 0],
        )

    def render(self, images: Tensor, plan: ViewPlan) -> Tensor:
        """Make the views that a plan describes, except for the noise."""
        c, side = self.config, images.shape[1]
        matrices = resampling_matrix(
            plan.corner.flatten(), plan.extent.flatten(), side, self.size, c.interpolation
        )
        vertical, horizontal = matrices.view(-1, 2, self.size, side).unbind(1)
        horizontal = torch.where(plan.flip[:, None, None], horizontal.flip(1), horizontal)
        views = crop_and_resize(images, vertical, horizontal).clamp_(0.0, 255.0)  # bicubic overshoots
        if c.rotate or c.shift or c.zoom != (1.0, 1.0):
            views = warp(views, plan.warp)
        if c.jitter:
            views = colour.jitter(views, plan.factors, plan.order, plan.jittered)
        if c.grey:
            views = colour.to_grey(views, plan.grey)
        if c.blur:
            radius = min(math.ceil(3.0 * c.blur_sigma[1]), self.size - 1)
            views = blur(views, blur_matrix(plan.sigma, self.size, radius))
        if c.solarise:
            views = colour.solarise(views, plan.solarised)
        return views.permute(0, 2, 3, 1)

    def _boxes(
        self, shares: Tensor, ratios: Tensor, places: Tensor, side: int, aspects: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Choose crop boxes as torchvision's RandomResizedCrop does: the first of ten tries that fits.

        shares: (B, TRIES) of the area; ratios: (B, TRIES) half the logarithm of width over height; places:
        (B, 2) in 0..1; aspects: (B,) width over height of pictures that were stretched to squares, in which a
        box of another ratio is one of that ratio in the picture. Returns corner and extent (B, 2), vertical and
        horizontal.
        """
        low, high = self.config.crop_ratio
        if aspects is not None:
            ratios = ratios - 0.5 * aspects.log()[:, None]
        stretch = torch.exp(torch.stack([-ratios, ratios], dim=1))
        tried = ((side * shares.sqrt())[:, None] * stretch).round()
        fits = (tried.clamp(1.0, float(side)) == tried).all(dim=1)
        first = fits.to(torch.int8).argmax(dim=1)[:, None, None].expand(-1, 2, 1)
        found = fits.any(dim=1, keepdim=True)
        whole_width = side if high >= 1.0 else round(side * high)
        whole_height = side if low <= 1.0 else round(side / low)
        if aspects is not None:
            sides = torch.stack([aspects / low, high / aspects], dim=1).clamp(max=1.0)
            extent = torch.where(
                found, tried.gather(2, first)[:, :, 0], (side * sides).round().clamp(min=1.0)
            )
        elif whole_width == whole_height:
            extent = torch.where(found, tried.gather(2, first)[:, :, 0], float(side))
        else:
            whole = torch.arange(2, device=tried.device) * (whole_width - whole_height) + whole_height
            extent = torch.where(found, tried.gather(2, first)[:, :, 0], whole.float())
        # The whole picture's box lies in the middle, a crop anywhere that it fits.
        return (torch.where(found, places, 0.5) * (side - extent + found)).floor(), extent

    def _ranges_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return where each number's range begins and how long it is, made once for each device."""
        if device not in self._ranges:
            low, high = torch.tensor(self._bounds(), device=device).unbind(1)
            self._ranges[device] = low, high - low
        return self._ranges[device]

    def _bounds(self) -> list[tuple[float, float]]:
        """Return the range of each number of `draw`, in the order of COLUMNS."""
        c = self.config
        turn, move = math.radians(c.rotate), 2.0 * c.shift  # the side spans -1..1
        ratio = (0.5 * math.log(c.crop_ratio[0]), 0.5 * math.log(c.crop_ratio[1]))
        strengths = [(max(0.0, 1.0 - s), 1.0 + s) for s in (c.brightness, c.contrast, c.saturation)]
        return [
            *[c.crop_scale] * TRIES,
            *[ratio] * TRIES,
            *[(0.0, 1.0)] * (2 + 5),
            *strengths,
            (-c.hue, c.hue),
            *[(0.0, 1.0)] * 4,
            c.blur_sigma,
            (-turn, turn),
            c.zoom,
            *[(-move, move)] * 2,
            (0.0, c.noise),
        ]


def warp(views: Tensor, matrix: Tensor) -> Tensor:
    """Turn, shift and magnify (B, 3, S, S) bilinearly by (B, 2, 3) view -> source coordinates in -1..1.

    What comes from outside the picture has its background's colour, the median of its border:
    a digit on black stays on black.
    """
    border = torch.cat([views[:, :, 0], views[:, :, -1], views[:, :, :, 0], views[:, :, :, -1]], dim=2)
    background = border.median(dim=2).values[:, :, None, None]
    grid = functional.affine_grid(matrix, list(views.shape), align_corners=False)
    return functional.grid_sample(views - background, grid, align_corners=False) + background


class FeatureViews:
    """Draws one of the views of each image that a frozen backbone has seen before: of one half of them.

    half: 0 for first views, 1 for second ones.
    """

    def __init__(self, half: int) -> None:
        self.half = half

    def __call__(
        self,
        stored: Tensor,
        generator: torch.Generator,
        share: slice | None = None,
        total: int = 0,
        aspects: Tensor | None = None,
    ) -> Tensor:
        """Features (B, V, F) of V views each -> (B, F) float32; the arguments are those of `Views`."""
        count, rows = (len(stored), slice(None)) if share is None else (total, share)
        kept = stored.shape[1] // 2
        drawn = torch.randint(kept, (count,), generator=generator, device=stored.device)[rows]
        return stored[torch.arange(len(stored), device=stored.device), self.half * kept + drawn].float()


DrawnViews = tuple[Views, Views] | tuple[FeatureViews, FeatureViews]
"""What draws first and second views."""
