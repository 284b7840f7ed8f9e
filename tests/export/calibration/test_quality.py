"""The numbers about a picture's quality rise and fall with what they are named after."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.corruptions import corrupted
from export.calibration.quality import COUNT, quality
from tests.support.tiny_model import picture

NAMES = [
    f"{name}-{scale}"
    for scale in range(3)
    for name in ("down", "right", "laplacian", "crossed", "spread", "flat")
] + ["luma", "colour", "blocks-down", "blocks-right", "brightest"]


def pictures(count: int = 40, size: int = 32) -> np.ndarray:
    return np.stack([picture(n, (size, size)) for n in range(count)])


def change(name: str, images: np.ndarray, worse: np.ndarray) -> float:
    """Mean change of one number."""
    before, after = (quality(torch.from_numpy(x))[:, NAMES.index(name)] for x in (images, worse))
    return float((after - before).mean())


def test_one_row_a_picture_of_finite_numbers_whatever_the_size() -> None:
    for size in (8, 9, 12, 32, 65):
        found = quality(torch.from_numpy(pictures(2, size)))
        assert found.shape == (2, COUNT) == (2, len(NAMES))
        assert torch.isfinite(found).all()
    assert torch.isfinite(quality(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))).all()


def test_a_picture_s_numbers_do_not_depend_on_its_neighbours() -> None:
    images = torch.from_numpy(pictures(5))
    torch.testing.assert_close(quality(images)[2:3], quality(images[2:3]))


@pytest.mark.parametrize(
    ("corruption", "number", "sign"),
    [
        ("blur", "laplacian-0", -1),
        ("noise", "crossed-0", 1),
        ("darkness", "luma", -1),
        ("darkness", "brightest", -1),
        ("occlusion", "flat-0", 1),
        ("jpeg", "blocks-down", 1),
        ("jpeg", "blocks-right", 1),
    ],
)
def test_each_corruption_moves_its_number(corruption: str, number: str, sign: int) -> None:
    images = pictures()
    assert sign * change(number, images, corrupted(images, corruption, 5)) > 0.1


def test_differences_are_those_of_numpy() -> None:
    images = pictures(3)
    luma = images.astype(np.float64) @ [0.299, 0.587, 0.114] / 255
    found = quality(torch.from_numpy(images))
    down = np.log(np.abs(np.diff(luma, axis=1)).mean(axis=(1, 2)) + 1e-3)
    np.testing.assert_allclose(found[:, 0].numpy(), down, atol=1e-5)
    half = luma.reshape(3, 16, 2, 16, 2).mean(axis=(2, 4))
    right = np.log(np.abs(np.diff(half, axis=2)).mean(axis=(1, 2)) + 1e-3)
    np.testing.assert_allclose(found[:, NAMES.index("right-1")].numpy(), right, atol=1e-5)
