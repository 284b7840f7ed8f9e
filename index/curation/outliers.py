"""A gallery -> the images farthest from all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from index.gallery.protocol import Gallery


@dataclass(frozen=True)
class Outlier:
    """One image far from the others: mean distance to its nearest ten; percentile: share nearer, 0..100."""

    id: str
    path: str
    label: str | None
    distance: float
    percentile: float
    uncertainty: float | None


def outliers(gallery: Gallery, *, limit: int = 100, k: int = 10) -> list[Outlier]:
    """Return the images farthest from their `k` nearest others, farthest first."""
    near = gallery.neighbourhood(k)
    distance = near.graph.mean_distance
    order = np.argsort(distance, kind="stable")
    ranks = np.empty(len(near))
    ranks[order] = np.arange(len(near))
    return [
        Outlier(
            *near.item(i), float(distance[i]), 100.0 * float(ranks[i]) / len(near), near.uncertainty_of(i)
        )
        for i in order[::-1][:limit].tolist()
    ]
