"""Colour changes are torchvision's, image by image."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from train.augment import colour


def pictures(count: int) -> torch.Tensor:
    return 255.0 * torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(6))


def test_every_order_of_the_four_changes() -> None:
    orders = list(permutations(range(4)))
    images = pictures(len(orders))
    random = torch.Generator().manual_seed(7)
    factors = torch.cat(
        [
            0.4 + 1.4 * torch.rand(len(orders), 3, generator=random),
            torch.rand(len(orders), 1, generator=random) - 0.5,
        ],
        dim=1,
    )
    chosen = torch.ones(len(orders), dtype=torch.bool)
    chosen[3] = False
    found = colour.jitter(images.clone(), factors, torch.tensor(orders), chosen)
    apply = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for row, order in enumerate(orders):
        expected = images[row] / 255.0
        if chosen[row]:
            for kind in order:
                expected = apply[kind](expected, float(factors[row, kind]))
        torch.testing.assert_close(found[row], 255.0 * expected, rtol=1e-4, atol=2e-2)


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.0, 0.1, 0.5])
def test_hue_turns_and_leaves_greys(turn: float) -> None:
    images = pictures(3)
    images[0] = images[0, :1]
    found = colour.shift_hue(images, torch.full((3,), turn))
    torch.testing.assert_close(found, 255.0 * tv.adjust_hue(images / 255.0, turn), rtol=1e-4, atol=2e-2)
    torch.testing.assert_close(found[0], images[0])


def test_grey_and_solarise_touch_the_chosen_only() -> None:
    images, chosen = pictures(4), torch.tensor([True, False, True, False])
    grey, solarised = colour.to_grey(images, chosen), colour.solarise(images, chosen)
    for row in range(4):
        if chosen[row]:
            torch.testing.assert_close(grey[row], tv.rgb_to_grayscale(images[row], 3), rtol=1e-3, atol=5e-2)
            inverted = tv.solarize(images[row] / 255.0, 128 / 255.0) * 255.0
            torch.testing.assert_close(solarised[row], inverted)
        else:
            assert torch.equal(grey[row], images[row])
            assert torch.equal(solarised[row], images[row])
