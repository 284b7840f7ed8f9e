"""A distance as an inner product: what each family says so that FAISS can rank by it.

An encoding turns items into vectors psi and queries into vectors phi and offsets c such that

    distance(query, item)  =  decode(c - phi . psi)      (exact encodings)
    distance(query, item) >=  decode(c - phi . psi)      (lower bounds)

with `decode` increasing, so the items of largest phi . psi are the nearest ones, or the first
ones worth evaluating. Features are built in float64 about the mean of the items, because in
float32 the offset common to all means would eat the digits that tell them apart; the defined
distance does not change by it.

Shape letters: Q queries, N items, D embedding dimension, E encoded dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from index.arrays import Float64s
from index.distances.parameters import Densities, DistanceParameters


@dataclass(frozen=True, eq=False)
class Anchor:
    """Statistics of the items an encoding is built about, each (D,) float64.

    centre: their mean, fixed when the index is built; typical: the geometric mean of their
    variances, fixed likewise (the arithmetic one lies far above most of them when they spread);
    low, high: the range of their variances, which grows when items are added.
    """

    centre: Float64s
    typical: Float64s
    low: Float64s
    high: Float64s

    @classmethod
    def standard(cls, dim: int) -> Anchor:
        """Return the anchor of no items: the unit Gaussian."""
        return cls(np.zeros(dim), np.ones(dim), np.full(dim, np.inf), np.zeros(dim))

    @classmethod
    def of(cls, items: Densities) -> Anchor:
        """Measure items (N, D); an empty set has the standard anchor."""
        found = cls.of_blocks([items]) if len(items.mean) else None
        return found or cls.standard(items.mean.shape[-1])

    @classmethod
    def of_blocks(cls, blocks: Iterable[Densities]) -> Anchor | None:
        """Measure items that come in blocks (n, D), one in memory at a time; None for no items."""
        found: Anchor | None = None
        count = 0
        for items in blocks:
            n = len(items.mean)
            centre, log = items.mean.sum(axis=0), np.log(items.variance).sum(axis=0)
            if found is None:
                found = cls(centre, log, items.variance.min(axis=0), items.variance.max(axis=0))
            else:
                found = cls(found.centre + centre, found.typical + log, found.low, found.high).widened(items)
            count += n
        if found is None:
            return None
        return cls(found.centre / count, np.exp(found.typical / count), found.low, found.high)

    def widened(self, items: Densities) -> Anchor:
        """Return the anchor with its range covering more items (N, D) too."""
        if not len(items.mean):
            return self
        low = np.minimum(self.low, items.variance.min(axis=0))
        return Anchor(self.centre, self.typical, low, np.maximum(self.high, items.variance.max(axis=0)))


Exact = Callable[[Densities, Densities, DistanceParameters], Float64s]
EncodeItems = Callable[[Densities, Anchor, DistanceParameters], Float64s]
QueryEncoding = tuple[Float64s, Float64s]  # phi (Q, E) and offsets (Q,)
EncodeQueries = Callable[[Densities, Anchor, DistanceParameters], QueryEncoding]
Decode = Callable[[Float64s, Anchor, DistanceParameters], Float64s]


def linear(value: Float64s, anchor: Anchor, parameters: DistanceParameters) -> Float64s:
    """Decode a distance that is itself the linear value."""
    return value


def square_root(value: Float64s, anchor: Anchor, parameters: DistanceParameters) -> Float64s:
    """Decode a distance whose square is the linear value; rounding below zero counts as zero."""
    root: Float64s = np.sqrt(np.maximum(value, 0.0))
    return root


@dataclass(frozen=True)
class Distance:
    """One named distance: its definition, and its encoding as an inner product.

    exact: (..., D) Gaussians broadcast against each other -> (...) distances, in float64.
    encode_items: (N, D) -> psi (N, E). encode_queries: (Q, D) -> phi (Q, E), offsets (Q,).
    decode: offset - phi.psi -> distance, increasing.
    floors: the variance is floored first, because the distance divides by it.
    bounds: the decoded value is a lower bound rather than the distance itself.
    spreads: the definition reads variances.
    """

    name: str
    exact: Exact
    encode_items: EncodeItems
    encode_queries: EncodeQueries
    decode: Decode = linear
    floors: bool = False
    bounds: bool = False
    spreads: bool = True

    def prepared(self, densities: Densities, parameters: DistanceParameters) -> Densities:
        """Return the Gaussians as this distance sees them."""
        return parameters.floored(densities) if self.floors else densities


def columns(*parts: Float64s) -> Float64s:
    """Join (N, D) blocks and (N,) columns side by side into (N, E)."""
    return np.concatenate([p if p.ndim == 2 else p[:, None] for p in parts], axis=1)
