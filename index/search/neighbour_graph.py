"""A gallery -> the nearest other items of each item, for curation.

Shape letters: N items, K neighbours, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from index.answers.view import SearchIndex, View
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import Floats

Doubles = NDArray[np.float64]
TINY = 1e-12
BLOCK = 4096
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """N items and their K nearest others: columns of length N, `rows` and `distances` (N, K).

    separation (N, K): the mean over dimensions of (m - mu)^2 / (s + v), the squared difference of
    two items in units of its own variance; about 1 for two views of one image. Where fewer than K
    others are there, the row is -1 and the distance and separation infinite.
    """

    ids: list[str]
    labels: list[str | None]
    paths: list[str]
    uncertainty: Floats
    rows: NDArray[np.int64]
    distances: Doubles
    separation: Doubles

    def __len__(self) -> int:
        return len(self.ids)


def neighbourhood(view: View, index: SearchIndex, k: int, points: Vectors | None = None) -> Neighbourhood:
    """Let every item of a view search the others for its `k` nearest.

    points: what stands for the items (N, D) in the index, where that is not themselves.
    """
    points = view.items if points is None else points
    there = np.flatnonzero(view.alive)
    place = np.full(len(view.rows), -1)
    place[there] = np.arange(len(there))
    rows = np.full((len(there), k), -1)
    distances, separation = np.full(rows.shape, np.inf), np.full(rows.shape, np.inf)
    keep = None if view.alive.all() else view.alive
    wanted = min(k + 1, len(there))
    for start in range(0, len(there) if wanted > 1 and k else 0, BLOCK):
        asking = there[start : start + BLOCK]
        found_distances, found = index.search(points[asking], wanted, keep=keep)
        # Taken out by row, not by position: an exact copy may stand before the item itself.
        last = np.argsort(found == asking[:, None], axis=1, kind="stable")[:, : wanted - 1]
        found = np.take_along_axis(found, last, axis=1)
        here = slice(start, start + len(asking))
        rows[here, : wanted - 1] = np.where(found >= 0, place[found], -1)
        distances[here, : wanted - 1] = np.take_along_axis(found_distances, last, axis=1)
        for column in range(wanted - 1):
            separation[here, column] = _separation(view, asking, found[:, column])
    return Neighbourhood(
        _at(view.ids, there),
        _at(view.labels, there),
        _at(view.paths, there),
        view.uncertainty[there],
        rows,
        distances,
        separation,
    )


def _at(values: Sequence[T], rows: NDArray[np.int64]) -> list[T]:
    return [values[row] for row in rows.tolist()]


def _separation(view: View, first: NDArray[np.int64], second: NDArray[np.int64]) -> Doubles:
    apart = view.items.means(first).astype(np.float64) - view.items.means(second)
    spread = view.items.variances(first).astype(np.float64) + view.items.variances(second)
    mean: Doubles = (apart**2 / np.maximum(spread, TINY)).mean(axis=1)
    return np.where(second >= 0, mean, np.inf)
