"""Pictures, their views and forms of them made worse -> how far the embedding moves, for each picture.

Shape letters: N images, V views, W worse forms, P inputs of the head, D embedding dimension, C
cached side, S the network's side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.calibration.degrade import degrade
from export.calibration.whitening import shrink
from export.served_encoder import Encode, ServedMean, head_inputs
from train.augment.views import Views

FLOOR = 1e-12
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class ViewStatistics:
    """Of N pictures: the head's inputs (N, P), the served mean (N, D), the measured variance (N, D), which
    image (N,) each shows, and whether (N,) it is a form made worse by `export.calibration.degrade`."""

    inputs: Tensor
    mean: Tensor
    variance: Tensor
    image: Tensor
    is_damaged: Tensor

    def __len__(self) -> int:
        return len(self.inputs)


def join(parts: Sequence[ViewStatistics]) -> ViewStatistics:
    """Stack statistics of the same images."""
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return ViewStatistics(*(torch.cat(column) for column in columns))


def views_among(worse: int) -> int:
    """Return how many of so many worse forms are views of the training: the first and every second after it."""
    return (worse + 1) // 2


def view_statistics(
    encoder: Encode,
    views: Views,
    images: NDArray[np.uint8],
    served: ServedMean,
    *,
    count: int,
    worse: int = 0,
    seed: int,
    size: int,
    batch: int = 32,
    report: Progress | None = None,
) -> tuple[ViewStatistics, ViewStatistics]:
    """Embed each picture (N, C, C, 3), `count` views of it and `worse` forms of it made worse.

    size: the network's input side S. Returns what was found of the N pictures as they would be
    served, with the unbiased variance over their views, those among the worse forms too; and of the W x N
    worse forms, with their mean squared deviation from the other views.
    """
    generator = torch.Generator().manual_seed(seed)
    good: list[ViewStatistics] = []
    bad: list[ViewStatistics] = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            cached = torch.from_numpy(np.ascontiguousarray(images[start : start + batch])).float()
            plain = shrink(cached, size)
            output, place = encoder(plain), torch.arange(start, start + len(cached))
            mean = served(output)
            reference = mean.double()
            total, square = torch.zeros_like(reference), torch.zeros_like(reference)
            for _ in range(count):
                # Deviations from the picture's own embedding keep the sums small and exact.
                offset = served(encoder(views(cached, generator))).double() - reference
                total, square = total + offset, square + offset**2
            variance = (square - total**2 / count) / (count - 1)
            centre, drawn, whole = total / count, count, torch.zeros(len(cached), dtype=torch.bool)
            for number in range(worse):
                form = degrade(plain, generator) if number % 2 else views(cached, generator).round()
                moved = encoder(form)
                offset = served(moved).double() - reference
                spread = variance * (count - 1) / count + (offset - centre) ** 2
                if not number % 2:
                    total, square, drawn = total + offset, square + offset**2, drawn + 1
                inputs, damaged = head_inputs(moved.features, form), torch.full_like(whole, bool(number % 2))
                bad.append(ViewStatistics(inputs, served(moved), spread, place, damaged))
            variance = (square - total**2 / drawn) / (drawn - 1)
            good.append(ViewStatistics(head_inputs(output.features, plain), mean, variance, place, whole))
            if report is not None:
                report(min(start + batch, len(images)), len(images))
    return _floored(good), _floored(bad or [empty_like(good[0])])


def shifted(statistics: ViewStatistics, by: int) -> ViewStatistics:
    """Return statistics of images whose numbers are `by` higher."""
    return replace(statistics, image=statistics.image + by)


def empty_like(statistics: ViewStatistics) -> ViewStatistics:
    """Return statistics of no picture."""
    return ViewStatistics(*(column[:0] for column in vars(statistics).values()))


def _floored(parts: list[ViewStatistics]) -> ViewStatistics:
    found = join(parts)
    return replace(found, inputs=found.inputs.float(), variance=found.variance.clamp_min(FLOOR).float())
