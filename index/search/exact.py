"""Gaussians -> a FAISS index whose answers are provably the exact nearest ones.

FAISS ranks float32 features by one inner product; a shortlist is then evaluated in float64 from
the definition of the distance, and grows until the certificate of `index.search.certificate` holds. Ties
go to the lower row. The caller passes items and queries normalised alike, or alike not, and
verifies the files of an index before it is loaded: FAISS reads a flipped bit without complaint.

Shape letters: Q queries, N items, K neighbours, D embedding dimension, E encoded dimension.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.arrays import Bools, Float64s, Int64s
from index.distances.encoding import Anchor, Distance
from index.distances.parameters import Densities, DistanceParameters
from index.distances.prior import completed
from index.distances.table import named
from index.search.certificate import FIRST, Found, joined, nothing, refine, slack
from index.search.gpu import FlatSearch
from index.search.rerank import evaluate, scan
from index.search.vectors import Vectors, padded
from vssl.embeddings.gaussian import Floats, GaussianEmbedding
from vssl.errors import FormatError, InputError

FORMAT = 1
FEATURES, CONSTANTS = "exact.faiss", "exact.json"
MAPPED = 256 * 1024 * 1024  # larger files are mapped rather than read
QUERIES = 256  # searched at once
SHORTLIST = 48  # candidates beyond k that suffice for nearly every query
BOUNDED = 240  # and where the encoding is only a bound: a second pass costs as much as ten more queries
FAILURES = (
    8  # a tight first shortlist is given up when more than one query in so many was not certified by it
)
NUMBERS = 1 << 19  # of items encoded at once: their features, up to eight times as many, take 32 MB


class ExactIndex:
    """N items under one distance, searchable; built by `build` or `load`."""

    def __init__(
        self,
        name: str,
        items: Vectors,
        constants: tuple[DistanceParameters, Anchor],
        given: DistanceParameters | None,
    ) -> None:
        self.name = name
        self.dim = items.dim
        self.parameters, self._anchor = constants
        self._given = given
        self._distance = named(name)
        self._items = items
        self._count = 0
        self._widest = np.zeros(0)
        # An exact encoding is off by rounding alone, so that hardly more than k candidates certify a query.
        self._beyond = BOUNDED if self._distance.bounds else FIRST
        self._searched = self._uncertified = 0
        self._faiss: Any = None  # an IndexFlatIP as soon as there are items
        self.device = "auto"  # where shortlists are looked for: auto, cpu or cuda (index.search.gpu)
        self._flat_search = FlatSearch()
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
        vectors = Vectors.of(items)
        index = cls(name, vectors, _constants(name, vectors, parameters), parameters)
        index._encode()
        return index

    def __len__(self) -> int:
        return self._count

    @property
    def items(self) -> GaussianEmbedding:
        """The N items, in the order of their rows."""
        return self._items[: self._count]

    @property
    def bytes(self) -> int:
        """Size of the features that FAISS holds, without the vectors that rank its candidates."""
        return 4 * self._count * self._faiss.d if self._faiss is not None else 0

    def add(self, items: GaussianEmbedding) -> None:
        """Append items; their rows follow the last one. Not safe during a running search."""
        self._check_dim(items, "items")
        self._items.add(items)
        self.extend()

    def extend(self) -> None:
        """Take in what its vectors have grown by.

        The statistics that features are built about stay those of the first items, so features
        of old and new items agree.
        """
        if not self._count:  # nothing is encoded yet: these are the first items
            self.parameters, self._anchor = _constants(self.name, self._items, self._given)
            self._faiss = None
        before = self._count
        self._encode()
        for block in self._items.blocks(NUMBERS, start=before):
            self._anchor = self._anchor.widened(self._prepared(block))

    def search(
        self, queries: GaussianEmbedding, k: int, *, keep: Bools | None = None
    ) -> tuple[Float64s, Int64s]:
        """Return distances (Q, K) float64 ascending and rows (Q, K) int64 of the nearest items.

        Only rows with `keep` (N,) true are considered. Where fewer than k items are there, the
        rest is row -1 at distance infinity. Raises InputError for another dimension.
        """
        found = self.search_counted(queries, k, keep=keep)
        return found.distances, found.rows

    def search_counted(self, queries: GaussianEmbedding, k: int, *, keep: Bools | None = None) -> Found:
        """Search and also say how many items were evaluated exactly per query."""
        self._check_dim(queries, "queries")
        if k < 1:
            raise InputError(f"found k = {k}, expected at least 1")
        if keep is not None and keep.shape != (self._count,):
            raise InputError(f"keep: found shape {keep.shape}, expected ({self._count},)")
        starts = range(0, max(1, len(queries)), QUERIES)
        return joined([self._search_block(queries[start : start + QUERIES], k, keep) for start in starts])

    def save(self, folder: Path) -> None:
        """Write the FAISS index and its constants into an existing folder."""
        if self._faiss is not None:
            faiss.write_index(self._faiss, str(folder / FEATURES))
        values = {
            "format": FORMAT,
            "distance": self.name,
            "parameters": self.parameters.to_dict(),
            "anchor": {key: array.tolist() for key, array in asdict(self._anchor).items()},
            "widest": self._widest.tolist(),
            "rows": self._count,
        }
        (folder / CONSTANTS).write_text(json.dumps(values), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, items: GaussianEmbedding | Vectors) -> ExactIndex:
        """Read what `save` wrote, for the items it was built from, in their order, or vectors that begin so.

        The caller verifies the files. Large ones are mapped rather than read. Raises FormatError when
        they cannot be read.
        """
        vectors = Vectors.of(items)
        try:
            values = json.loads((folder / CONSTANTS).read_text(encoding="utf-8"))
            rows, path = int(values["rows"]), folder / FEATURES
            if values["format"] != FORMAT or rows > len(vectors):
                raise ValueError(f"format {values['format']}, {rows} items, expected {len(vectors)}")
            parameters = DistanceParameters.from_dict(values["parameters"])
            anchor = Anchor(**{key: np.array(array) for key, array in values["anchor"].items()})
            index = cls(values["distance"], vectors, (parameters, anchor), parameters)
            index._widest, index._count = np.array(values["widest"]), rows
            if rows:
                index._source = path if path.stat().st_size > MAPPED else None
                index._faiss = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if index._source else 0)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise FormatError(f"{folder} is not readable ({error}); it is built again") from error
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
        for block in self._items.blocks(NUMBERS, start=self._count):
            features = self._distance.encode_items(self._prepared(block), self._anchor, self.parameters)
            with np.errstate(over="ignore"):
                part = padded(features).astype(np.float32)
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

    def _search_block(self, queries: GaussianEmbedding, k: int, keep: Bools | None) -> Found:
        available = self._count if keep is None else int(np.count_nonzero(keep))
        result = nothing(len(queries), k)
        if not available or not len(queries):
            return result
        prepared = self._prepared(queries)
        phi, offset = self._distance.encode_queries(prepared, self._anchor, self.parameters)
        phi = padded(phi)
        error = slack(phi, offset, self._widest)
        with np.errstate(over="ignore"):
            encoded = phi.astype(np.float32)
        representable = np.isfinite(error) & np.isfinite(encoded).all(axis=1)
        length = min(available, k + min(self._beyond, max(SHORTLIST, available // 4)))
        open_ = np.arange(len(queries)) if representable.all() else np.flatnonzero(representable)
        first = True
        while len(open_) and (length == available or length <= max(available // 2, k + SHORTLIST)):
            scores, rows = self._flat_search.largest(
                self._faiss, self._widest, encoded[open_], length, keep, device=self.device
            )
            terms = prepared.at(open_), offset[open_] - error[open_]
            found, certain = self._refined(scores, rows, k, *terms, everything=length == available)
            result.distances[open_], result.rows[open_] = found.distances, found.rows
            result.evaluated[open_] += found.evaluated
            open_ = open_[~certain]
            if first:
                self._learn(len(queries), len(open_))
                first = False
            length = min(available, max(4 * length, k + 4 * SHORTLIST))
        rest = np.union1d(open_, np.flatnonzero(~representable))
        if len(rest):  # no shortlist certifies these: evaluate every item
            rows = np.arange(self._count) if keep is None else np.flatnonzero(keep)
            scanned = scan(self.name, self.parameters, self._items, queries[rest], rows, k)
            result.distances[rest], result.rows[rest] = scanned
            result.evaluated[rest] += len(rows)
        return result

    def _refined(
        self, scores: Floats, rows: Int64s, k: int, prepared: Densities, bound: Float64s, *, everything: bool
    ) -> tuple[Found, Bools]:
        """Evaluate shortlists (Q, L) of queries until each top k is certain; see `refine`.

        bound (Q,): what a score is taken from to give a lower bound of the distance.
        """

        def exact(which: Int64s, candidates: Int64s) -> Float64s:
            return evaluate(self._distance, self.parameters, self._items, prepared.at(which), candidates)

        def nearest_left(which: Int64s, score: Float64s) -> Float64s:
            return self._distance.decode(bound[which] - score, self._anchor, self.parameters)

        return refine(scores, rows, k, everything=everything, evaluate=exact, nearest_left=nearest_left)

    def _learn(self, searched: int, uncertified: int) -> None:
        """Begin with longer shortlists from now on where the tight one keeps failing: it costs a second pass."""
        self._searched, self._uncertified = self._searched + searched, self._uncertified + uncertified
        if FAILURES * self._uncertified > self._searched + QUERIES:
            self._beyond = SHORTLIST


def _constants(
    name: str, vectors: Vectors, given: DistanceParameters | None
) -> tuple[DistanceParameters, Anchor]:
    """Return the constants of a distance, and the statistics that features of these vectors are built about."""
    parameters = given
    if parameters is None or (name == "posterior" and not parameters.between):
        parameters = completed(name, given, vectors[:])
    distance, constants = named(name), parameters
    blocks = (_prepared(distance, block, constants) for block in vectors.blocks(NUMBERS))
    return constants, Anchor.of_blocks(blocks) or Anchor.standard(vectors.dim)


def _prepared(distance: Distance, embedding: GaussianEmbedding, constants: DistanceParameters) -> Densities:
    return distance.prepared(constants.scaled(embedding), constants)
