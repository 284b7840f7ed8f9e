"""Resampling matrices do what torchvision's crop, anti-aliased resize, flip and blur do."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from train.augment.resample import blur, blur_matrix, crop_and_resize, resampling_matrix

MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
BOXES = [(0, 0, 40, 40), (3, 7, 20, 31), (11, 2, 5, 8), (39, 39, 1, 1), (0, 13, 40, 16)]


def pictures(count: int, side: int) -> torch.Tensor:
    return 255.0 * torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [16, 40, 64])
def test_each_image_gets_its_own_crop_and_resize(interpolation: str, size: int) -> None:
    images = pictures(len(BOXES), 40).round().to(torch.uint8)
    top, left, height, width = torch.tensor(BOXES, dtype=torch.float32).T
    found = crop_and_resize(
        images.permute(0, 2, 3, 1).contiguous(),
        resampling_matrix(top, height, 40, size, interpolation),
        resampling_matrix(left, width, 40, size, interpolation),
    )
    for row, (top_, left_, h, w) in enumerate(BOXES):
        expected = tv.resized_crop(
            images[row].float(),
            top_,
            left_,
            h,
            w,
            [size, size],
            interpolation=MODES[interpolation],
            antialias=True,
        )
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=2e-3)


def test_rows_are_averages() -> None:
    length = torch.arange(1.0, 33.0)
    matrix = resampling_matrix(torch.zeros(32), length, 32, 10, "bicubic")
    torch.testing.assert_close(matrix.sum(dim=2), torch.ones(32, 10))
    outside = torch.arange(32)[None, None, :] >= length[:, None, None]
    assert matrix[outside.expand_as(matrix)].abs().max() == 0


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_blur_is_the_gaussian_with_mirrored_borders(sigma: float) -> None:
    images, radius = pictures(2, 24), 6
    found = blur(images, blur_matrix(torch.tensor([sigma, 0.0]), 24, radius))
    expected = tv.gaussian_blur(images[:1], [2 * radius + 1] * 2, [sigma, sigma])
    torch.testing.assert_close(found[:1], expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found[1], images[1])
