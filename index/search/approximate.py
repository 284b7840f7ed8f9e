"""Gaussians -> an approximate FAISS index whose candidates are ranked exactly.

HNSW, IVF or IVF-PQ propose a shortlist by the Euclidean distance of coordinates in which it means
something: the means, or mean and standard deviation where the distance compares those. The
definition of the distance ranks the shortlist. The inner-product encodings of other distances
are never put into a graph: one coordinate dominates them, and recall falls to nothing.

Shape letters: Q queries, N items, K neighbours, D embedding dimension, C coordinates.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.arrays import Bools, Float64s, Int64s
from index.distances.parameters import DistanceParameters
from index.distances.prior import completed
from index.search.gpu import threads_for
from index.search.rerank import rerank, scan
from index.search.vectors import Vectors, padded
from vssl.embeddings.gaussian import Floats, GaussianEmbedding
from vssl.errors import FormatError, InputError

KINDS = ("hnsw", "ivf", "ivfpq")
INDEX, CONSTANTS = "candidates.faiss", "candidates.json"
MAPPED = 256 * 1024 * 1024  # larger files are mapped rather than read
NUMBERS = 1 << 23  # of items added at once
SCANNED = 20_000  # up to this many items that a filter keeps are all evaluated
# Rounds of k-means, and points a list, that IVF is trained with: FAISS's own 25 and 256 take ten times as long and
# find no better lists.
TRAINING = (10, 64)


@dataclass(frozen=True)
class Recipe:
    """How candidates are found.

    kind: hnsw, ivf or ivfpq. links: of an HNSW node; construction: how many nodes are looked at to
    find them. lists: of IVF, 0 for 4 sqrt(N). code: bytes of a product code, 0 for a quarter of the
    coordinates. effort: efSearch of HNSW, nprobe of IVF. shortlist: candidates ranked exactly
    beyond k.
    """

    kind: str
    effort: int = 64
    shortlist: int = 100
    links: int = 32
    lists: int = 0
    code: int = 0
    construction: int = 80

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"index kind: found {self.kind!r}, expected one of {KINDS}")
        if (
            min(self.effort, self.shortlist, self.links, self.construction) < 1
            or min(self.lists, self.code) < 0
        ):
            raise InputError(f"index recipe: found {self}, expected positive numbers")

    def to_json(self) -> str:
        """Return the recipe as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Parse `to_json`'s form."""
        try:
            values: dict[str, Any] = json.loads(text)
            return cls(**values)
        except (ValueError, TypeError) as error:
            raise FormatError(f"index recipe: not readable ({error}); build the gallery again") from error


def coordinates(name: str, gaussians: GaussianEmbedding, *, query: bool) -> Floats:
    """Return (N, C) float32 whose Euclidean distance proposes candidates, C a multiple of 16.

    wasserstein: (mean, sd), exact. expected: (mean, root of the total variance), against which a
    query has 0, exact. Every other distance: the mean, of length one for cosine.
    """
    mean = gaussians.mean
    if name == "wasserstein":
        parts = [mean, np.sqrt(gaussians.variance)]
    elif name == "expected":
        spread = np.sqrt(gaussians.variance.sum(axis=1, keepdims=True))
        parts = [mean, np.zeros_like(spread) if query else spread]
    elif name == "cosine":
        norm = np.linalg.norm(mean, axis=1, keepdims=True)
        parts = [mean / np.maximum(norm, np.finfo(np.float32).tiny)]
    else:
        parts = [mean]
    return np.ascontiguousarray(padded(np.concatenate(parts, axis=1)), np.float32)


class ApproximateIndex:
    """N items under one distance, found approximately and ranked exactly."""

    def __init__(
        self,
        name: str,
        items: Vectors,
        recipe: Recipe,
        parameters: DistanceParameters,
        index: Any,
        source: Path | None = None,
    ) -> None:
        self.name = name
        self.recipe = recipe
        self.parameters = parameters
        self._items = items
        self._count = int(index.ntotal)
        self._faiss: Any = index
        self._source = source  # the file that the index is mapped from: it must not be changed

    @classmethod
    def build(
        cls,
        name: str,
        items: GaussianEmbedding | Vectors,
        recipe: Recipe,
        *,
        parameters: DistanceParameters | None = None,
    ) -> ApproximateIndex:
        """Build over items (N, D), N >= 1; vectors are shared, not copied."""
        vectors = Vectors.of(items)
        points = coordinates(name, vectors[:], query=False)
        index = _empty(recipe, *points.shape)
        if not index.is_trained:
            index.train(points)
        index.add(points)
        return cls(name, vectors, recipe, completed(name, parameters, vectors[:]), index)

    def __len__(self) -> int:
        return self._count

    @property
    def bytes(self) -> int:
        """Size of the FAISS index, without the vectors that rank its candidates."""
        return int(faiss.serialize_index(self._faiss).nbytes)

    def with_effort(self, effort: int, shortlist: int) -> ApproximateIndex:
        """Return the same index searched with other knobs."""
        recipe = Recipe(**{**asdict(self.recipe), "effort": effort, "shortlist": shortlist})
        return ApproximateIndex(self.name, self._items, recipe, self.parameters, self._faiss, self._source)

    def add(self, items: GaussianEmbedding) -> None:
        """Append items. Not safe during a running search."""
        self._items.add(items)
        self.extend()

    def extend(self) -> None:
        """Take in what its vectors have grown by."""
        if self._source is not None:  # FAISS ends the process when a mapped index is added to
            self._faiss, self._source = faiss.read_index(str(self._source)), None
        for block in self._items.blocks(NUMBERS, start=self._count):
            self._faiss.add(coordinates(self.name, block, query=False))
        self._count = len(self._items)

    def search(
        self, queries: GaussianEmbedding, k: int, *, keep: Bools | None = None
    ) -> tuple[Float64s, Int64s]:
        """Return distances and rows (Q, K), ascending; -1 only where fewer than k items are there.

        keep (N,): the rows that may be returned. Few of them are all evaluated; so is every query
        whose shortlist came back short.
        """
        allowed = self._count if keep is None else int(np.count_nonzero(keep))
        if allowed <= max(k + self.recipe.shortlist, SCANNED if keep is not None else 0):
            return scan(self.name, self.parameters, self._items, queries, self._allowed(keep), k)
        share = allowed / self._count
        candidates = self._propose(queries, min(allowed, k + self.recipe.shortlist), keep, share)
        distances, rows = rerank(self.name, self.parameters, self._items, queries, candidates, k)
        short = np.flatnonzero(rows[:, min(k, allowed) - 1] < 0)
        if len(short):
            distances[short], rows[short] = scan(
                self.name, self.parameters, self._items, queries[short], self._allowed(keep), k
            )
        return distances, rows

    def _allowed(self, keep: Bools | None) -> Int64s:
        return np.arange(self._count) if keep is None else np.flatnonzero(keep)

    def _propose(self, queries: GaussianEmbedding, length: int, keep: Bools | None, share: float) -> Int64s:
        """Return candidates (Q, length), -1 where none."""
        effort = int(np.ceil(max(self.recipe.effort / share, 1)))  # a filter thins what is visited
        engine: Any = faiss  # its Python wrappers take arrays, which its type hints do not know
        selector = None if keep is None else engine.IDSelectorBitmap(np.packbits(keep, bitorder="little"))
        if self.recipe.kind == "hnsw":
            how = engine.SearchParametersHNSW(sel=selector, efSearch=max(effort, length))
        else:
            how = engine.SearchParametersIVF(sel=selector, nprobe=min(effort, self._lists()))
        encoded = coordinates(self.name, queries, query=True)
        with threads_for(len(queries)):
            candidates: Int64s = self._faiss.search(encoded, length, params=how)[1]
        return candidates

    def _lists(self) -> int:
        return int(faiss.extract_index_ivf(self._faiss).nlist)

    def save(self, folder: Path) -> None:
        """Write the FAISS index and its constants into an existing folder."""
        faiss.write_index(self._faiss, str(folder / INDEX))
        values = {
            "distance": self.name,
            "recipe": asdict(self.recipe),
            "parameters": self.parameters.to_dict(),
        }
        (folder / CONSTANTS).write_text(json.dumps(values), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, items: GaussianEmbedding | Vectors) -> ApproximateIndex:
        """Read what `save` wrote, for the items it was built from, in their order, or vectors that begin so.

        The caller verifies the files. A row that may no longer be returned (`keep`) may have any
        Gaussian in its place. Raises FormatError when the files cannot be read.
        """
        try:
            values = json.loads((folder / CONSTANTS).read_text(encoding="utf-8"))
            recipe, parameters = (
                Recipe(**values["recipe"]),
                DistanceParameters.from_dict(values["parameters"]),
            )
            path = folder / INDEX
            mapped = path.stat().st_size > MAPPED
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise FormatError(f"{folder} is not readable ({error}); it is built again") from error
        vectors = Vectors.of(items)
        short = index.ntotal > len(vectors) or (vectors is not items and index.ntotal < len(vectors))
        if short:
            raise FormatError(
                f"{folder}: found {index.ntotal} items, expected {len(items)}; it is built again"
            )
        return cls(values["distance"], vectors, recipe, parameters, index, path if mapped else None)


def _empty(recipe: Recipe, count: int, width: int) -> Any:
    index: Any
    if recipe.kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, recipe.links)
        index.hnsw.efConstruction = recipe.construction
        return index
    # FAISS wants 39 training points a list and says so on stderr.
    lists = max(1, min(recipe.lists or int(4 * np.sqrt(count)), count // 39))
    quantizer: Any = faiss.IndexFlatL2(width)
    if recipe.kind == "ivf":
        index = faiss.IndexIVFFlat(quantizer, width, lists)
    else:
        bits = 8 if count >= 39 * 256 else 4
        index = faiss.IndexIVFPQ(quantizer, width, lists, recipe.code or width // 4, bits)
    index.own_fields = True
    quantizer.this.disown()
    index.cp.niter, index.cp.max_points_per_centroid = TRAINING
    return index
