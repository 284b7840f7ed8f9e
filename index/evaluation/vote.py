"""Neighbours with labels -> the class of the query by a weighted vote.

The control is the vote that self-supervised methods report: each of the k nearest by cosine
counts exp(cos / T), k = 20 or 200, T = 0.07 (Wu et al. 2018; Caron et al. 2021).
Shape letters: Q queries, K neighbours, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]
TEMPERATURE = 0.07


def votes(codes: Rows, log_weights: Doubles, classes: int) -> Doubles:
    """Return the share (Q, C) of the weight that falls to each class.

    codes (Q, K) are the neighbours' classes, -1 for no neighbour; log_weights (Q, K) the
    logarithms of their weights (cos / T for the control). A query without neighbours has zeros.

    >>> votes(np.array([[0, 1, 1]]), np.log(np.array([[2.0, 1.0, 1.0]])), 2)
    array([[0.5, 0.5]])
    """
    there = codes >= 0
    scaled = np.where(there, log_weights, -np.inf)
    highest = scaled.max(axis=1, keepdims=True, initial=-np.inf)
    # The largest weight becomes 1 first, so that no exponential overflows.
    weights = np.exp(scaled - np.where(np.isfinite(highest), highest, 0.0))
    totals = np.zeros((len(codes), classes))
    queries = np.broadcast_to(np.arange(len(codes))[:, None], codes.shape)
    np.add.at(totals, (queries[there], codes[there]), weights[there])
    sums = totals.sum(axis=1, keepdims=True)
    shares: Doubles = totals / np.where(sums > 0, sums, 1.0)
    return shares


def in_top(shares: Doubles, truth: Rows, count: int) -> NDArray[np.bool_]:
    """Say for each query whether its class is among the `count` with the largest shares.

    A class without any vote is never among them; equal shares go to the lower class.

    >>> in_top(np.array([[0.6, 0.4, 0.0]]), np.array([1]), 1), in_top(np.array([[0.6, 0.4, 0.0]]), np.array([1]), 2)
    (array([False]), array([ True]))
    """
    known = np.clip(truth, 0, None)
    own = np.take_along_axis(shares, known[:, None], axis=1)
    before = (shares == own) & (np.arange(shares.shape[1]) < known[:, None])
    rank = ((shares > own) | before).sum(axis=1)
    found: NDArray[np.bool_] = (rank < count) & (own[:, 0] > 0) & (truth >= 0)
    return found


def without(rows: Rows, distances: Doubles, own: Rows, k: int) -> tuple[Rows, Doubles]:
    """Drop each query's own item `own` (Q,) from its neighbours and return the k nearest others.

    By id, never by position: a duplicate may come before the image itself. The caller searches
    k + 1; -1 in `own` drops nothing.

    >>> without(np.array([[3, 7, 5]]), np.array([[0.0, 0.0, 0.1]]), np.array([7]), 2)
    (array([[3, 5]]), array([[0. , 0.1]]))
    """
    other = (rows != own[:, None]) | (own[:, None] < 0)
    order = np.argsort(~other, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(other, order, axis=1)
    return (
        np.where(kept, np.take_along_axis(rows, order, axis=1), -1),
        np.where(kept, np.take_along_axis(distances, order, axis=1), np.inf),
    )
