"""A gallery -> its least certain images, or its surest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from index.answers.validation import needs_variances
from index.gallery.protocol import Gallery


@dataclass(frozen=True)
class UncertainImage:
    """One image by its uncertainty; percentile: the share of the gallery that is surer, 0..100."""

    id: str
    path: str
    label: str | None
    uncertainty: float
    percentile: float


def uncertain(gallery: Gallery, *, limit: int = 100, surest: bool = False) -> list[UncertainImage]:
    """Return the least certain images, or the surest, most extreme first. Raises InputError without variances."""
    needs_variances(gallery.place, gallery.card, "uncertainty")
    near = gallery.neighbourhood(0)
    unsure = near.uncertainty_or_zero
    order = np.argsort(unsure, kind="stable")
    ranks = np.searchsorted(unsure[order], unsure, side="left")
    chosen = order[:limit] if surest else order[::-1][:limit]
    return [
        UncertainImage(*near.item(i), float(unsure[i]), 100.0 * ranks[i] / len(near)) for i in chosen.tolist()
    ]
