"""What a search needs in memory: columns and compared Gaussians of every row, and the indexes.

A view follows its store of record: it takes the rows after its last one and marks those that were
removed, its tombstones. Rows stay where they are until the view is read again, so an index built on
it stays true.
Shape letters: N rows held (removed ones included), D embedding dimension.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from index.answers.filters import Filter
from index.arrays import Bools, Int64s
from index.search.approximate import ApproximateIndex
from index.search.exact import ExactIndex
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import Floats, GaussianEmbedding

SearchIndex = ExactIndex | ApproximateIndex
MASKS = 32  # filters whose masks are cached
FEW = 8  # up to so many percentiles are counted, more are looked up in a sorted copy


@dataclass(eq=False)
class ItemColumns:
    """Everything but the vectors of N stored rows, in row order: columns of length N."""

    rows: Int64s
    crc: Int64s
    ids: list[str]
    labels: list[str | None]
    paths: list[str]
    uncertainty: Floats

    def take(self, places: Int64s) -> ItemColumns:
        """Return the rows at these places, in this order."""
        at = places.tolist()
        return ItemColumns(
            self.rows[places],
            self.crc[places],
            [self.ids[i] for i in at],
            [self.labels[i] for i in at],
            [self.paths[i] for i in at],
            self.uncertainty[places],
        )

    @staticmethod
    def concatenate(parts: Sequence[ItemColumns]) -> ItemColumns:
        """Return the columns of several parts, of none too, as one."""
        return ItemColumns(
            np.concatenate([np.empty(0, np.int64), *(part.rows for part in parts)]),
            np.concatenate([np.empty(0, np.int64), *(part.crc for part in parts)]),
            [id_ for part in parts for id_ in part.ids],
            [label for part in parts for label in part.labels],
            [path for part in parts for path in part.paths],
            np.concatenate([np.empty(0, np.float32), *(part.uncertainty for part in parts)]),
        )


@dataclass(eq=False)
class View(ItemColumns):
    """N rows in memory; `alive` (N,) says which of them the store still holds."""

    generation: int
    items: Vectors
    alive: Bools
    indexes: dict[str, SearchIndex] = field(default_factory=dict)
    chosen: dict[Filter, Bools] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def over(cls, columns: ItemColumns, generation: int, items: Vectors, alive: Bools | None = None) -> View:
        """Return the view of columns and their Gaussians as they are compared; all rows are alive when None."""
        there = np.ones(len(columns.rows), bool) if alive is None else alive
        held = columns.rows, columns.crc, columns.ids, columns.labels, columns.paths, columns.uncertainty
        return cls(*held, generation, items, there)

    def append(self, more: ItemColumns, items: GaussianEmbedding) -> None:
        """Take in M rows after the last one, and their Gaussians as they are compared."""
        self.rows, self.crc = np.concatenate([self.rows, more.rows]), np.concatenate([self.crc, more.crc])
        self.alive = np.concatenate([self.alive, np.ones(len(more.rows), bool)])
        self.ids += more.ids
        self.labels += more.labels
        self.paths += more.paths
        self.uncertainty = np.concatenate([self.uncertainty, more.uncertainty])
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
        if len(uncertainty) <= FEW:
            below = [int(np.count_nonzero(self.alive & (self.uncertainty < u))) for u in uncertainty]
        else:
            ordered = np.sort(self.uncertainty[self.alive])
            below = np.searchsorted(ordered, uncertainty, side="left").tolist()
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


def in_saved_order(
    columns: ItemColumns, saved: Int64s, crc: Int64s
) -> tuple[ItemColumns, Bools, Int64s] | None:
    """Return columns in the order of a saved index, which may hold rows that were removed since.

    Those are its rows `saved` and then what came after them; whether each is alive; and its place in the
    columns. A removed row, not alive, has another one's id, label and path. None when the saved rows are not
    the columns' own.
    """
    if not len(columns.rows) or not len(saved):
        return None
    known = columns.rows <= saved[-1]
    at = np.searchsorted(saved, columns.rows[known])
    if not np.array_equal(saved[at], columns.rows[known]) or not np.array_equal(crc[at], columns.crc[known]):
        return None
    late = np.flatnonzero(~known)
    source = np.concatenate([np.zeros(len(saved), np.int64), late])
    alive = np.concatenate([np.zeros(len(saved), bool), np.ones(len(late), bool)])
    source[at], alive[at] = np.flatnonzero(known), True
    ordered = replace(
        columns.take(source),
        rows=np.concatenate([saved, columns.rows[late]]),
        crc=np.concatenate([crc, columns.crc[late]]),
    )
    return ordered, alive, source


def with_tombstones(view: View, saved: Int64s, crc: Int64s) -> View | None:
    """Return the view in the order of a saved index (`in_saved_order`).

    A row that was removed since is a tombstone, with a live one's Gaussian in its place. None when the
    saved rows are not the store's.
    """
    found = in_saved_order(view, saved, crc)
    if found is None:
        return None
    ordered, alive, source = found
    return View.over(ordered, view.generation, Vectors(view.items[source]), alive)
