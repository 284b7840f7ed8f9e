"""Pictures -> a few numbers about their quality: sharpness, noise, light, flatness, blocks.

An encoder is trained to look past such things, so its features alone cannot tell a smooth picture
from a blurred one. These numbers, together with the features, let the variance head know that a picture
is a bad one. They are plain tensor operations and part of the exported graph; the fewer of them, the
sooner it is exported.
Shape letters: B batch, S side, P = 23 numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SCALES = 3
COUNT = 6 * SCALES + 5
SMALLEST = 1e-3
LUMA = (0.299, 0.587, 0.114)


def quality(images: Tensor) -> Tensor:
    """(B, S, S, 3) in 0..255 -> (B, P) float32.

    At each of three scales, each half the size of the one before: mean absolute difference along
    rows and along columns, mean absolute Laplacian (sharpness), mean absolute crossed difference
    (noise: Immerkaer 1996), spread of the luma, and how much of the picture is flat. Then the mean
    luma, the spread of the colours, and blocks of JPEG: differences across their borders over all,
    both ways, and the largest 8 x 8 mean.
    """
    colours = images.permute(0, 3, 1, 2).to(torch.float32) / 255.0
    weight = torch.tensor(LUMA, device=colours.device).view(1, 3, 1, 1)
    luma = (colours * weight).sum(dim=1, keepdim=True)
    numbers = [number for scale in range(SCALES) for number in _at_scale(_halved(luma, scale))]
    numbers.append(luma.mean(dim=(2, 3)))
    numbers.append((colours - luma).abs().mean(dim=(1, 2, 3)).unsqueeze(1))
    numbers += [_blocks(luma, 2), _blocks(luma, 3)]
    numbers.append(functional.avg_pool2d(luma, 8).amax(dim=(2, 3)))
    return torch.log(torch.cat(numbers, dim=1) + SMALLEST)


def _halved(luma: Tensor, times: int) -> Tensor:
    for _ in range(times):
        if luma.shape[-1] >= 6:  # a smaller picture has no inside left at half its size
            luma = functional.avg_pool2d(luma, 2)
    return luma


def _at_scale(luma: Tensor) -> list[Tensor]:
    """Luma (B, 1, H, W) -> six numbers, each (B, 1)."""
    height, width = luma.shape[2:]
    down, right = luma.diff(dim=2), luma.diff(dim=3)
    columns, rows = luma.narrow(3, 1, width - 2), luma.narrow(2, 1, height - 2)
    around = columns.narrow(2, 0, height - 2) + columns.narrow(2, 2, height - 2)
    around = around + rows.narrow(3, 0, width - 2) + rows.narrow(3, 2, width - 2)
    absolute = [x.abs() for x in (down, right, 4 * rows.narrow(3, 1, width - 2) - around, down.diff(dim=3))]
    flat = torch.exp(-200.0 * (absolute[0].narrow(3, 1, width - 1) + absolute[1].narrow(2, 1, height - 1)))
    spread = (luma - luma.mean(dim=(2, 3), keepdim=True)).square().mean(dim=(2, 3))
    return [*(x.mean(dim=(2, 3)) for x in absolute), (spread + 1e-8).sqrt(), flat.mean(dim=(2, 3))]


def _blocks(luma: Tensor, dim: int) -> Tensor:
    """Mean absolute difference across the borders of 8 x 8 blocks over the mean of all, (B, 1)."""
    if luma.shape[dim] <= 8:
        return torch.ones_like(luma[:, :, 0, 0])
    steps = luma.diff(dim=dim).abs()
    across = steps[:, :, 7::8] if dim == 2 else steps[..., 7::8]
    ratio: Tensor = across.mean(dim=(2, 3)) / (steps.mean(dim=(2, 3)) + SMALLEST)
    return ratio
