"""The store of record -> the view of it in memory: read whole, mapped from saved files, or brought up to date.

Shape letters: N rows.
"""

from __future__ import annotations

from index.answers.view import ItemColumns, View, in_saved_order
from index.arrays import Int64s
from index.gallery.folder.store import Store
from index.search.vectors import Vectors


def read_view(store: Store, *, normalise: bool) -> View:
    """Read the whole store; the compared Gaussians are normalised when asked."""
    with store.snapshot():
        generation = store.generation()
        items = Vectors.empty(store.count(), store.dim)
        parts = []
        for batch in store.stream():  # some thousands at once: the raw vectors are never all in memory
            items.add(batch.gaussians.normalised() if normalise else batch.gaussians)
            parts.append(batch)
    return View.over(ItemColumns.concatenate(parts), generation, items)


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
    found = in_saved_order(columns, saved, crc)
    if found is None:
        return None
    ordered, alive, _ = found
    if not (tombstones or alive.all()):
        return None
    items.add(fresh.gaussians.normalised() if normalise else fresh.gaussians)
    return View.over(ordered, generation, items, alive)


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
        view.append(batch, items)
    view.generation = generation
    return True
