"""What a search needs in memory: columns and compared Gaussians of every row, and the indexes.

A view follows its store of record: it takes the rows after its last one and marks those that were
removed, its tombstones. Rows stay where they are until the view is read again, so an index built on
it stays true.
Shape letters: N rows held (removed ones included), D embedding dimension.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from index.answers.filters import Filter
from index.arrays import Bools, Int64s
from index.search.approximate import ApproximateIndex
from index.search.exact import ExactIndex
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import Floats, GaussianEmbedding

SearchIndex = ExactIndex | ApproximateIndex
MASKS = 32  # filters whose masks are cached
FEW = 16  # up to this many percentiles of one generation are counted, more are looked up in a sorted copy


@dataclass(eq=False)
class View:
    """Columns of N rows in row order; `alive` (N,) says which of them the store still holds."""

    generation: int
    rows: Int64s
    crc: Int64s
    alive: Bools
    ids: list[str]
    labels: list[str | None]
    paths: list[str]
    uncertainty: Floats
    items: Vectors
    indexes: dict[str, SearchIndex] = field(default_factory=dict)
    chosen: dict[Filter, Bools] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ordered: tuple[int, Floats] | None = None
    _counted: tuple[int, int] = (-1, 0)

    def append(
        self,
        rows: Int64s,
        crc: Int64s,
        columns: tuple[list[str], list[str | None], list[str]],
        uncertainty: Floats,
        items: GaussianEmbedding,
    ) -> None:
        """Take in M rows after the last one: ids, labels, paths, and Gaussians as they are compared."""
        self.rows, self.crc = np.concatenate([self.rows, rows]), np.concatenate([self.crc, crc])
        self.alive = np.concatenate([self.alive, np.ones(len(rows), bool)])
        self.ids += columns[0]
        self.labels += columns[1]
        self.paths += columns[2]
        self.uncertainty = np.concatenate([self.uncertainty, uncertainty])
        self.items.add(items)
        for index in self.indexes.values():  # they share the vectors
            index.extend()

    def cache_mask(self, tree: Filter, chosen: Bools) -> None:
        """Keep (N,) what a filter chose until the rows change; the oldest of MASKS goes."""
        with self._lock:
            if len(self.chosen) >= MASKS:
                self.chosen.pop(next(iter(self.chosen)))
            self.chosen[tree] = chosen

    def percentiles(self, uncertainty: Floats) -> list[float | None]:
        """Return for each of Q uncertainties the share of the rows that are surer, 0..100."""
        count = self.count
        if not count:
            return [None] * len(uncertainty)
        counted = self._counted[1] if self._counted[0] == self.generation else 0
        self._counted = self.generation, counted + len(uncertainty)
        if counted + len(uncertainty) <= FEW and (
            self._ordered is None or self._ordered[0] != self.generation
        ):
            below = [int(np.count_nonzero(self.alive & (self.uncertainty < u))) for u in uncertainty]
        else:
            if self._ordered is None or self._ordered[0] != self.generation:
                self._ordered = self.generation, np.sort(self.uncertainty[self.alive])
            below = np.searchsorted(self._ordered[1], uncertainty, side="left").tolist()
        return [100.0 * number / count for number in below]

    @property
    def count(self) -> int:
        """The number of rows that are alive."""
        return int(np.count_nonzero(self.alive))

    @property
    def tombstones(self) -> int:
        """The number of rows that were removed."""
        return len(self.rows) - self.count

    @property
    def last_row(self) -> int:
        """The highest row number seen."""
        return int(self.rows[-1]) if len(self.rows) else 0

    def positions(self, rows: Int64s) -> Int64s:
        """Return where rows stand in the view; rows it does not hold are left out."""
        at = np.searchsorted(self.rows, rows)
        inside = at < len(self.rows)
        at, rows = at[inside], rows[inside]
        found: Int64s = at[self.rows[at] == rows]
        return found


def begins_with(view: View, rows: Int64s, crc: Int64s) -> bool:
    """Say whether a saved index of these rows is one of the view's first rows, item for item."""
    count = len(rows)
    same = np.array_equal(view.rows[:count], rows) and np.array_equal(view.crc[:count], crc)
    return bool(same and count > 0)


def with_tombstones(view: View, rows: Int64s, crc: Int64s) -> View | None:
    """Return the view in the order of a saved index that may hold rows which were removed since.

    Such a row is a tombstone: not alive, with a live one's Gaussian in its place. None when the
    saved rows are not the store's.
    """
    if not len(view.rows) or not len(rows):
        return None
    fresh = view.rows > rows[-1]
    known = view.rows[~fresh]
    at = np.searchsorted(rows, known)
    if not np.array_equal(rows[at], known) or not np.array_equal(crc[at], view.crc[~fresh]):
        return None
    source, alive = np.zeros(len(rows), np.int64), np.zeros(len(rows), bool)
    source[at], alive[at] = np.flatnonzero(~fresh), True
    source = np.concatenate([source, np.flatnonzero(fresh)])
    return View(
        view.generation,
        np.concatenate([rows, view.rows[fresh]]),
        np.concatenate([crc, view.crc[fresh]]),
        np.concatenate([alive, np.ones(len(source) - len(rows), bool)]),
        [view.ids[i] for i in source],
        [view.labels[i] for i in source],
        [view.paths[i] for i in source],
        view.uncertainty[source],
        Vectors(view.items[source]),
    )
