"""Gaussians -> a FAISS index whose answers are provably the exact nearest ones.

FAISS ranks float32 features by one inner product; a shortlist is then evaluated in float64 from
the definition of the distance, and grows until the certificate of `index.certified` holds. Ties
go to the lower row. The caller passes items and queries normalised alike, or alike not.

Shape letters: Q queries, N items, K neighbours, D embedding dimension, E encoded dimension.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index import snapshot
from index.certified import BESIDE, Found, Rows, merge, nothing, refine, slack
from index.distances.encoding import Anchor
from index.distances.parameters import Densities, DistanceParameters, Float64s
from index.distances.prior import completed
from index.distances.table import named
from index.rerank import CACHED, stored
from vssl.errors import InputError
from vssl.gaussian import Floats, GaussianEmbedding

LANES = 16  # FAISS falls to scalar code for dimensions that are no multiple of its vector width
QUERIES = 256  # searched at once
SHORTLIST = 48  # candidates beyond k that are asked for first, where the encoding is a bound
FAILURES = 8  # a tight first shortlist is given up when more than one query in so many was not settled by it
BLOCK = 1 << 22  # numbers per temporary array when items are encoded or scanned: 32 MB


class ExactIndex:
    """N items under one distance, searchable; built by `build` or `load`."""

    def __init__(
        self,
        name: str,
        items: GaussianEmbedding,
        parameters: DistanceParameters | None,
        anchor: Anchor | None,
    ) -> None:
        self.name = name
        self.parameters = completed(name, parameters, items)
        self.dim = items.dim
        self._given = parameters
        self._distance = named(name)
        self._anchor = anchor or Anchor.of(self._prepared(items))
        self._mean, self._variance = items.mean, items.variance
        self._count = len(items)
        self._widest = np.zeros(0)
        # An exact encoding is off by rounding alone, so that hardly more than k candidates settle a query.
        self._beyond = SHORTLIST if self._distance.bounds else BESIDE
        self._asked = self._unsettled = 0
        self._faiss: Any = None  # an IndexFlatIP as soon as there are items

    @classmethod
    def build(
        cls, name: str, items: GaussianEmbedding, *, parameters: DistanceParameters | None = None
    ) -> ExactIndex:
        """Encode items (N, D), N >= 0, for the distance `name`.

        Raises InputError for an unknown distance and for numbers that float32 features cannot hold.
        """
        index = cls(name, items, parameters, None)
        index._encode(items)
        return index

    def __len__(self) -> int:
        return self._count

    @property
    def items(self) -> GaussianEmbedding:
        """The N items, in the order of their rows."""
        return GaussianEmbedding(self._mean[: self._count], self._variance[: self._count])

    @property
    def bytes(self) -> int:
        """Size of the features that FAISS holds, without the vectors that rank its candidates."""
        return 4 * self._count * self._faiss.d if self._faiss is not None else 0

    def add(self, items: GaussianEmbedding) -> None:
        """Append items; their rows follow the last one. Not safe beside a running search.

        The statistics that features are built about stay those of the first items, so features
        of old and new items agree.
        """
        self._check_dim(items, "items")
        if not self._count:
            self.__dict__.update(ExactIndex.build(self.name, items, parameters=self._given).__dict__)
            return
        self._encode(items)
        self._anchor = self._anchor.widened(self._prepared(items))
        total = self._count + len(items)
        if total > len(self._mean):  # grow by half again, so that single additions stay cheap
            room = max(total, self._count + self._count // 2)
            self._mean, self._variance = (_grown(a, self._count, room) for a in (self._mean, self._variance))
        self._mean[self._count : total], self._variance[self._count : total] = items.mean, items.variance
        self._count = total

    def search(
        self, queries: GaussianEmbedding, k: int, *, keep: NDArray[np.bool_] | None = None
    ) -> tuple[Float64s, Rows]:
        """Return distances (Q, K) float64 ascending and rows (Q, K) int64 of the nearest items.

        Only rows with `keep` (N,) true are considered. Where fewer than k items are there, the
        rest is row -1 at distance infinity. Raises InputError for another dimension.
        """
        found = self.search_counted(queries, k, keep=keep)
        return found.distances, found.rows

    def search_counted(
        self, queries: GaussianEmbedding, k: int, *, keep: NDArray[np.bool_] | None = None
    ) -> Found:
        """Search and also say how many items were evaluated exactly per query."""
        self._check_dim(queries, "queries")
        if k < 1:
            raise InputError(f"found k = {k}, expected at least 1")
        if keep is not None and keep.shape != (self._count,):
            raise InputError(f"keep: found shape {keep.shape}, expected ({self._count},)")
        if len(queries) <= QUERIES:
            return self._search_block(queries, k, keep)
        parts = [
            self._search_block(queries[start : start + QUERIES], k, keep)
            for start in range(0, len(queries), QUERIES)
        ]
        return Found(
            np.concatenate([p.distances for p in parts]),
            np.concatenate([p.rows for p in parts]),
            np.concatenate([p.evaluated for p in parts]),
        )

    def save(self, folder: Path) -> None:
        """Write the FAISS index and its constants into an existing folder."""
        snapshot.write(folder, self._faiss, self.items, self.name, self.parameters, self._anchor)

    @classmethod
    def load(cls, folder: Path, items: GaussianEmbedding) -> ExactIndex:
        """Read what `save` wrote, for the same items. Raises FormatError when it is damaged or not theirs."""
        saved = snapshot.read(folder, items)
        index = cls(saved.name, items, saved.parameters, saved.anchor)
        index._faiss = saved.faiss
        if index._faiss is not None:
            index._widest = _widest(
                faiss.rev_swig_ptr(index._faiss.get_xb(), len(items) * index._faiss.d), len(items)
            )
        return index

    def _prepared(self, embedding: GaussianEmbedding) -> Densities:
        return self._distance.prepared(self.parameters.scaled(embedding), self.parameters)

    def _check_dim(self, embedding: GaussianEmbedding, what: str) -> None:
        if embedding.dim != self.dim:
            raise InputError(
                f"{what} have {embedding.dim} dimensions, the index {self.dim}; "
                "embed them with the model that the gallery was built with"
            )

    def _encode(self, items: GaussianEmbedding) -> None:
        """Add the features of items to FAISS, in blocks, and keep the largest of each column."""
        step = max(1, BLOCK // (8 * max(1, self.dim)))
        blocks: list[Floats] = []
        for start in range(0, len(items), step):
            prepared = self._prepared(items[start : start + step])
            features = self._distance.encode_items(prepared, self._anchor, self.parameters)
            with np.errstate(over="ignore"):
                blocks.append(_padded(features).astype(np.float32))
            if not np.isfinite(blocks[-1]).all():
                raise InputError(
                    f"the distance {self.name} of these items leaves the range of float32; "
                    "normalise them, or choose: --distance cosine"
                )
        for block in blocks:
            if self._faiss is None:
                self._faiss = faiss.IndexFlatIP(block.shape[1])
                self._widest = np.zeros(block.shape[1])
            self._faiss.add(block)
            self._widest = np.maximum(self._widest, np.abs(block).max(axis=0))

    def _search_block(self, queries: GaussianEmbedding, k: int, keep: NDArray[np.bool_] | None) -> Found:
        available = self._count if keep is None else int(np.count_nonzero(keep))
        result = nothing(len(queries), k)
        if not available or not len(queries):
            return result
        prepared = self._prepared(queries)
        phi, offset = self._distance.encode_queries(prepared, self._anchor, self.parameters)
        phi = _padded(phi)
        doubt = slack(phi, offset, self._widest)
        with np.errstate(over="ignore"):
            asked = phi.astype(np.float32)
        representable = np.isfinite(doubt) & np.isfinite(asked).all(axis=1)
        length = min(available, k + self._beyond)
        open_ = np.arange(len(queries)) if representable.all() else np.flatnonzero(representable)
        first = True
        while len(open_) and (length == available or length <= max(available // 2, k + SHORTLIST)):
            scores, rows = self._shortlist(asked[open_], length, keep)
            subset = open_

            def evaluate(which: Rows, candidates: Rows, subset: Rows = subset) -> Float64s:
                return self._exact(prepared, subset[which], candidates)

            def nearest_left(which: Rows, score: Float64s, subset: Rows = subset) -> Float64s:
                value = offset[subset[which]] - score - doubt[subset[which]]
                return self._distance.decode(value, self._anchor, self.parameters)

            found, certain = refine(
                scores,
                rows,
                k,
                everything=length == available,
                evaluate=evaluate,
                nearest_left=nearest_left,
            )
            result.distances[open_], result.rows[open_] = found.distances, found.rows
            result.evaluated[open_] += found.evaluated
            open_ = open_[~certain]
            if first:
                self._learn(len(queries), len(open_))
                first = False
            length = min(available, max(4 * length, k + 4 * SHORTLIST))
        if len(open_) or not representable.all():
            for row in np.union1d(open_, np.flatnonzero(~representable)):
                self._scan(prepared, int(row), k, keep, result)
        return result

    def _learn(self, asked: int, unsettled: int) -> None:
        """Begin with longer shortlists from now on where the tight one keeps failing: it costs a second pass."""
        self._asked, self._unsettled = self._asked + asked, self._unsettled + unsettled
        if FAILURES * self._unsettled > self._asked + QUERIES:
            self._beyond = SHORTLIST

    def _shortlist(self, asked: Floats, length: int, keep: NDArray[np.bool_] | None) -> tuple[Floats, Rows]:
        """Return the `length` largest float32 scores and their rows."""
        # FAISS takes matrix products only above this many numbers in a batch; four queries pay.
        faiss.cvar.distance_compute_blas_threshold = 4 * asked.shape[1]
        threads = faiss.omp_get_max_threads()
        selection = None
        if keep is not None:
            selection = _selection(keep)
        if len(asked) == 1:  # one query split over threads is slower than on one
            faiss.omp_set_num_threads(1)
        try:
            scores, rows = self._faiss.search(asked, length, params=selection)
        finally:
            faiss.omp_set_num_threads(threads)
        return scores, rows

    def _exact(self, prepared: Densities, queries: Rows, rows: Rows) -> Float64s:
        """Return the distances (n, c) of n queries to c candidates each, from the definition."""
        result = np.empty(rows.shape)
        step = max(1, CACHED // (max(1, self.dim) * rows.shape[1]))
        for start in range(0, len(rows), step):
            here = slice(start, start + step)
            query = Densities(prepared.mean[queries[here]], prepared.variance[queries[here]]).across()
            result[here] = self._distance.exact(query, self._items_at(rows[here]), self.parameters)
        return result

    def _items_at(self, rows: Rows) -> Densities:
        return stored(self._distance, self.parameters, self._mean, self._variance, rows)

    def _scan(
        self, prepared: Densities, row: int, k: int, keep: NDArray[np.bool_] | None, result: Found
    ) -> None:
        """Evaluate every kept item for one query that no shortlist settles."""
        rows = np.arange(self._count) if keep is None else np.flatnonzero(keep)
        best_distances, best_rows = np.empty((1, 0)), np.empty((1, 0), np.int64)
        step = max(k, BLOCK // max(1, self.dim))
        for start in range(0, len(rows), step):
            part = rows[None, start : start + step]
            exact = self._exact(prepared, np.array([row]), part)
            best_distances, best_rows = merge(
                np.concatenate([best_distances, exact], axis=1),
                np.concatenate([best_rows, part], axis=1),
                k,
            )
        width = best_rows.shape[1]
        result.distances[row], result.rows[row] = np.inf, -1
        result.distances[row, :width], result.rows[row, :width] = best_distances[0], best_rows[0]
        result.evaluated[row] += len(rows)


def _padded(features: Float64s) -> Float64s:
    """Append zero columns up to a multiple of 16."""
    count, width = features.shape
    if width % LANES == 0:
        return features
    padded = np.zeros((count, width + -width % LANES))
    padded[:, :width] = features
    return padded


def _selection(keep: NDArray[np.bool_]) -> Any:
    """Return FAISS's form of "only these rows"."""
    engine: Any = faiss  # its Python wrappers take arrays, which its type hints do not know
    return engine.SearchParameters(sel=engine.IDSelectorBitmap(np.packbits(keep, bitorder="little")))


def _grown(array: Floats, count: int, room: int) -> Floats:
    grown = np.empty((room, array.shape[1]), np.float32)
    grown[:count] = array[:count]
    return grown


def _widest(flat: Floats, count: int) -> Float64s:
    """Return the largest magnitude of each column, (E,)."""
    features = flat.reshape(count, -1)
    widest: Float64s = np.maximum(features.max(axis=0), -features.min(axis=0)).astype(np.float64)
    return widest
