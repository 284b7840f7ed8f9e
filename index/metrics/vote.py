"""Labels as numbers, and the class of a query by the weighted vote of its neighbours.

The usual vote of self-supervised methods: each of the k nearest by cosine counts exp(cos / T), k = 20 or
200, T = 0.07 (Wu et al. 2018; Caron et al. 2021).
Shape letters: Q queries, K neighbours, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.arrays import Bools, Float64s, Int64s

TEMPERATURE = 0.07


def class_codes(labels: Sequence[str | None]) -> Int64s:
    """Number the labels in alphabetical order, -1 where there is none, (N,).

    >>> class_codes(["dog", None, "cat", "dog"])
    array([ 1, -1,  0,  1])
    """
    code = {name: number for number, name in enumerate(sorted({x for x in labels if x is not None}))}
    return np.array([-1 if label is None else code[label] for label in labels], np.int64)


def votes(codes: Int64s, log_weights: Float64s, classes: int) -> Float64s:
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
    shares: Float64s = totals / np.maximum(sums, 1.0)  # at least 1 wherever a neighbour is there
    return shares


def in_top(shares: Float64s, truth: Int64s, count: int) -> Bools:
    """Say for each query whether its class is among the `count` with the largest shares.

    A class without any vote is never among them; equal shares go to the lower class.

    >>> in_top(np.array([[0.6, 0.4, 0.0]]), np.array([1]), 1), in_top(np.array([[0.6, 0.4, 0.0]]), np.array([1]), 2)
    (array([False]), array([ True]))
    """
    own = np.take_along_axis(shares, truth[:, None], axis=1)
    before = (shares == own) & (np.arange(shares.shape[1]) < truth[:, None])
    rank = ((shares > own) | before).sum(axis=1)
    found: Bools = (rank < count) & (own[:, 0] > 0) & (truth >= 0)
    return found
