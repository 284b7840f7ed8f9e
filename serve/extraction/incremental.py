"""An earlier extraction -> the rows that an update need not compute again.

A row is taken over when its id is the same and so is its stamp (size and time of the file, or
the object's tag); images that failed before are tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from serve.extraction.blocks import BlockResult
from serve.extraction.output import INPUTS
from serve.extraction.plan import stamps
from vssl.embeddings import store
from vssl.embeddings.store import Rows
from vssl.images.items import ImageItem


class EarlierRows:
    """The rows of a complete folder, found by id; holds two parts in memory at a time."""

    def __init__(self, out: Path, listing: pa.Table) -> None:
        before, now = stamps(pq.read_table(out / INPUTS)), stamps(listing)
        same = {name for name, stamp in now.items() if stamp and before.get(name) == stamp}
        self._places: dict[str, tuple[str, int]] = {}
        for part in store.read_manifest(out)["parts"]:
            names = pq.read_table(out / part, columns=["id"]).column("id").to_pylist()
            self._places |= {name: (part, row) for row, name in enumerate(names) if name in same}
        self._part = lru_cache(maxsize=2)(lambda name: store.from_table(pq.read_table(out / name)))

    def take(self, items: Sequence[ImageItem], numbers: Sequence[int]) -> BlockResult:
        """Return what is known of the given source rows, with the paths and labels they have now."""
        known = [n for n in numbers if items[n].id in self._places]
        parts: dict[str, list[int]] = {}
        for n in known:
            parts.setdefault(self._places[items[n].id][0], []).append(n)
        taken = [
            self._part(part).take([self._places[items[n].id][1] for n in rows])
            for part, rows in parts.items()
        ]
        order = [n for rows in parts.values() for n in rows]
        if not taken:
            return BlockResult(None, [], [], [])
        rows = Rows.concatenate(taken)
        paths, labels = [items[n].path for n in order], [items[n].label for n in order]
        fresh = Rows(rows.ids, paths, labels, rows.gaussians, rows.features, rows.digests)
        return BlockResult(fresh, order, [], [])
