"""Gaussians -> a FAISS index whose answers are provably the exact nearest ones.

FAISS ranks float32 features by one inner product; a shortlist is then evaluated in float64 from
the definition of the distance, and grows until the certificate of `index.search.certificate` holds. Ties
go to the lower row. The caller passes items and queries normalised alike, or alike not.

Shape letters: Q queries, N items, K neighbours, D embedding dimension, E encoded dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.distances.encoding import Anchor, Distance
from index.distances.parameters import Densities, DistanceParameters, Float64s
from index.distances.prior import completed
from index.distances.table import named
from index.search import snapshot
from index.search.certificate import BESIDE, Found, Rows, merge, nothing, refine, slack
from index.search.proposals import Proposals
from index.search.rerank import CACHED, stored
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import Floats, GaussianEmbedding
from vssl.errors import InputError

LANES = 16  # FAISS falls to scalar code for dimensions that are no multiple of its vector width
QUERIES = 256  # searched at once
SHORTLIST = 48  # candidates beyond k that settle nearly every query
BOUNDED = 240  # and where the encoding is only a bound: a second pass costs as much as ten more queries
FAILURES = 8  # a tight first shortlist is given up when more than one query in so many was not settled by it
BLOCK = 1 << 22  # numbers per temporary array when items are encoded or scanned: 32 MB


class ExactIndex:
    """N items under one distance, searchable; built by `build` or `load`."""

    def __init__(
        self,
        name: str,
        items: Vectors,
        parameters: DistanceParameters,
        anchor: Anchor,
    ) -> None:
        self.name = name
        self.parameters = parameters
        self.dim = items.dim
        self._given: DistanceParameters | None = None
        self._distance = named(name)
        self._anchor = anchor
        self._items = items
        self._count = 0
        self._widest = np.zeros(0)
        # An exact encoding is off by rounding alone, so that hardly more than k candidates settle a query.
        self._beyond = BOUNDED if self._distance.bounds else BESIDE
        self._asked = self._unsettled = 0
        self._faiss: Any = None  # an IndexFlatIP as soon as there are items
        self._proposals = Proposals()
        self._source: Path | None = None  # the file it is mapped from: it must not be changed

    @classmethod
    def build(
        cls,
        name: str,
        items: GaussianEmbedding | Vectors,
        *,
        parameters: DistanceParameters | None = None,
    ) -> ExactIndex:
        """Encode items (N, D), N >= 0, for the distance `name`; vectors are shared, not copied.

        Raises InputError for an unknown distance and for numbers that float32 features cannot hold.
        """
        distance, vectors = named(name), Vectors.of(items)
        constants = parameters
        if constants is None or (name == "posterior" and not constants.between):
            constants = completed(name, parameters, vectors[:])
        anchor = Anchor.of_blocks(
            _prepared(distance, vectors[block], constants) for block in _blocks(0, len(vectors), vectors.dim)
        )
        index = cls(name, vectors, constants, anchor or Anchor.standard(vectors.dim))
        index._given = parameters
        index._encode()
        return index

    def __len__(self) -> int:
        return self._count

    @property
    def device(self) -> str:
        """Where shortlists are looked for: auto, cpu or cuda (index.search.gpu)."""
        return self._proposals.device

    @device.setter
    def device(self, device: str) -> None:
        self._proposals.device = device

    @property
    def items(self) -> GaussianEmbedding:
        """The N items, in the order of their rows."""
        return self._items[: self._count]

    @property
    def bytes(self) -> int:
        """Size of the features that FAISS holds, without the vectors that rank its candidates."""
        return 4 * self._count * self._faiss.d if self._faiss is not None else 0

    def add(self, items: GaussianEmbedding) -> None:
        """Append items; their rows follow the last one. Not safe beside a running search."""
        self._check_dim(items, "items")
        self._items.add(items)
        self.extend()

    def extend(self) -> None:
        """Take in what its vectors have grown by.

        The statistics that features are built about stay those of the first items, so features
        of old and new items agree.
        """
        if not self._count:
            proposals = self._proposals
            self.__dict__.update(ExactIndex.build(self.name, self._items, parameters=self._given).__dict__)
            self._proposals = proposals
            return
        before = self._count
        self._encode()
        for block in _blocks(before, self._count, self.dim):
            self._anchor = self._anchor.widened(self._prepared(self._items[block]))

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
        snapshot.write(
            folder, self._faiss, self.items, self.name, self.parameters, self._anchor, self._widest
        )

    @classmethod
    def load(cls, folder: Path, items: GaussianEmbedding | Vectors, *, verified: bool = False) -> ExactIndex:
        """Read what `save` wrote, for the same items, or for vectors that begin with them.

        verified: the caller has compared the files' checksums and knows the items to be the same.
        Large files are mapped rather than read. Raises FormatError when they are damaged or not theirs.
        """
        vectors = Vectors.of(items)
        saved = snapshot.read(folder, vectors, verified=verified)
        index = cls(saved.name, vectors, saved.parameters, saved.anchor)
        index._given, index._faiss, index._source = saved.parameters, saved.faiss, saved.source
        index._count, index._widest = saved.rows, saved.widest
        return index

    def _prepared(self, embedding: GaussianEmbedding) -> Densities:
        return _prepared(self._distance, embedding, self.parameters)

    def _check_dim(self, embedding: GaussianEmbedding, what: str) -> None:
        if embedding.dim != self.dim:
            raise InputError(
                f"{what} have {embedding.dim} dimensions, the index {self.dim}; "
                "embed them with the model that the gallery was built with"
            )

    def _encode(self) -> None:
        """Add the features of the vectors not yet encoded to FAISS, and keep the largest of each column."""
        if self._source is not None:  # FAISS ends the process when a mapped index is added to
            self._faiss, self._source = faiss.read_index(str(self._source)), None
        widest = self._widest
        for block in _blocks(self._count, len(self._items), self.dim):
            prepared = self._prepared(self._items[block])
            features = self._distance.encode_items(prepared, self._anchor, self.parameters)
            with np.errstate(over="ignore"):
                part = _padded(features).astype(np.float32)
            if not np.isfinite(part).all():
                if self._faiss is not None:
                    self._faiss.remove_ids(faiss.IDSelectorRange(self._count, self._faiss.ntotal))
                raise InputError(
                    f"the distance {self.name} of these items leaves the range of float32; "
                    "normalise them, or choose: --distance cosine"
                )
            if self._faiss is None:
                self._faiss = faiss.IndexFlatIP(part.shape[1])
                widest = np.zeros(part.shape[1])
            self._faiss.add(part)
            widest = np.maximum(widest, np.abs(part).max(axis=0))
        self._widest, self._count = widest, len(self._items)

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
        length = min(available, k + min(self._beyond, max(SHORTLIST, available // 4)))
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
        return self._proposals.largest(self._faiss, self._widest, asked, length, keep)

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
        return stored(self._distance, self.parameters, self._items, rows)

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


def _prepared(distance: Distance, embedding: GaussianEmbedding, constants: DistanceParameters) -> Densities:
    return distance.prepared(constants.scaled(embedding), constants)


def _blocks(first: int, last: int, dim: int) -> Iterator[slice]:
    """Cut rows into blocks whose features are temporary arrays of 32 MB."""
    step = max(1, BLOCK // (8 * max(1, dim)))
    for start in range(first, last, step):
        yield slice(start, min(last, start + step))
