"""What a search needs in memory: columns and compared Gaussians of every row, and the indexes.

The view follows the store of record: it takes the rows after its last one and marks those that
went. Rows stay where they are until the view is built anew, so an index built on it stays true.
Shape letters: N rows held (those that went included), D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from index.exact import ExactIndex
from index.records import Batch, Records
from vssl.gaussian import Floats, GaussianEmbedding


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
    items: GaussianEmbedding
    indexes: dict[str, ExactIndex] = field(default_factory=dict)

    _ordered: tuple[int, Floats] | None = None

    def ordered_uncertainty(self) -> Floats:
        """Return the uncertainties of the rows that are there, ascending."""
        if self._ordered is None or self._ordered[0] != self.generation:
            self._ordered = self.generation, np.sort(self.uncertainty[self.alive])
        return self._ordered[1]

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
        generation, batch = records.generation(), records.read()
    items = batch.gaussians.normalised() if normalise else batch.gaussians
    return View(
        generation,
        batch.rows,
        batch.crc,
        np.ones(len(batch.rows), bool),
        batch.ids,
        batch.labels,
        batch.paths,
        batch.uncertainty,
        items,
    )


def begins_with(view: View, rows: NDArray[np.int64], crc: NDArray[np.int64]) -> bool:
    """Say whether a saved index of these rows is one of the view's first rows, item for item."""
    count = len(rows)
    same = np.array_equal(view.rows[:count], rows) and np.array_equal(view.crc[:count], crc)
    return bool(same and count > 0)


def follow(view: View, records: Records, *, normalise: bool) -> bool:
    """Bring the view up to the store; False when it must be read anew (the store was compacted)."""
    with records.snapshot():
        generation = records.generation()
        if generation == view.generation:
            return True
        if int(records.fact("compacted") or 0) > view.generation:
            return False
        removed, batch = records.removed(since=view.generation), records.read(after=view.last_row)
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
    view.items = GaussianEmbedding.concatenate([view.items, items])
    for index in view.indexes.values():
        index.add(items)
