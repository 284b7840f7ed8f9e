"""Each way of making a picture worse does what it says, and every picture gets one of them."""

from __future__ import annotations

import pytest
import torch

from export.calibration.degrade import (
    DEGRADATIONS,
    add_noise,
    compress,
    crop,
    darken,
    degrade,
    downsample,
    occlude,
)
from tests.support.tiny_model import picture


def pictures(count: int = 24, size: int = 32) -> torch.Tensor:
    return torch.stack([torch.from_numpy(picture(n, (size, size))).float() for n in range(count)])


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sharpness(images: torch.Tensor) -> torch.Tensor:
    return (images[:, 1:] - images[:, :-1]).abs().mean(dim=(1, 2, 3))


def test_every_picture_is_changed_and_stays_a_picture() -> None:
    images = pictures(60)
    worse = degrade(images, drawn())
    assert worse.shape == images.shape
    assert torch.equal(worse, worse.round())
    assert worse.min() >= 0
    assert worse.max() <= 255
    assert ((worse - images).abs().mean(dim=(1, 2, 3)) > 0.5).all()


def test_the_generator_decides() -> None:
    assert torch.equal(degrade(pictures(), drawn(4)), degrade(pictures(), drawn(4)))
    assert not torch.equal(degrade(pictures(), drawn(4)), degrade(pictures(), drawn(5)))


@pytest.mark.parametrize("way", DEGRADATIONS)
@pytest.mark.parametrize("size", [12, 33])
def test_each_way_keeps_the_shape(way: object, size: int) -> None:
    images = pictures(3, size)
    assert way(images, drawn()).shape == images.shape  # type: ignore[operator]


def test_coarse_pictures_are_less_sharp_and_noisy_ones_more() -> None:
    images = pictures()
    assert (sharpness(downsample(images, drawn())) < sharpness(images)).all()
    assert (sharpness(add_noise(images, drawn())) > sharpness(images)).all()


def test_dark_pictures_keep_at_most_half_of_the_light() -> None:
    images = pictures()
    assert (darken(images, drawn()).mean(dim=(1, 2, 3)) < 0.55 * images.mean(dim=(1, 2, 3))).all()


def test_covered_pictures_show_one_colour_in_a_square_and_themselves_elsewhere() -> None:
    images = pictures()
    covered = occlude(images, drawn())
    changed = (covered != images).any(dim=3)
    share = changed.float().mean(dim=(1, 2))
    assert (share > 0.1).all()
    assert (share < 0.95).all()
    for before, after, mask in zip(images, covered, changed, strict=True):
        assert torch.equal(before[~mask], after[~mask])
        assert len(after[mask].unique(dim=0)) == 1


def test_a_cut_is_a_part_of_the_picture_enlarged() -> None:
    ramp = torch.arange(32.0).view(1, 1, 32, 1).expand(2, 32, 32, 3) * 8
    part = crop(ramp, drawn())
    assert (part.max() - part.min()) < 0.95 * (ramp.max() - ramp.min())
    assert torch.allclose(part[:, 0], part[:, -1], atol=1e-3)  # rows of the ramp are all alike


def test_squeezed_pictures_lose_little_light_and_much_detail() -> None:
    images = pictures()
    compressed = compress(images, drawn())
    assert torch.allclose(compressed.mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)), atol=12)
    assert not torch.equal(compressed, images)
