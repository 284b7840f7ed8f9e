"""Items and an index over them -> the nearest other items of each.

Shape letters: N items, M of them that are there, Q queries, K neighbours, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from index.arrays import Bools, Float64s, Int64s
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import GaussianEmbedding

TINY = 1e-12
BLOCK = 4096


class Searchable(Protocol):
    """An index: distances and rows (Q, K) of the nearest items, ascending; rows kept by `keep` (N,) alone."""

    def search(
        self, queries: GaussianEmbedding, k: int, *, keep: Bools | None = None
    ) -> tuple[Float64s, Int64s]:
        """Return distances (Q, K) and rows (Q, K), -1 where fewer are there."""


@dataclass(frozen=True, eq=False)
class NeighbourGraph:
    """The K nearest others of M items, numbered among themselves: `rows`, `distances`, `separation` (M, K).

    separation: the mean over dimensions of (m - mu)^2 / (s + v), the squared difference of two items
    in units of its own variance; about 1 for two views of one image. Where fewer than K others are
    there, the row is -1 and the distance and separation infinite.
    """

    rows: Int64s
    distances: Float64s
    separation: Float64s

    @property
    def mean_distance(self) -> Float64s:
        """The mean distance of each item to those of its K nearest others that are there, (M,)."""
        there = self.rows >= 0
        sums = np.where(there, self.distances, 0.0).sum(axis=1)
        mean: Float64s = sums / np.maximum(there.sum(axis=1), 1)
        return mean


def leave_out_own(distances: Float64s, rows: Int64s, own: Int64s, k: int) -> tuple[Float64s, Int64s]:
    """Drop each query's own item `own` (Q,) from its neighbours and return the k nearest others.

    By its row, never by position: an exact copy may stand before the item itself. The caller
    searches k + 1; -1 in `own` drops nothing. What is missing is row -1 at distance infinity.

    >>> leave_out_own(np.array([[0.0, 0.0, 0.1]]), np.array([[3, 7, 5]]), np.array([7]), 2)
    (array([[0. , 0.1]]), array([[3, 5]]))
    """
    other = (rows != own[:, None]) | (own[:, None] < 0)
    order = np.argsort(~other, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(other, order, axis=1)
    return (
        np.where(kept, np.take_along_axis(distances, order, axis=1), np.inf),
        np.where(kept, np.take_along_axis(rows, order, axis=1), -1),
    )


def nearest_others(
    index: Searchable, items: Vectors, alive: Bools, k: int, points: Vectors | None = None
) -> NeighbourGraph:
    """Let every item (N, D) that is there search the others for its `k` nearest.

    alive (N,): which are there. points: what stands for the items (N, D) in the index, where that is
    not themselves.
    """
    points = items if points is None else points
    there = np.flatnonzero(alive)
    place = np.full(len(alive), -1)
    place[there] = np.arange(len(there))
    rows = np.full((len(there), k), -1)
    distances, separation = np.full(rows.shape, np.inf), np.full(rows.shape, np.inf)
    keep = None if alive.all() else alive
    width = min(k, len(there) - 1)
    for start in range(0, len(there) if width > 0 else 0, BLOCK):
        asking = there[start : start + BLOCK]
        nearest, found = leave_out_own(*index.search(points[asking], width + 1, keep=keep), asking, width)
        here = slice(start, start + len(asking))
        rows[here, :width], distances[here, :width] = np.where(found >= 0, place[found], -1), nearest
        for column in range(width):
            separation[here, column] = _separation(items, asking, found[:, column])
    return NeighbourGraph(rows, distances, separation)


def _separation(items: Vectors, first: Int64s, second: Int64s) -> Float64s:
    apart = items.means(first).astype(np.float64) - items.means(second)
    spread = items.variances(first).astype(np.float64) + items.variances(second)
    mean: Float64s = (apart**2 / np.maximum(spread, TINY)).mean(axis=1)
    return np.where(second >= 0, mean, np.inf)
