"""A gallery -> what a person should look at: near-duplicates, doubtful images, outliers, doubtful labels.

Shape letters: N items, K neighbours.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.gallery.gallery import Gallery
from index.search.neighbour_graph import TINY, Neighbourhood
from vssl.errors import InputError

Doubles = NDArray[np.float64]
COPIES = 4  # neighbours of an item that may be its copies
OTHERS = 16  # neighbours after those, whose distance is the scale of the item's surroundings
VOTERS = 20
TEMPERATURE = 0.07
LOW, MIDDLE = 0.1, 0.5  # quantiles that the law of ordinary neighbours is laid through
BIN = 0.25  # width of a bin of the density of log closeness, in distances between those quantiles
BINS = 2000  # at most
FEWEST = 200  # nearest neighbours that a density needs


@dataclass(frozen=True)
class Duplicate:
    """Two images that may show the same.

    distance: of their whitened means by cosine (by the gallery's own where that is too small to
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


@dataclass(frozen=True)
class Doubtful:
    """One image by its uncertainty; percentile: the share of the gallery that is surer, 0..100."""

    id: str
    path: str
    label: str | None
    uncertainty: float
    percentile: float


@dataclass(frozen=True)
class Outlier:
    """One image far from the others: mean distance to its nearest ten; percentile: share nearer, 0..100."""

    id: str
    path: str
    label: str | None
    distance: float
    percentile: float
    uncertainty: float


@dataclass(frozen=True)
class Suspect:
    """One image whose neighbours say another label.

    suggested, share: the label that most of the vote goes to, and its share of it; own_share: the
    vote of its own label; score: how much the first outweighs the second, times how sure the
    image is.
    """

    id: str
    path: str
    label: str
    suggested: str
    share: float
    own_share: float
    uncertainty: float
    score: float


def duplicates(gallery: Gallery, *, limit: int = 100, least: float = 0.5) -> list[Duplicate]:
    """Return the pairs most likely to show the same, closest first.

    Pairs are neighbours in the whitened space, ordered by their closeness. least: leave out pairs
    of a smaller probability.
    """
    near = gallery.neighbourhood(COPIES + OTHERS, white=True)
    if len(near) < 2:
        return []
    apart = np.sqrt(np.maximum(near.distances - min(0.0, float(near.distances.min())), 0.0))
    scale = _surroundings(apart)
    rows = np.repeat(np.arange(len(near)), COPIES)
    others = near.rows[:, :COPIES].ravel()
    there = others >= 0
    distance, separation = near.distances[:, :COPIES].ravel(), near.separation[:, :COPIES].ravel()
    closeness = np.full(len(rows), np.inf)
    closeness[there] = _closeness(apart[:, :COPIES].ravel()[there], scale[rows[there]], scale[others[there]])
    first, second = np.minimum(rows, others), np.maximum(rows, others)
    _, unique = np.unique(first * len(near) + second, return_index=True)
    unique = unique[first[unique] >= 0]
    unique = unique[np.argsort(closeness[unique], kind="stable")]
    probability = same_probability(closeness[::COPIES], closeness[unique])
    return [
        Duplicate(
            near.ids[first[i]],
            near.ids[second[i]],
            near.paths[first[i]],
            near.paths[second[i]],
            near.labels[first[i]],
            near.labels[second[i]],
            float(distance[i]),
            float(closeness[i]),
            float(separation[i]),
            float(p),
        )
        for i, p in zip(unique[:limit].tolist(), probability[:limit].tolist(), strict=True)
        if p >= least
    ]


def _surroundings(apart: Doubles) -> Doubles:
    """Return (N,): the mean over an item's further neighbours, over all it has where those are few."""
    further = apart[:, COPIES:] if np.isfinite(apart[:, COPIES:]).any(axis=1).all() else apart
    there = np.isfinite(further)
    mean: Doubles = np.where(there, further, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return mean


def _closeness(apart: Doubles, first: Doubles, second: Doubles) -> Doubles:
    return np.asarray(apart / np.maximum(np.sqrt(first * second), TINY))


def same_probability(nearest: Doubles, asked: Doubles) -> Doubles:
    """Return the probability that pairs of closeness `asked` are closer than ordinary neighbours.

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
        return (asked < math.sqrt(TINY)).astype(np.float64)
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
    at = np.clip(np.searchsorted(edges, np.log(asked + TINY), side="right") - 1, 0, len(ordinary) - 1)
    probability: Doubles = 1.0 - ordinary[at]
    return probability


def _rising(values: Doubles, weights: NDArray[np.int64]) -> Doubles:
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


def doubtful(gallery: Gallery, *, limit: int = 100, surest: bool = False) -> list[Doubtful]:
    """Return the least certain images, or the surest, most extreme first."""
    near = gallery.neighbourhood(0)
    order = np.argsort(near.uncertainty, kind="stable")
    ranks = np.searchsorted(near.uncertainty[order], near.uncertainty, side="left")
    chosen = order[:limit] if surest else order[::-1][:limit]
    return [
        Doubtful(
            near.ids[i],
            near.paths[i],
            near.labels[i],
            float(near.uncertainty[i]),
            100.0 * ranks[i] / len(near),
        )
        for i in chosen.tolist()
    ]


def outliers(gallery: Gallery, *, limit: int = 100, k: int = 10) -> list[Outlier]:
    """Return the images farthest from their `k` nearest others, farthest first."""
    near = gallery.neighbourhood(k)
    there = near.rows >= 0
    distance = np.where(there, near.distances, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    order = np.argsort(distance, kind="stable")
    ranks = np.empty(len(near))
    ranks[order] = np.arange(len(near))
    return [
        Outlier(
            near.ids[i],
            near.paths[i],
            near.labels[i],
            float(distance[i]),
            float(100.0 * ranks[i] / len(near)),
            float(near.uncertainty[i]),
        )
        for i in order[::-1][:limit].tolist()
    ]


def suspects(gallery: Gallery, *, limit: int = 100, k: int = VOTERS) -> list[Suspect]:
    """Return the images whose label their neighbours doubt most.

    Each of the k nearest others votes for its label with weight exp(-distance / 0.07), scaled by
    the nearest, times its certainty. Neighbours are those by the gallery's distance or those in the
    whitened space, whichever bear out more of the labels. Raises InputError for a gallery without
    labels.
    """
    best: list[Suspect] = []
    agreed = -1
    for white in (False, True):
        near = gallery.neighbourhood(k, white=white)
        if not any(near.labels):
            raise InputError("this gallery has no labels; extract images from class folders to have some")
        found = [_suspect(near, row) for row in range(len(near)) if near.labels[row] is not None]
        voted = [s for s in found if s is not None]
        doubted = [s for s in voted if s.suggested != s.label]
        if len(voted) - len(doubted) > agreed:
            best, agreed = doubted, len(voted) - len(doubted)
    return sorted(best, key=lambda s: -s.score)[:limit]


def _suspect(near: Neighbourhood, row: int) -> Suspect | None:
    vote: defaultdict[str, float] = defaultdict(float)
    nearest = near.distances[row, 0]
    for other, distance in zip(near.rows[row].tolist(), near.distances[row].tolist(), strict=True):
        label = near.labels[other] if other >= 0 else None
        if label is not None:
            certain = 1.0 - float(near.uncertainty[other])
            vote[label] += math.exp(-(distance - nearest) / TEMPERATURE) * certain
    total = sum(vote.values())
    label = near.labels[row]
    if not total or label is None:
        return None
    suggested = max(vote, key=lambda name: vote[name])
    share, own = vote[suggested] / total, vote[label] / total
    uncertainty = float(near.uncertainty[row])
    score = (share - own) * (1.0 - uncertainty)
    return Suspect(near.ids[row], near.paths[row], label, suggested, share, own, uncertainty, score)
