"""Queries and items -> every distance, straight from the definition: slow, and the yardstick.

Shape letters: Q queries, N items, K rows of a query, D embedding dimension.
"""

from __future__ import annotations

import numpy as np

from index.arrays import Float64s, Int64s
from index.distances.parameters import Densities, DistanceParameters
from index.distances.prior import completed
from index.distances.table import named
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError

BLOCK = 1 << 20  # numbers per temporary array: 8 MB


def pairwise(
    name: str,
    queries: GaussianEmbedding,
    items: GaussianEmbedding,
    parameters: DistanceParameters | None = None,
) -> Float64s:
    """Return the distance `name` of every query to every item, (Q, N) float64, in blocks.

    Nothing is normalised here. Raises InputError for an unknown name or unequal dimensions.
    """
    distance = named(name)
    if queries.dim != items.dim:
        raise InputError(f"queries have {queries.dim} dimensions, items {items.dim}; expected the same")
    constants = completed(name, parameters, items)
    prepared = distance.prepared(constants.scaled(queries), constants)
    stored = distance.prepared(constants.scaled(items), constants)
    result = np.empty((len(queries), len(items)))
    step = max(1, BLOCK // max(1, items.dim))
    for row in range(len(queries)):
        query = Densities(prepared.mean[row], prepared.variance[row])
        for start in range(0, len(items), step):
            part = Densities(stored.mean[start : start + step], stored.variance[start : start + step])
            result[row, start : start + step] = distance.exact(query, part, constants)
    return result


def gathered(
    name: str,
    queries: GaussianEmbedding,
    items: GaussianEmbedding,
    rows: Int64s,
    parameters: DistanceParameters | None = None,
) -> Float64s:
    """Return the distance of each query to its own rows (Q, K) of the items; infinite for row -1."""
    distance, constants = named(name), completed(name, parameters, items)
    prepared = distance.prepared(constants.scaled(queries), constants)
    result = np.full(rows.shape, np.inf)
    for row in range(len(queries)):
        there = rows[row] >= 0
        found = distance.prepared(constants.scaled(items[rows[row, there]]), constants)
        query = Densities(prepared.mean[row], prepared.variance[row])
        result[row, there] = distance.exact(query, found, constants)
    return result
