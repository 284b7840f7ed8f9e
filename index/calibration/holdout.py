"""Labels -> rows that ask and rows that answer, so that a choice is judged on images it did not see.

Two groups ask: one while constants are fitted, the other when distances are judged; neither
ever answers. Everything is drawn once and small, so the cost does not grow with the gallery.
Shape letters: Q queries, N items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.arrays import Bools, Int64s
from index.metrics.vote import class_codes
from vssl.errors import InputError

JUDGES, FITTERS = 500, 150  # rows that ask, at most
ANSWERING, FIT_ANSWERING = 2000, 1000  # rows that answer, at most
FULL_DIM = 256  # dimensions beyond which fewer rows answer: every pair costs as many operations
MATES = 4  # of the class of each who asks are among those who answer, where there are so many
PRIOR_ROWS = 20_000  # that the prior of `posterior` is estimated from


@dataclass(frozen=True, eq=False)
class Split:
    """Int64s that ask and rows that answer, and which answers are right (Q, N)."""

    asking: Int64s
    answering: Int64s
    relevant: Bools


def split(labels: Sequence[str | None], *, seed: int = 0, fit: bool = False, dim: int = 0) -> Split:
    """Draw the rows that judge, or (`fit`) those that constants are fitted on.

    Up to a quarter of the labelled rows ask, 500 to judge and 150 to fit; 2,000 (1,000) of those
    that never ask answer, some of the class of each who asks first, then any; fewer, down to a
    quarter, where the embeddings have more than 256 dimensions (`dim`). Raises InputError where
    fewer than two queries would have an answer.
    """
    codes = class_codes(labels)
    judges, fitters, pool = _drawn(codes, seed)
    asking = fitters if fit else judges
    answering = _answering(codes, asking, pool)[: answers(FIT_ANSWERING if fit else ANSWERING, dim)]
    relevant = codes[asking][:, None] == codes[answering][None, :]
    useful = relevant.any(axis=1)
    if useful.sum() < 2:
        raise InputError(
            "found no two images that share a label; to compare distances, give labels "
            "(IMAGES/CLASS/file.jpg) or several views an image"
        )
    return Split(asking[useful], answering, relevant[useful])


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


def answers(most: int, dim: int) -> int:
    """Return how many rows may answer when that is the most and they have `dim` dimensions."""
    return most if dim <= FULL_DIM else max(most // 4, most * FULL_DIM // dim)


def _drawn(codes: Int64s, seed: int) -> tuple[Int64s, Int64s, Int64s]:
    """Return the rows that judge, those that fit, and those that never ask."""
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(codes >= 0))
    share = max(len(drawn) // 4, min(len(drawn) // 3, 1))
    first, second = min(JUDGES, share), min(JUDGES, share) + min(FITTERS, share)
    return drawn[:first], drawn[first:second], drawn[second:]


def _answering(codes: Int64s, asking: Int64s, pool: Int64s) -> Int64s:
    """Return the pool, a few of each asked class first: of many small classes few would be drawn."""
    _, _, place = _places(codes, pool)
    mate = (place < MATES) & np.isin(codes[pool], codes[asking])
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
