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
    red, green, blue = torch.split(images, 1, dim=1)
    return torch.add(torch.add(GREY[0] * red, green, alpha=GREY[1]), blue, alpha=GREY[2])


def chooses_rows(images: Tensor) -> bool:
    """Whether a change is computed for the chosen images only: on a CPU, outside of compiled code.

    On a GPU, choosing rows would make the host wait for the device; there all images are changed and
    the chosen results taken.
    """
    return images.device.type == "cpu" and not torch.compiler.is_compiling()


def jitter(images: Tensor, factors: Tensor, order: Tensor, chosen: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of the chosen images, each in its own order.

    factors (B, 4): brightness, contrast and saturation factors (1 changes nothing) and the hue
    shift in turns; order (B, 4): which of the four comes first, second, ...; chosen (B,) bool. The
    images themselves may be changed.

    The first three are one blend towards black, the mean grey or the pixel's grey, so each of three steps
    blends the whole batch at once, and the hue is turned before, between or after them.
    """
    hue_at = (order == HUE).to(torch.int8).argmax(dim=1, keepdim=True)
    steps = torch.arange(3, device=order.device)
    kinds = order.gather(1, steps + (steps >= hue_at))  # (B, 3), the order without the hue
    amounts = torch.where(chosen[:, None], factors.gather(1, kinds), 1.0)
    by_grey, by_mean = ((1.0 - amounts) * (kinds == kind) for kind in (SATURATION, CONTRAST))
    turns = chosen[:, None] & (hue_at == torch.arange(4, device=order.device))
    for step in range(4):
        images = _turn(images, factors[:, HUE], turns[:, step])
        if step == 3:
            break
        grey, each = luminance(images), (slice(None), slice(step, step + 1), None, None)
        towards = torch.addcmul(by_grey[each] * grey, by_mean[each], grey.mean(dim=(2, 3), keepdim=True))
        images = torch.addcmul(towards, images, amounts[each]).clamp_(0.0, 255.0)
    return images


def _turn(images: Tensor, turns: Tensor, chosen: Tensor) -> Tensor:
    if chooses_rows(images):
        rows = chosen.nonzero()[:, 0]
        images[rows] = shift_hue(images[rows], turns[rows])
        return images
    return shift_hue(images, torch.where(chosen, turns, 0.0))


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of each image by a share of the circle, (B,); value and saturation stay."""
    high = images.amax(dim=1, keepdim=True)
    chroma = high - images.amin(dim=1, keepdim=True)
    safe = torch.where(chroma == 0, 1.0, chroma)
    red, green, blue = torch.split(images, 1, dim=1)
    sixths = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
    )
    offsets = torch.arange(5.0, 0.0, -2.0, device=images.device)[:, None, None]  # of red, green and blue
    k = (sixths + (6.0 * turns)[:, None, None, None] + offsets) % 6.0
    return high - chroma * torch.minimum(k, 4.0 - k).clamp_(0.0, 1.0)


def to_grey(images: Tensor, chosen: Tensor) -> Tensor:
    """Replace the chosen images, (B,) bool, by their greys."""
    return _where(chosen, images, lambda some: luminance(some).expand_as(some))


def solarise(images: Tensor, chosen: Tensor) -> Tensor:
    """Invert the values from 128 upwards of the chosen images, (B,) bool."""
    return _where(chosen, images, lambda some: torch.where(some >= 128.0, 255.0 - some, some))


def _where(chosen: Tensor, images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change the chosen images: only them, or all and then select (`chooses_rows`)."""
    if not chooses_rows(images):
        return torch.where(chosen[:, None, None, None], change(images), images)
    rows = chosen.nonzero()[:, 0]
    return images.index_copy(0, rows, change(images[rows]))
