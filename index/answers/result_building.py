"""Rows and distances -> results: variance scores, percentiles, match probabilities.

Shape letters: Q queries, K neighbours, N items, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index.answers.filters import Scalar
from index.answers.results import Neighbour, SearchResult
from index.answers.view import SearchIndex, View
from index.calibration.abstention import Rule, calibration_size, fit_rule
from index.calibration.match import MatchModel, fit_match
from index.calibration.neighbour_disagreement import NEIGHBOURS, Evidence
from index.distances import SIGNED
from index.gallery.store import Records
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import Floats, GaussianEmbedding
from vssl.errors import InputError

Doubles = NDArray[np.float64]
FIT_QUERIES = 1000  # items that search their own gallery when a match probability is fitted
FIT_NEIGHBOURS = 10
FIT_SHIFT = 0.2  # fitted again when this share of the gallery has changed


def variance_scores(items: Vectors, queries: GaussianEmbedding, found: NDArray[np.int64]) -> Doubles:
    """Return (Q, K): the share of the expected squared distance that is variance, 0..1.

    (sum s + sum v) / (|m - mu|^2 + sum s + sum v) for queries N(m, s) and found items N(mu, v), as
    they are compared. Entries for a row of -1 mean nothing.
    """
    scores = np.empty(found.shape)
    for q, rows in enumerate(np.maximum(found, 0)):
        apart = items.means(rows).astype(np.float64) - queries.mean[q]
        spread = items.variances(rows).sum(axis=1, dtype=np.float64)
        spread += queries.variance[q].sum(dtype=np.float64)
        scores[q] = spread / ((apart**2).sum(axis=1) + spread)
    return scores


def match_probabilities(
    match: MatchModel | None, view: View, distances: Doubles, found: NDArray[np.int64], uncertainty: Floats
) -> Doubles | None:
    """Return (Q, K) probabilities that a neighbour's label is the query's, or None without a fit."""
    if match is None:
        return None
    items = view.uncertainty[np.maximum(found, 0)].astype(np.float64)
    finite = np.where(found >= 0, distances, 0.0)
    return match.probability(finite, uncertainty[:, None].astype(np.float64), items)


def results(
    view: View,
    match: MatchModel | None,
    queries: GaussianEmbedding,
    asked: GaussianEmbedding,
    distances: Doubles,
    found: NDArray[np.int64],
    metadata: Mapping[int, dict[str, Scalar]],
    ranks: list[float | None] | None = None,
) -> list[SearchResult]:
    """Return what Q queries (as embedded, and as compared) found: places (Q, K) in the view, -1 for nothing.

    metadata: by row number, of items that have some. ranks: the queries' percentiles, counted in the view
    when None.
    """
    uncertainty = queries.uncertainty
    ranks = view.percentiles(uncertainty) if ranks is None else ranks
    probability = match_probabilities(match, view, distances, found, uncertainty)
    scores = variance_scores(view.items, asked, found)
    answers = []
    for q, (own, rank) in enumerate(zip(uncertainty.tolist(), ranks, strict=True)):
        neighbours = [
            Neighbour(
                view.ids[row],
                view.labels[row],
                view.paths[row],
                float(distances[q, j]),
                float(scores[q, j]),
                None if probability is None else float(probability[q, j]),
                float(view.uncertainty[row]),
                metadata.get(int(view.rows[row]), {}),
            )
            for j, row in enumerate(found[q].tolist())
            if row >= 0
        ]
        answers.append(SearchResult(own, rank, neighbours))
    return answers


def without_neighbours(view: View, queries: GaussianEmbedding) -> list[SearchResult]:
    """Return the answers to Q queries of which none may find anything."""
    uncertainty = queries.uncertainty
    ranks = view.percentiles(uncertainty)
    return [SearchResult(own, rank, []) for own, rank in zip(uncertainty.tolist(), ranks, strict=True)]


def left_out(
    view: View, exclude: Sequence[str | None], distances: Doubles, found: NDArray[np.int64], k: int
) -> tuple[Doubles, NDArray[np.int64]]:
    """Take one id a query out of (Q, K) and keep the nearest k of the rest."""
    own = np.array(
        [
            [row >= 0 and view.ids[row] == id_ for row in rows]
            for rows, id_ in zip(found.tolist(), exclude, strict=True)
        ],
        bool,
    ).reshape(found.shape)
    order = np.argsort(own, axis=1, kind="stable")[:, :k]
    kept = np.where(own, -1, found)
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(kept, order, axis=1)


class Matches:
    """The match calibrations of a gallery, one a distance: kept in its store, fitted when absent or old."""

    def __init__(self, records: Records, *, writable: bool) -> None:
        self._records = records
        self._writable = writable
        self._known: dict[str, MatchModel] = {}
        self._hopeless: dict[str, int] = {}

    def stored(self, distance: str) -> MatchModel | None:
        """Return what the store holds for a distance."""
        text = self._records.fact(f"match.{distance}")
        return MatchModel.from_json(text) if text else None

    def forget(self) -> None:
        """Fit anew at the next use: the gallery was compacted, or its constants changed."""
        self._known.clear()
        self._hopeless.clear()

    def of(self, view: View, index: SearchIndex, distance: str) -> MatchModel | None:
        """Return the calibration of a distance for this view, or None where none can be had."""
        constants = index.parameters.digest
        known = self._known.get(distance) or self.stored(distance)
        # A calibration of before constants were recorded has none, and is of the defaults.
        fits = known is not None and known.constants in ("", constants)
        if known is not None and fits and not _moved(view, known.rows, known.last_row):
            self._known[distance] = known
            return known
        if self._hopeless.get(distance) == view.generation:
            return None
        fitted = _fit(view, index)
        if fitted is None:
            self._hopeless[distance] = view.generation
            return None
        self._known[distance] = fitted
        if self._writable:
            self._records.note(f"match.{distance}", fitted.to_json())
        return fitted


def _moved(view: View, rows: int, last_row: int) -> bool:
    change = max(view.last_row - last_row, abs(view.count - rows))
    return change > FIT_SHIFT * rows


@dataclass(frozen=True, eq=False)
class Pairs:
    """What labelled items of a view find among the others: all (n, K), `use` says where there is a pair.

    same: the neighbour has the asking item's label; agree: the first neighbour's.
    """

    use: NDArray[np.bool_]
    distance: Doubles
    asked: Doubles
    item: Doubles
    same: NDArray[np.bool_]
    agree: NDArray[np.bool_]


def _own_pairs(view: View, index: SearchIndex, most: int, k: int) -> Pairs | None:
    """Let up to `most` labelled items search their own gallery, themselves left out; None below two."""
    labelled = view.alive & np.array([label is not None for label in view.labels], bool)
    members = np.flatnonzero(labelled)
    if len(members) < 2:
        return None
    asking = np.random.default_rng(0).permutation(members)[:most]
    wanted = min(k + 1, len(members))
    distances, found = index.search(view.items[asking], wanted, keep=None if labelled.all() else labelled)
    # Taken out by row, not by position: an exact copy may stand before the item itself.
    order = np.argsort(found == asking[:, None], axis=1, kind="stable")[:, : wanted - 1]
    distances, found = np.take_along_axis(distances, order, axis=1), np.take_along_axis(found, order, axis=1)
    _, codes = np.unique(np.array([label or "" for label in view.labels]), return_inverse=True)
    uncertainty = view.uncertainty.astype(np.float64)
    asked = np.broadcast_to(uncertainty[asking][:, None], found.shape)
    same, agree = codes[found] == codes[asking][:, None], codes[found] == codes[found[:, :1]]
    return Pairs(found >= 0, distances, asked, uncertainty[found], same, agree)


def own_rule(view: View, index: SearchIndex, max_risk: float) -> Rule:
    """Calibrate when to answer on labelled items that search their own gallery. InputError without them."""
    pairs = _own_pairs(view, index, calibration_size(view.count), NEIGHBOURS)
    if pairs is None:
        raise InputError(
            "the gallery has no labelled images to calibrate --max-risk on; extract them from IMAGES/CLASS/file.jpg"
        )
    use = pairs.use[:, 0]
    evidence = Evidence(pairs.asked[:, 0], pairs.distance, pairs.agree & pairs.use)
    return fit_rule(evidence[use], ~pairs.same[use, 0], max_risk, signed=index.name in SIGNED)


def _fit(view: View, index: SearchIndex) -> MatchModel | None:
    """Fit on what labelled items find."""
    pairs = _own_pairs(view, index, FIT_QUERIES, FIT_NEIGHBOURS)
    if pairs is None:
        return None
    use = pairs.use
    fitted = fit_match(
        pairs.distance[use], pairs.asked[use], pairs.item[use], pairs.same[use], signed=index.name in SIGNED
    )
    if fitted is None:
        return None
    return replace(
        fitted,
        generation=view.generation,
        rows=view.count,
        last_row=view.last_row,
        constants=index.parameters.digest,
    )
