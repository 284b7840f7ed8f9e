"""A gallery -> pairs of images that may show the same, and how probable that is.

Shape letters: N items, K neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from index.arrays import Float64s, Int64s
from index.gallery.protocol import Gallery

COPIES = 4  # neighbours of an item that may be its copies
OTHERS = 16  # neighbours after those, whose mean distance is the item's local scale
LOW, MIDDLE = 0.1, 0.5  # quantiles that the law of ordinary neighbours is laid through
BIN = 0.25  # width of a bin of the density of log closeness, in distances between those quantiles
BINS = 2000  # at most
FEWEST = 200  # nearest neighbours that a density needs
TINY = 1e-12


@dataclass(frozen=True)
class Duplicate:
    """Two images that may show the same.

    distance: of their whitened means by cosine (of the means themselves where the gallery is too small to
    whiten). closeness: the root of that distance in units of the same for either's fifth to
    twentieth neighbours; a copy lies at 0, ordinary neighbours near 1. separation: mean squared
    difference in units of its own variance. probability: that the pair is closer than ordinary
    neighbours are.
    """

    id: str
    other: str
    path: str
    other_path: str
    label: str | None
    other_label: str | None
    distance: float
    closeness: float
    separation: float
    probability: float


def duplicates(gallery: Gallery, *, limit: int = 100, least: float = 0.5) -> list[Duplicate]:
    """Return the pairs most likely to show the same, closest first.

    Pairs are neighbours in the whitened space, ordered by their closeness. least: leave out pairs
    of a smaller probability.
    """
    near = gallery.neighbourhood(COPIES + OTHERS, white=True)
    if len(near) < 2:
        return []
    graph = near.graph
    apart = np.sqrt(np.maximum(graph.distances, 0.0))  # rounding may bring a copy below zero
    scale = _local_scale(apart)
    rows = np.repeat(np.arange(len(near)), COPIES)
    others = graph.rows[:, :COPIES].ravel()
    there = others >= 0
    distance, separation = graph.distances[:, :COPIES].ravel(), graph.separation[:, :COPIES].ravel()
    closeness = np.full(len(rows), np.inf)
    closeness[there] = _closeness(apart[:, :COPIES].ravel()[there], scale[rows[there]], scale[others[there]])
    first, second = np.minimum(rows, others), np.maximum(rows, others)
    _, unique = np.unique(first * len(near) + second, return_index=True)
    unique = unique[first[unique] >= 0]
    unique = unique[np.argsort(closeness[unique], kind="stable")]
    probability = same_probability(closeness[::COPIES], closeness[unique])
    found = []
    for i, p in zip(unique[:limit].tolist(), probability[:limit].tolist(), strict=True):
        if p >= least:
            (id_, path, label), (other, its_path, its_label) = near.item(first[i]), near.item(second[i])
            apart_by = float(distance[i]), float(closeness[i]), float(separation[i])
            found.append(Duplicate(id_, other, path, its_path, label, its_label, *apart_by, p))
    return found


def _local_scale(apart: Float64s) -> Float64s:
    """Return (N,): the mean over an item's further neighbours, over all it has where those are few."""
    further = apart[:, COPIES:] if np.isfinite(apart[:, COPIES:]).any(axis=1).all() else apart
    there = np.isfinite(further)
    mean: Float64s = np.where(there, further, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return mean


def _closeness(apart: Float64s, first: Float64s, second: Float64s) -> Float64s:
    return np.asarray(apart / np.maximum(np.sqrt(first * second), TINY))


def same_probability(nearest: Float64s, closeness: Float64s) -> Float64s:
    """Return the probability that pairs of a `closeness` are closer than ordinary neighbours.

    One minus the local false discovery rate (Efron 2004): how many nearest neighbours (N,) lie
    where ordinary ones would, over how many lie there. The distance of the nearest of many points
    follows Weibull's law, whose logarithm falls off towards zero as exp(m x) with m the dimension
    the points fill, and not as steeply as a normal curve; it is laid through the tenth and the
    fiftieth hundredth of the neighbours, below which copies hardly reach. The ratio is made to rise
    with the closeness. Fewer than 200 neighbours allow no estimate: a pair is then a copy (1) or
    not (0).
    """
    logs = np.sort(np.log(nearest[np.isfinite(nearest)] + TINY))
    if len(logs) < FEWEST:
        return (closeness < math.sqrt(TINY)).astype(np.float64)
    low, middle = np.quantile(logs, [LOW, MIDDLE]).tolist()
    at_low, at_middle = (math.log(-math.log1p(-q)) for q in (LOW, MIDDLE))
    slope = (at_middle - at_low) / max(middle - low, TINY)
    place = middle - at_middle / slope
    width = max(BIN * (middle - low), (logs[-1] - logs[0]) / BINS, TINY)
    edges = np.append(np.arange(logs[0], logs[-1] + width, width), np.inf)
    there = np.diff(np.searchsorted(logs, edges, side="left"))
    # Below the lowest neighbour lies what ordinary ones would add to the lowest bin.
    reached = -np.expm1(-np.exp(np.clip(slope * (np.append(-np.inf, edges[1:]) - place), -700, 700)))
    expected = np.diff(reached) * len(logs)
    # One standard deviation more than expected: a lone pair at the edge is no discovery.
    ordinary = np.minimum(1.0, (expected + np.sqrt(expected)) / np.maximum(there, 1))
    ordinary = _rising(ordinary, there)
    at = np.clip(np.searchsorted(edges, np.log(closeness + TINY), side="right") - 1, 0, len(ordinary) - 1)
    probability: Float64s = 1.0 - ordinary[at]
    return probability


def _rising(values: Float64s, weights: Int64s) -> Float64s:
    """Return the nearest rising sequence (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        block = (value, float(max(weight, 1)), 1)
        while blocks and blocks[-1][0] > block[0]:
            last = blocks.pop()
            total = last[1] + block[1]
            block = ((last[0] * last[1] + block[0] * block[1]) / total, total, last[2] + block[2])
        blocks.append(block)
    return np.repeat([b[0] for b in blocks], [b[2] for b in blocks])
