"""The store of record -> the view of it in memory: read whole, mapped from saved files, or brought up to date.

Shape letters: N rows.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from index.answers.view import View
from index.arrays import Int64s
from index.gallery.folder.store import Store
from index.search.vectors import Vectors

T = TypeVar("T")


def read_view(store: Store, *, normalise: bool) -> View:
    """Read the whole store; the compared Gaussians are normalised when asked."""
    with store.snapshot():
        generation = store.generation()
        items = Vectors.empty(store.count(), store.dim)
        parts = []
        for batch in store.stream():  # some thousands at once: the raw vectors are never all in memory
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
    store: Store,
    saved: Int64s,
    crc: Int64s,
    items: Vectors,
    *,
    tombstones: bool,
    normalise: bool,
) -> View | None:
    """Return the store's columns over vectors that were saved for rows `saved` (N,), and the rows after them.

    Only the vectors of later rows are read from the store. Rows that were removed since stay as
    tombstones where those are allowed. None when the saved rows are not the store's.
    """
    if len(saved) != len(items) or not len(saved):
        return None
    with store.snapshot():
        generation, columns = store.generation(), store.columns()
        fresh = store.read(after=int(saved[-1]))
    count = len(columns.rows) - len(fresh.rows)
    at = np.searchsorted(saved, columns.rows[:count])
    known = np.array_equal(saved[at], columns.rows[:count]) and np.array_equal(crc[at], columns.crc[:count])
    if not known or (count < len(saved) and not tombstones):
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


def follow(view: View, store: Store, *, normalise: bool) -> bool:
    """Bring the view up to the store; False when it must be read again (the store was compacted)."""
    with store.snapshot():
        generation = store.generation()
        if generation == view.generation:
            return True
        if int(store.fact("compacted") or 0) > view.generation:
            return False
        removed, batch = store.removed(since=view.generation), store.read(after=view.last_row)
    view.chosen.clear()
    view.alive[view.positions(removed)] = False
    if len(batch.rows):
        items = batch.gaussians.normalised() if normalise else batch.gaussians
        columns = batch.ids, batch.labels, batch.paths
        view.append(batch.rows, batch.crc, columns, batch.uncertainty, items)
    view.generation = generation
    return True
