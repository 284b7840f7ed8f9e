"""Rows and distances -> results: variance scores, percentiles, match probabilities, whether to abstain.

Shape letters: Q queries, K neighbours, N items, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from index.answers.filters import Scalar
from index.answers.results import Neighbour, SearchResult
from index.answers.view import View
from index.arrays import Float64s, Int64s
from index.calibration.abstention import NEIGHBOURS, AbstentionInputs, AbstentionRule
from index.calibration.match import MatchModel
from index.calibration.risk import RiskModel
from index.metrics.vote import class_codes
from index.search.neighbour_graph import leave_out_own
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import Floats, GaussianEmbedding

Metadata = Mapping[int, dict[str, Scalar]]


def variance_scores(items: Vectors, queries: GaussianEmbedding, found: Int64s) -> Float64s:
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
    match: MatchModel | None, view: View, distances: Float64s, found: Int64s, uncertainty: Floats
) -> Float64s | None:
    """Return (Q, K) probabilities that a neighbour's label is the query's, or None without a fit.

    found: VOTERS or more of each query, where there are so many: they say something of each other.
    """
    if match is None:
        return None
    labels = [view.labels[row] if row >= 0 else None for row in found.ravel().tolist()]
    heard = match.votes(distances, class_codes(labels).reshape(found.shape))
    items = view.uncertainty[np.maximum(found, 0)].astype(np.float64)
    finite = np.where(found >= 0, distances, 0.0)
    return match.probability(finite, uncertainty[:, None].astype(np.float64), items, heard)


def results(
    view: View,
    probability: Float64s | None,
    queries: GaussianEmbedding,
    compared: GaussianEmbedding,
    distances: Float64s,
    found: Int64s,
    *,
    percentiles: Sequence[float | None] | None = None,
    metadata: Metadata | None = None,
    risks: Sequence[float | None] | None = None,
) -> list[SearchResult]:
    """Return what Q queries (as embedded, and as compared) found: positions in the view (Q, K), -1 for nothing.

    probability: as `match_probabilities` returns it, of the first K or more.
    percentiles: of the queries' uncertainty, counted in the view when None. metadata: by row number,
    of items that have some. risks: of the queries, none when None.
    """
    uncertainty = queries.uncertainty
    ranks = view.percentiles(uncertainty) if percentiles is None else percentiles
    known = metadata or {}
    scores = variance_scores(view.items, compared, found)
    answers = []
    risks = [None] * len(queries) if risks is None else risks
    for q, (own, rank, risk) in enumerate(zip(uncertainty.tolist(), ranks, risks, strict=True)):
        neighbours = [
            Neighbour(
                view.ids[row],
                view.labels[row],
                view.paths[row],
                float(distances[q, j]),
                float(scores[q, j]),
                None if probability is None else float(probability[q, j]),
                float(view.uncertainty[row]),
                known.get(int(view.rows[row]), {}),
            )
            for j, row in enumerate(found[q].tolist())
            if row >= 0
        ]
        answers.append(SearchResult(own, rank, neighbours, risk if neighbours else None))
    return answers


def risks(
    model: RiskModel | None, view: View, queries: GaussianEmbedding, distances: Float64s, found: Int64s
) -> Sequence[float | None]:
    """Return the risk of Q answers (Q, K) of NEIGHBOURS or more, None without a calibration."""
    if model is None:
        return [None] * len(queries)
    uncertainty = queries.uncertainty, view.uncertainty
    found_risks: list[float | None] = model.risk(view.items, distances, found, *uncertainty).tolist()
    return found_risks


def without_neighbours(
    queries: GaussianEmbedding, percentiles: Sequence[float | None], max_risk: float | None = None
) -> list[SearchResult]:
    """Return the answers to Q queries of which none may find anything: at any risk one abstains from them."""
    spread, abstain = queries.uncertainty.tolist(), None if max_risk is None else True
    return [
        SearchResult(own, rank, [], abstain=abstain) for own, rank in zip(spread, percentiles, strict=True)
    ]


def excluded_rows(view: View, exclude: Sequence[str | None], found: Int64s) -> Int64s:
    """Return (Q,): the found position (Q, K) whose item has the id that a query leaves out, -1 for none."""
    return np.array(
        [
            next((row for row in rows if row >= 0 and view.ids[row] == id_), -1)
            for rows, id_ in zip(found.tolist(), exclude, strict=True)
        ],
        np.int64,
    )


def without_excluded(
    view: View, exclude: Sequence[str | None], distances: Float64s, found: Int64s, k: int
) -> tuple[Float64s, Int64s]:
    """Take one id a query out of (Q, K) and keep the nearest k of the rest."""
    return leave_out_own(distances, found, excluded_rows(view, exclude, found), k)


def abstention_inputs(results: Sequence[SearchResult]) -> AbstentionInputs:
    """Return what the labelled neighbours that were found say, up to NEIGHBOURS of each of n queries."""
    size = (len(results), NEIGHBOURS)
    distance, agree = np.full(size, np.inf), np.zeros(size, np.bool_)
    for row, result in enumerate(results):
        found = [one for one in result.neighbours if one.label is not None][:NEIGHBOURS]
        distance[row, : len(found)] = [one.distance for one in found]
        agree[row, : len(found)] = [one.label == found[0].label for one in found]
    return AbstentionInputs(np.array([one.uncertainty or 0.0 for one in results]), distance, agree)


def with_abstention(results: Sequence[SearchResult], rule: AbstentionRule, k: int) -> list[SearchResult]:
    """Return results of NEIGHBOURS or more neighbours with at most k, and whether to abstain from each."""
    abstains = rule.abstains(abstention_inputs(results)).tolist()
    return [
        replace(result, neighbours=result.neighbours[:k], abstain=abstain)
        for result, abstain in zip(results, abstains, strict=True)
    ]
