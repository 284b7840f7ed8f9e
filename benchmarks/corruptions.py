"""Images -> the same images made worse, in eleven ways and five severities; no randomness but the seed's.

The severities are chosen for 32 px pictures: 1 is seen when looked for, 5 leaves little to
recognise. Shape letters: N images, S side.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pictures = NDArray[np.uint8]


def blur(images: Pictures, severity: int, random: np.random.Generator) -> Pictures:
    """Gaussian blur, sigma 0.5 to 2.5 pixels."""
    sigma = (0.5, 0.9, 1.3, 1.8, 2.5)[severity - 1]
    return _each(images, lambda picture: picture.filter(ImageFilter.GaussianBlur(sigma)))


def noise(images: Pictures, severity: int, random: np.random.Generator) -> Pictures:
    """Gaussian noise, standard deviation 10 to 80 grey levels."""
    deviation = (10, 20, 35, 55, 80)[severity - 1]
    noisy = images + random.normal(0.0, deviation, images.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def jpeg(images: Pictures, severity: int, random: np.random.Generator) -> Pictures:
    """JPEG quality 40 down to 4."""
    quality = (40, 25, 15, 8, 4)[severity - 1]

    def squeeze(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "jpeg", quality=quality)
        return Image.open(io.BytesIO(file.getvalue())).convert("RGB")

    return _each(images, squeeze)


def darkness(images: Pictures, severity: int, random: np.random.Generator) -> Pictures:
    """A short exposure: 50 to 4 % of the light, and the sensor's noise of three levels."""
    share = (0.5, 0.3, 0.17, 0.08, 0.04)[severity - 1]
    dark = images * share + random.normal(0.0, 3.0, images.shape)
    return np.clip(np.rint(dark), 0, 255).astype(np.uint8)


def occlusion(images: Pictures, severity: int, random: np.random.Generator) -> Pictures:
    """A grey square of 20 to 90 % of the area, anywhere."""
    side = round(images.shape[1] * (0.2, 0.35, 0.5, 0.7, 0.9)[severity - 1] ** 0.5)
    covered = images.copy()
    places = random.integers(0, images.shape[1] - side + 1, (len(images), 2))
    for picture, (top, left) in zip(covered, places, strict=True):
        picture[top : top + side, left : left + side] = 127
    return covered


def crop(images: Pictures, severity: int, random: np.random.Generator) -> Pictures:
    """A square of 75 to 10 % of the area, anywhere, enlarged to the whole."""
    size = images.shape[1]
    side = round(size * (0.75, 0.5, 0.3, 0.2, 0.1)[severity - 1] ** 0.5)
    places = random.integers(0, size - side + 1, (len(images), 2))
    return np.stack(
        [
            np.asarray(
                Image.fromarray(p[top : top + side, left : left + side]).resize((size, size), Image.Resampling.BICUBIC)
            )
            for p, (top, left) in zip(images, places, strict=True)
        ]
    )  # fmt: skip


def fog(images: Pictures, severity: int, random: np.random.Generator) -> Pictures:
    """White haze over 30 to 92 % of the picture's own light."""
    share = (0.3, 0.5, 0.7, 0.83, 0.92)[severity - 1]
    return np.rint(images * (1 - share) + 235 * share).astype(np.uint8)


def salt(images: Pictures, severity: int, random: np.random.Generator) -> Pictures:
    """Black and white pixels in place of 2 to 40 % of all."""
    share = (0.02, 0.05, 0.1, 0.2, 0.4)[severity - 1]
    spoilt = images.copy()
    where = random.random(images.shape[:3]) < share
    spoilt[where] = (255 * random.integers(0, 2, int(where.sum())))[:, None]
    return spoilt


def motion(images: Pictures, severity: int, random: np.random.Generator) -> Pictures:
    """The mean over 3 to 17 neighbouring columns, as of a camera that was moved."""
    length = (3, 5, 8, 12, 17)[severity - 1]
    around = np.pad(
        images.astype(np.float32), ((0, 0), (0, 0), (length // 2, length - 1 - length // 2), (0, 0)), "edge"
    )
    windows = np.lib.stride_tricks.sliding_window_view(around, length, axis=2)
    return np.rint(windows.mean(axis=-1)).astype(np.uint8)


def posterise(images: Pictures, severity: int, random: np.random.Generator) -> Pictures:
    """8, 6, 4, 3, 2 levels a channel."""
    levels = (8, 6, 4, 3, 2)[severity - 1]
    return np.rint(np.floor(images / 256 * levels) * 255 / (levels - 1)).astype(np.uint8)


def shuffle(images: Pictures, severity: int, random: np.random.Generator) -> Pictures:
    """Tiles of 16, 8 or 4 pixels of 32 in another order; the milder severities swap a part of them."""
    tiles, share = ((2, 0.5), (2, 1.0), (4, 0.5), (4, 1.0), (8, 1.0))[severity - 1]
    side = images.shape[1] // tiles
    mixed = images.copy()
    for picture, original in zip(mixed, images, strict=True):
        chosen = random.permutation(tiles * tiles)[: max(2, round(share * tiles * tiles))]
        for to, source in zip(chosen, np.roll(chosen, 1), strict=True):
            (a, b), (c, d) = divmod(int(to), tiles), divmod(int(source), tiles)
            picture[a * side : (a + 1) * side, b * side : (b + 1) * side] = original[
                c * side : (c + 1) * side, d * side : (d + 1) * side
            ]
    return mixed


Corruption = Callable[[Pictures, int, np.random.Generator], Pictures]

CORRUPTIONS: dict[str, Corruption] = {
    "blur": blur, "noise": noise, "jpeg": jpeg, "darkness": darkness, "occlusion": occlusion, "crop": crop,
}  # fmt: skip
"""Of the kinds that calibration shows the variance head, at other strengths and by other filters."""

UNSEEN: dict[str, Corruption] = {
    "fog": fog, "salt": salt, "motion": motion, "posterise": posterise, "shuffle": shuffle,
}  # fmt: skip
"""Of kinds that it is never shown."""


def corrupted(images: Pictures, name: str, severity: int, seed: int = 0) -> Pictures:
    """Return images (N, S, S, 3) uint8 made worse by one of CORRUPTIONS or UNSEEN, severity 1 to 5."""
    return (CORRUPTIONS | UNSEEN)[name](images, severity, np.random.default_rng([seed, severity]))


def _each(images: Pictures, change: Callable[[Image.Image], Image.Image]) -> Pictures:
    return np.stack([np.asarray(change(Image.fromarray(picture))) for picture in images])
