"""Labels -> rows to query with and rows to search, so that a choice is judged on images it did not see.

There are two groups of queries: one while constants are fitted, the other when distances are judged;
neither is ever searched. Everything is drawn once and small, so the cost does not grow with the gallery.
Shape letters: Q queries, N items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.arrays import Bools, Int64s
from index.metrics.vote import class_codes
from vssl.errors import InputError

JUDGING, FITTING = 500, 150  # queries, at most
SEARCHED, FIT_SEARCHED = 2000, 1000  # rows that are searched, at most
FULL_DIM = 256  # dimensions beyond which fewer rows are searched: every pair costs as many operations
MATES = 4  # rows of the class of each query are searched, where there are so many
PRIOR_ROWS = 20_000  # that the prior of `posterior` is estimated from
LEAST, MOST = 4000, 10_000  # items that calibrate an abstention
WORK = 500_000_000  # comparisons of a query with an item that a calibration may take


def calibration_size(items: int) -> int:
    """Return how many items of a gallery should search it: 10,000, fewer where there are over 50,000, at least 4,000.

    >>> calibration_size(100_000)
    5000
    """
    return min(MOST, max(LEAST, WORK // max(1, items)))


@dataclass(frozen=True, eq=False)
class Split:
    """Rows to query with (Q,), rows to search (N,), and which of those are right (Q, N)."""

    queries: Int64s
    searched: Int64s
    relevant: Bools


def split(labels: Sequence[str | None], *, seed: int = 0, fit: bool = False, dim: int = 0) -> Split:
    """Draw the rows that judge, or (`fit`) those that constants are fitted on.

    Up to a quarter of the labelled rows are queries, 500 to judge and 150 to fit; 2,000 (1,000) of the
    others are searched, some of the class of each query first, then any; fewer, down to a quarter,
    where the embeddings have more than 256 dimensions (`dim`). Raises InputError where fewer than two
    queries would find a row of their class.
    """
    codes = class_codes(labels)
    judging, fitting, pool = _drawn(codes, seed)
    queries = fitting if fit else judging
    searched = _mates_first(codes, queries, pool)[: searched_count(FIT_SEARCHED if fit else SEARCHED, dim)]
    relevant = codes[queries][:, None] == codes[searched][None, :]
    useful = relevant.any(axis=1)
    if useful.sum() < 2:
        raise InputError(
            "found no two images that share a label; to compare distances, give labels "
            "(IMAGES/CLASS/file.jpg) or several views an image"
        )
    return Split(queries[useful], searched, relevant[useful])


def unjudged(labels: Sequence[str | None], *, seed: int = 0) -> Int64s:
    """Return labelled rows that do not judge, 20,000 at most, as evenly over the classes as they allow."""
    codes = class_codes(labels)
    rows = np.concatenate(_drawn(codes, seed)[1:])
    if len(rows) <= PRIOR_ROWS:
        return rows
    _, own, place = _places(codes, rows)
    share = max(2, PRIOR_ROWS // (int(own.max()) + 1))  # a class of one says nothing of its spread
    kept = np.flatnonzero(place < share)
    return rows[kept[np.argsort(own[kept], kind="stable")][:PRIOR_ROWS]]


def searched_count(most: int, dim: int) -> int:
    """Return how many rows to search when that is the most and they have `dim` dimensions."""
    return most if dim <= FULL_DIM else max(most // 4, most * FULL_DIM // dim)


def _drawn(codes: Int64s, seed: int) -> tuple[Int64s, Int64s, Int64s]:
    """Return the rows that judge, those that fit, and those that are never queries."""
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(codes >= 0))
    share = max(len(drawn) // 4, min(len(drawn) // 3, 1))
    first, second = min(JUDGING, share), min(JUDGING, share) + min(FITTING, share)
    return drawn[:first], drawn[first:second], drawn[second:]


def _mates_first(codes: Int64s, queries: Int64s, pool: Int64s) -> Int64s:
    """Return the pool, a few of the class of each query first: of many small classes few would be drawn."""
    _, _, place = _places(codes, pool)
    mate = (place < MATES) & np.isin(codes[pool], codes[queries])
    return np.concatenate([pool[mate], pool[~mate]])


def _places(codes: Int64s, rows: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """Return the classes, each row's class in their order of appearance, and its place in its class."""
    classes, first, own = np.unique(codes[rows], return_index=True, return_inverse=True)
    own = np.argsort(np.argsort(first))[own]
    order = np.argsort(own, kind="stable")
    counts = np.bincount(own, minlength=len(classes))
    place = np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return classes, own, place
