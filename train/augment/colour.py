"""Colours of a batch -> other colours, each image by its own numbers.

All functions take and give (B, 3, S, S) float in 0..255; factors are (B,) tensors. They follow
torchvision's definitions (ITU-R 601 greys; jitter clamps after each step).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

GREY = (0.2989, 0.587, 0.114)
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def luminance(images: Tensor) -> Tensor:
    """(B, 3, S, S) -> (B, 1, S, S) greys."""
    red, green, blue = images.unbind(1)
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue)[:, None]


def jitter(images: Tensor, factors: Tensor, order: Tensor, chosen: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of the chosen images, each in its own order.

    factors (B, 4): brightness, contrast and saturation factors (1 changes nothing) and the hue
    shift in turns; order (B, 4): which of the four comes first, second, ...; chosen (B,) bool.

    The first three are one blend towards black, the mean grey or the pixel's grey, so each step
    blends the whole batch at once and only the hue needs a branch.
    """
    for place in range(4):
        step = order[:, place]
        grey = luminance(images)
        mean = grey.mean(dim=(2, 3), keepdim=True)
        kind = step[:, None, None, None]
        base = torch.where(kind == SATURATION, grey, torch.where(kind == CONTRAST, mean, 0.0))
        factor = factors.gather(1, step[:, None])[:, :, None, None]
        factor = torch.where(chosen[:, None, None, None] & (kind != HUE), factor, 1.0)
        images = torch.lerp(base.expand_as(images), images, factor).clamp_(0.0, 255.0)
        turned = chosen & (step == HUE)
        if images.device.type == "cpu":
            rows = turned.nonzero()[:, 0]
            images[rows] = shift_hue(images[rows], factors[rows, HUE])
        else:  # choosing rows would make the host wait for the device
            turn = torch.where(turned, factors[:, HUE], 0.0)
            images = torch.where(turned[:, None, None, None], shift_hue(images, turn), images)
    return images


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of each image by a share of the circle, (B,); value and saturation stay."""
    high = images.amax(dim=1)
    chroma = high - images.amin(dim=1)
    safe = torch.where(chroma == 0, 1.0, chroma)
    red, green, blue = images.unbind(1)
    sixths = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
    )
    sixths = sixths + 6.0 * turns[:, None, None]
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = (sixths + offset) % 6.0
        channels.append(high - chroma * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0))
    return torch.stack(channels, dim=1)


def to_grey(images: Tensor, chosen: Tensor) -> Tensor:
    """Replace the chosen images, (B,) bool, by their greys."""
    return _where(chosen, images, lambda some: luminance(some).expand_as(some))


def solarise(images: Tensor, chosen: Tensor) -> Tensor:
    """Invert the values from 128 upwards of the chosen images, (B,) bool."""
    return _where(chosen, images, lambda some: torch.where(some >= 128.0, 255.0 - some, some))


def _where(chosen: Tensor, images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change the chosen images: only them on a CPU, all and then select where rows cost a wait."""
    if images.device.type != "cpu":
        return torch.where(chosen[:, None, None, None], change(images), images)
    rows = chosen.nonzero()[:, 0]
    return images.index_copy(0, rows, change(images[rows]))
