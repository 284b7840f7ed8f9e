"""A gallery -> the images to label next: those the model is least sure of, those that differ most, those most typical.

Candidates are the images without a label; where every image has one, all of them.
Shape letters: N items, D embedding dimension, K neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from index.answers.results import Neighbourhood
from index.answers.validation import needs_variances
from index.arrays import Bools, Int64s
from index.gallery.protocol import Gallery
from vssl.embeddings.gaussian import Floats
from vssl.errors import InputError

STRATEGIES = ("uncertain", "diverse", "typical")
NEIGHBOURS = 20


@dataclass(frozen=True)
class NextToLabel:
    """One image to label; score is what it was chosen by.

    uncertain: its uncertainty. diverse: its distance to the nearest image that is labelled or was chosen before it,
    of means at length one. typical: the mean distance of its nearest twenty.
    """

    id: str
    path: str
    label: str | None
    uncertainty: float | None
    score: float


def select(gallery: Gallery, strategy: str, *, limit: int = 50) -> list[NextToLabel]:
    """Return the images to label next, the first one first.

    uncertain: the least sure. diverse: each as far as can be from all before it and from the labelled ones (the
    greedy core-set of Sener and Savarese, ICLR 2018). typical: where images lie densest, leaving out neighbours of
    what was chosen, so that each stands for a region of its own (in the spirit of TypiClust, Hacohen et al., ICML
    2022). Raises InputError for another strategy.
    """
    ways: dict[str, Callable[[Gallery, int], list[NextToLabel]]] = {
        "uncertain": _uncertain,
        "diverse": _diverse,
        "typical": _typical,
    }
    if strategy not in ways:
        raise InputError(f"strategy: found {strategy!r}, expected one of {', '.join(STRATEGIES)}")
    return ways[strategy](gallery, limit)


def _candidates(labels: list[str | None]) -> Bools:
    without = np.array([label is None for label in labels], bool)
    return without if without.any() else np.ones(len(labels), bool)


def _uncertain(gallery: Gallery, limit: int) -> list[NextToLabel]:
    needs_variances(gallery.place, gallery.card, "uncertainty")
    near = gallery.neighbourhood(0)
    unsure = near.uncertainty_or_zero
    rows = np.flatnonzero(_candidates(near.labels))
    order = rows[np.argsort(-unsure[rows], kind="stable")][:limit]
    return [_next(near, row, float(unsure[row])) for row in order.tolist()]


def _typical(gallery: Gallery, limit: int) -> list[NextToLabel]:
    near = gallery.neighbourhood(NEIGHBOURS)
    spread = near.graph.mean_distance
    rows = np.flatnonzero(_candidates(near.labels))
    order = rows[np.argsort(spread[rows], kind="stable")]
    chosen, passed = [], []
    covered = np.zeros(len(near), bool)
    for row in order.tolist():
        if covered[row]:
            passed.append(row)
            continue
        chosen.append(row)
        others = near.graph.rows[row]
        covered[others[others >= 0]] = True
        if len(chosen) == limit:
            break
    return [_next(near, row, float(spread[row])) for row in (chosen + passed)[:limit]]


def _diverse(gallery: Gallery, limit: int) -> list[NextToLabel]:
    items, _ = gallery.contents()
    if not len(items):
        return []
    means = items.gaussians.mean / np.maximum(
        np.linalg.norm(items.gaussians.mean, axis=1, keepdims=True), 1e-12
    )
    candidates = _candidates(items.labels)
    taken = np.flatnonzero(~candidates)
    near = gallery.neighbourhood(0)
    return [_next(near, row, score) for row, score in _farthest_first(means, candidates, taken, limit)]


def _farthest_first(
    means: Floats, candidates: Bools, taken: Int64s, limit: int
) -> Iterator[tuple[int, float]]:
    """Yield rows and their distance to the nearest taken one; without any, the most central one comes first."""
    far = np.full(len(means), np.inf, np.float32)
    for row in taken.tolist():
        np.minimum(far, 2.0 - 2.0 * (means @ means[row]), out=far)
    for _ in range(min(limit, int(candidates.sum()))):
        if np.isinf(far).all():
            row = int(np.where(candidates, means @ means.mean(axis=0), -np.inf).argmax())
            score = 0.0
        else:
            row = int(np.where(candidates, far, -1.0).argmax())
            score = float(np.sqrt(max(0.0, float(far[row]))))
        yield row, score
        np.minimum(far, 2.0 - 2.0 * (means @ means[row]), out=far)
        candidates = candidates.copy()
        candidates[row] = False


def _next(near: Neighbourhood, row: int, score: float) -> NextToLabel:
    return NextToLabel(*near.item(row), near.uncertainty_of(row), score)
