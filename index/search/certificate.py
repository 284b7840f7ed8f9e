"""Approximate scores in descending order -> the exact top k, with the proof that it is.

A float32 inner product phi.psi of E numbers, each rounded to float32 first, differs from the
exact one by at most (E + 2) u sum |phi_i| max_x |psi_i(x)| with u = 2^-24 (Higham, section 3.1),
whatever the order of summation. An item that FAISS left out therefore has a distance of at least
decode(offset - last score - that slack): once the k-th exact distance lies strictly below, no
item left out can belong to the top k, not even by a tie.

Shape letters: Q queries, K neighbours, L length of the shortlist, E encoded dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.arrays import Bools, Float64s, Int64s

UNIT = 2.0**-24
# Features and definitions are themselves computed in float64; this is far above their error.
DOUBLE = 1e-12
FINE = 64  # evaluations up to which the shortlist is taken in small steps, then doubled
FIRST = 6  # evaluated at first beyond k: enough where the certificate's margin is that of rounding
NOWHERE = np.iinfo(np.int64).max  # sorts after every row
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max) / 4


def slack(phi: Float64s, offset: Float64s, widest: Float64s) -> Float64s:
    """Return (Q,): how far offset - float32 score may lie from the exact value.

    phi (Q, E) and offset (Q,) float64, widest (E,) the largest |psi_i| over the items. Infinite
    where the sum itself might overflow float32.
    """
    size = np.abs(phi) @ widest
    terms = (phi.shape[1] + 2) * UNIT
    single = terms / (1 - terms) * size + SMALLEST
    bound: Float64s = single + DOUBLE * (size + np.abs(offset))
    return np.where(size < LARGEST, bound, np.inf)


@dataclass(frozen=True, eq=False)
class Found:
    """distances (Q, K) ascending, rows (Q, K), and how many items were evaluated exactly (Q,)."""

    distances: Float64s
    rows: Int64s
    evaluated: Int64s


def nothing(count: int, k: int) -> Found:
    """Return an empty answer: distances infinite, rows -1."""
    return Found(np.full((count, k), np.inf), np.full((count, k), -1), np.zeros(count, np.int64))


def joined(parts: Sequence[Found]) -> Found:
    """Return the answers of several blocks of queries as one."""
    if len(parts) == 1:
        return parts[0]
    columns = ((part.distances, part.rows, part.evaluated) for part in parts)
    return Found(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def merge(distances: Float64s, rows: Int64s, k: int) -> tuple[Float64s, Int64s]:
    """Return the k nearest of (Q, M) candidates, ties by the lower row."""
    order = np.lexsort((rows, distances), axis=-1)[:, :k]
    lines = np.arange(len(rows))[:, None]
    return distances[lines, order], rows[lines, order]


def refine(
    scores: NDArray[np.float32],
    rows: Int64s,
    k: int,
    *,
    everything: bool,
    evaluate: Callable[[Int64s, Int64s], Float64s],
    nearest_left: Callable[[Int64s, Float64s], Float64s],
) -> tuple[Found, Bools]:
    """Evaluate shortlists (Q, L) in their order until each top k is certain.

    everything: the shortlists hold all items there are. evaluate(queries, rows (n, c)) gives
    exact distances (n, c); nearest_left(queries, scores) a lower bound (n,) of the distance of
    items with at most those scores. Returns what was found and which queries are certain.
    """
    count, length = rows.shape
    best = nothing(count, k)
    distances, chosen, evaluated = best.distances, np.full((count, k), NOWHERE), best.evaluated
    certain = np.zeros(count, np.bool_)
    open_ = np.arange(count)
    start, step = 0, k + FIRST
    while start < length and len(open_):
        stop = min(length, start + step)
        part = rows[open_, start:stop]
        exact = evaluate(open_, part)
        if start:
            exact = np.concatenate([distances[open_], exact], axis=1)
            part = np.concatenate([chosen[open_], part], axis=1)
        nearest, at = merge(exact, part, k)
        distances[open_, : at.shape[1]], chosen[open_, : at.shape[1]] = nearest, at
        evaluated[open_] += stop - start
        if stop == length and everything:
            certain[open_] = True
        else:
            following = scores[open_, min(stop, length - 1)].astype(np.float64)
            certain[open_] = distances[open_, -1] < nearest_left(open_, following)
        open_ = open_[~certain[open_]]
        start, step = stop, (max(4, stop // 4) if stop < FINE else stop)
    chosen[chosen == NOWHERE] = -1
    return Found(distances, chosen, evaluated), certain
