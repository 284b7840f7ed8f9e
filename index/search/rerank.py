"""Candidates -> the nearest of them, by the definition of a distance in float64.

Shape letters: Q queries, L candidates a query, K neighbours, N items, D embedding dimension.
"""

from __future__ import annotations

import numpy as np

from index.arrays import Float64s, Int64s
from index.distances.encoding import Distance
from index.distances.parameters import Densities, DistanceParameters
from index.distances.table import named
from index.search.certificate import merge
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import GaussianEmbedding

BLOCK = 1 << 21  # numbers per temporary array of a scan
CACHED = 1 << 15  # numbers per temporary array of a shortlist: they stay in the second cache
UNREAD = np.ones(1)  # stands for the variances of items where the distance reads none


def stored(distance: Distance, parameters: DistanceParameters, items: Vectors, rows: Int64s) -> Densities:
    """Return items (..., D) of those rows as the distance sees them, float64."""
    means = items.means(rows).astype(np.float64)
    if not distance.spreads:
        return Densities(means, UNREAD)
    variances = items.variances(rows).astype(np.float64)
    if parameters.alpha != 1:
        variances *= parameters.alpha
    return distance.prepared(Densities(means, variances), parameters)


def evaluate(
    distance: Distance, parameters: DistanceParameters, items: Vectors, prepared: Densities, rows: Int64s
) -> Float64s:
    """Return the distances (Q, L) of prepared queries (Q, D) to rows (Q, L) of items, from the definition."""
    result = np.empty(rows.shape)
    step = max(1, CACHED // max(1, items.dim * rows.shape[1]))
    for start in range(0, len(rows), step):
        here = slice(start, start + step)
        one = Densities(prepared.mean[here], prepared.variance[here]).across()
        result[here] = distance.exact(one, stored(distance, parameters, items, rows[here]), parameters)
    return result


def rerank(
    name: str,
    parameters: DistanceParameters,
    items: Vectors,
    queries: GaussianEmbedding,
    candidates: Int64s,
    k: int,
) -> tuple[Float64s, Int64s]:
    """Return distances and rows (Q, K) of the k nearest of each query's candidates (Q, L).

    A candidate of -1 is none. Where fewer than k are there, the rest
    is row -1 at distance infinity.
    """
    distance = named(name)
    prepared = distance.prepared(parameters.scaled(queries), parameters)
    exact = evaluate(distance, parameters, items, prepared, np.maximum(candidates, 0))
    if (candidates < 0).any():
        exact = np.where(candidates >= 0, exact, np.inf)
    distances, rows = np.full((len(queries), k), np.inf), np.full((len(queries), k), -1)
    best, found = merge(exact, candidates, k)
    distances[:, : best.shape[1]], rows[:, : best.shape[1]] = best, found
    return distances, rows


def scan(
    name: str,
    parameters: DistanceParameters,
    items: Vectors,
    queries: GaussianEmbedding,
    rows: Int64s,
    k: int,
) -> tuple[Float64s, Int64s]:
    """Return the k nearest (Q, K) among the given rows (R,), every one evaluated."""
    best, found = np.empty((len(queries), 0)), np.empty((len(queries), 0), np.int64)
    step = max(k, BLOCK // items.dim)
    for start in range(0, max(1, len(rows)), step):
        part = np.broadcast_to(rows[start : start + step], (len(queries), len(rows[start : start + step])))
        distances, nearest = rerank(name, parameters, items, queries, part, k)
        nearest = np.where(nearest < 0, np.iinfo(np.int64).max, nearest)  # what is none sorts last
        best, found = merge(
            np.concatenate([best, distances], axis=1), np.concatenate([found, nearest], axis=1), k
        )
    return best, np.where(found == np.iinfo(np.int64).max, -1, found)
