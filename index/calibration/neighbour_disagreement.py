"""What a query and its neighbours tell of whether the nearest one is right.

Three things do: how uncertain the query is, how far its nearest neighbour lies, and how much the
other neighbours dissent from that one's label. Shape letters: n queries, K neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.answers.results import SearchResult

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
NEIGHBOURS = 20  # that are asked for their labels
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Evidence:
    """uncertainty (n,) of the queries, distance (n, K) of their neighbours, ascending, infinite for none.

    agree (n, K): which neighbours bear the label of the first, the first itself among them.
    """

    uncertainty: Doubles
    distance: Doubles
    agree: Bools

    @classmethod
    def of(cls, results: Sequence[SearchResult]) -> Evidence:
        """Return the evidence of the labelled neighbours that were found, up to NEIGHBOURS of each query."""
        size = (len(results), NEIGHBOURS)
        distance, agree = np.full(size, np.inf), np.zeros(size, np.bool_)
        for row, result in enumerate(results):
            found = [one for one in result.neighbours if one.label is not None][:NEIGHBOURS]
            distance[row, : len(found)] = [one.distance for one in found]
            agree[row, : len(found)] = [one.label == found[0].label for one in found]
        return cls(np.array([result.uncertainty for result in results], np.float64), distance, agree)

    def __len__(self) -> int:
        return len(self.uncertainty)

    def __getitem__(self, which: slice | Bools | NDArray[np.int64]) -> Evidence:
        return Evidence(self.uncertainty[which], self.distance[which], self.agree[which])

    @property
    def nearest(self) -> Doubles:
        """The distance of the first neighbour, (n,)."""
        return self.distance[:, 0]

    @property
    def behind(self) -> Doubles:
        """How much further than the first each neighbour lies, (n, K); infinite for none."""
        there = np.isfinite(self.distance)
        reach: Doubles = np.where(there, self.distance, 0.0) - np.where(
            there[:, :1], self.distance[:, :1], 0.0
        )
        return np.where(there, reach, np.inf)

    def pace(self) -> float:
        """Return half of how much further than the first the last neighbour typically lies."""
        behind = self.behind
        last = np.where(np.isfinite(behind), behind, 0.0).max(axis=1, initial=0.0)
        return max(TINY, float(np.median(last)) / 2) if len(last) else 1.0

    def dissent(self, pace: float) -> Doubles:
        """Return (n,) in 0..1: the share of the neighbours' weight that another label has.

        A neighbour weighs exp(-behind / pace); of none at all the dissent is 1.
        """
        weight = np.exp(-self.behind / pace)
        weight[:, 0] = 1.0
        share: Doubles = (weight * ~self.agree).sum(axis=1) / weight.sum(axis=1)
        return share

    def coordinates(self, pace: float, *, logarithmic: bool) -> Doubles:
        """Return all three as coordinates (n, 3); the distance as its logarithm where it is positive."""
        reach = np.log(np.maximum(self.nearest, TINY)) if logarithmic else self.nearest
        return np.stack([np.log(np.maximum(self.uncertainty, TINY)), reach, self.dissent(pace)], axis=1)
