"""What a search needs in memory: columns and compared Gaussians of every row, and the indexes.

The view follows the store of record: it takes the rows after its last one and marks those that
went. Rows stay where they are until the view is built anew, so an index built on it stays true.
Shape letters: N rows held (those that went included), D embedding dimension.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from index.answers.filters import Filter
from index.gallery.store import Batch, Records
from index.search.approximate import CandidateIndex
from index.search.exact import ExactIndex
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import Floats

SearchIndex = ExactIndex | CandidateIndex
MASKS = 32  # filters whose choice is remembered
FEW = 16  # up to this many percentiles of one generation are counted, more are looked up in a sorted copy
T = TypeVar("T")


@dataclass(eq=False)
class View:
    """Columns of N rows in row order; `alive` (N,) says which of them the store still holds."""

    generation: int
    rows: NDArray[np.int64]
    crc: NDArray[np.int64]
    alive: NDArray[np.bool_]
    ids: list[str]
    labels: list[str | None]
    paths: list[str]
    uncertainty: Floats
    items: Vectors
    indexes: dict[str, SearchIndex] = field(default_factory=dict)
    chosen: dict[Filter, NDArray[np.bool_]] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _ordered: tuple[int, Floats] | None = None
    _counted: tuple[int, int] = (-1, 0)

    def remember(self, tree: Filter, chosen: NDArray[np.bool_]) -> None:
        """Keep (N,) what a filter chose until the rows change; the oldest of MASKS goes."""
        with self._turn:
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
        """The number of rows that are there."""
        return int(np.count_nonzero(self.alive))

    @property
    def last_row(self) -> int:
        """The highest row number seen."""
        return int(self.rows[-1]) if len(self.rows) else 0

    def positions(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where rows stand in the view; rows it does not hold are left out."""
        at = np.searchsorted(self.rows, rows)
        inside = at < len(self.rows)
        at, rows = at[inside], rows[inside]
        found: NDArray[np.int64] = at[self.rows[at] == rows]
        return found


def read_view(records: Records, *, normalise: bool) -> View:
    """Read the whole store; the compared Gaussians are normalised when asked."""
    with records.snapshot():
        generation = records.generation()
        items = Vectors.empty(records.count(), records.dim)
        parts = []
        for batch in records.stream():  # some thousands at once: the raw vectors are never all in memory
            items.add(batch.gaussians.normalised() if normalise else batch.gaussians)
            parts.append(batch)
    rows = np.concatenate([np.empty(0, np.int64), *(part.rows for part in parts)])
    return View(
        generation,
        rows,
        np.concatenate([np.empty(0, np.int64), *(part.crc for part in parts)]),
        np.ones(len(rows), bool),
        [id_ for part in parts for id_ in part.ids],
        [label for part in parts for label in part.labels],
        [path for part in parts for path in part.paths],
        np.concatenate([np.empty(0, np.float32), *(part.uncertainty for part in parts)]),
        items,
    )


def mapped_view(
    records: Records,
    saved: NDArray[np.int64],
    crc: NDArray[np.int64],
    items: Vectors,
    *,
    ghosts: bool,
    normalise: bool,
) -> View | None:
    """Return the store's columns over vectors that were saved for rows `saved` (N,), and the rows after them.

    Only the vectors of later rows are read from the store. Rows that went since stand there as not
    alive where ghosts are allowed. None when the saved rows are not the store's.
    """
    if len(saved) != len(items) or not len(saved):
        return None
    with records.snapshot():
        generation, columns = records.generation(), records.columns()
        fresh = records.read(after=int(saved[-1]))
    count = len(columns.rows) - len(fresh.rows)
    at = np.searchsorted(saved, columns.rows[:count])
    known = np.array_equal(saved[at], columns.rows[:count]) and np.array_equal(crc[at], columns.crc[:count])
    if not known or (count < len(saved) and not ghosts):
        return None
    items.add(fresh.gaussians.normalised() if normalise else fresh.gaussians)
    source, alive = np.zeros(len(items), np.int64), np.zeros(len(items), bool)
    place = np.concatenate([at, np.arange(len(saved), len(items))])
    source[place], alive[place] = np.arange(len(columns.rows)), True
    straight = count == len(saved)

    def ordered(values: list[T]) -> list[T]:
        return values if straight else [values[i] for i in source]

    return View(
        generation,
        np.concatenate([saved, fresh.rows]),
        np.concatenate([crc, fresh.crc]),
        alive,
        ordered(columns.ids),
        ordered(columns.labels),
        ordered(columns.paths),
        columns.uncertainty[source],
        items,
    )


def begins_with(view: View, rows: NDArray[np.int64], crc: NDArray[np.int64]) -> bool:
    """Say whether a saved index of these rows is one of the view's first rows, item for item."""
    count = len(rows)
    same = np.array_equal(view.rows[:count], rows) and np.array_equal(view.crc[:count], crc)
    return bool(same and count > 0)


def with_ghosts(view: View, rows: NDArray[np.int64], crc: NDArray[np.int64]) -> View | None:
    """Return the view in the order of a saved index that may hold rows which went since.

    Such a row stands there as not alive, with a live one's Gaussian in its place. None when the
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


def follow(view: View, records: Records, *, normalise: bool) -> bool:
    """Bring the view up to the store; False when it must be read anew (the store was compacted)."""
    with records.snapshot():
        generation = records.generation()
        if generation == view.generation:
            return True
        if int(records.fact("compacted") or 0) > view.generation:
            return False
        removed, batch = records.removed(since=view.generation), records.read(after=view.last_row)
    view.chosen.clear()
    view.alive[view.positions(removed)] = False
    if len(batch.rows):
        _append(view, batch, normalise=normalise)
    view.generation = generation
    return True


def _append(view: View, batch: Batch, *, normalise: bool) -> None:
    items = batch.gaussians.normalised() if normalise else batch.gaussians
    view.rows = np.concatenate([view.rows, batch.rows])
    view.crc = np.concatenate([view.crc, batch.crc])
    view.alive = np.concatenate([view.alive, np.ones(len(batch.rows), bool)])
    view.ids += batch.ids
    view.labels += batch.labels
    view.paths += batch.paths
    view.uncertainty = np.concatenate([view.uncertainty, batch.uncertainty])
    view.items.add(items)
    for index in view.indexes.values():  # they share the vectors
        index.extend()
