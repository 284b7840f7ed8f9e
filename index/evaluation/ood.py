"""A gallery of known images -> how far out of its distribution other images are, by scores side by side.

Higher is further out. Predicted variance alone is no detector; nearness and likelihood are. Also the
one-class protocol, where every class of the gallery in turn is the only normal one.
Shape letters: Q queries, K neighbours, N items, D embedding dimension, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from index.arrays import Bools, Float64s, Int64s
from index.distances import DistanceParameters, gathered
from index.evaluation.context import EvaluationContext, Settings, own_rows
from index.evaluation.dataset import Dataset, check_together
from index.evaluation.report import MetricReport
from index.metrics.uncertainty import false_positives_at
from index.search.exact import ExactIndex
from index.search.neighbour_graph import leave_out_own
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.rank_statistics import auroc

NEAREST = 2  # as in mean-shifted contrastive learning's score (Reiss and Hoshen, 2021)
SHRINKAGE = 1e-2  # of a covariance towards a multiple of the identity


@dataclass(frozen=True, eq=False)
class OodScores:
    """How far out of distribution each query is, (Q,) each.

    knn: the mean cosine distance of the k nearest items; likelihood: minus the logarithm of the
    mean expected likelihood between the query and those items, which reads the variances;
    uncertainty: the query's own, which asks no gallery.
    """

    knn: Float64s
    likelihood: Float64s
    uncertainty: Float64s


def score(
    index: ExactIndex,
    queries: GaussianEmbedding,
    uncertainty: Float64s,
    *,
    k: int = NEAREST,
    own: Int64s | None = None,
    keep: Bools | None = None,
    parameters: DistanceParameters | None = None,
) -> OodScores:
    """Score queries (as compared) against an index by cosine, each query's `own` row left out."""
    itself = np.full(len(queries), -1, np.int64) if own is None else own
    k = min(k, len(index.items))
    distances, rows = index.search(queries, k + 1, keep=keep)
    distances, rows = leave_out_own(distances, rows, itself, k)
    there = rows >= 0
    found = np.maximum(there.sum(axis=1), 1)
    knn = np.where(there.any(axis=1), np.where(there, distances, 0.0).sum(axis=1) / found, np.inf)
    likelihood = -gathered("mls", queries, index.items, rows, parameters)
    return OodScores(knn, -_log_mean(likelihood, found), uncertainty)


def _log_mean(logarithms: Float64s, counts: Int64s) -> Float64s:
    """Return ln of the mean of exp, over the last axis; missing ones are minus infinity."""
    highest = logarithms.max(axis=1, keepdims=True)
    shift = np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore"):
        mean: Float64s = np.log(np.exp(logarithms - shift).sum(axis=1) / counts) + shift[:, 0]
    return mean


def mahalanobis(items: GaussianEmbedding, codes: Int64s, queries: GaussianEmbedding) -> Float64s:
    """Return (Q,): the distance to the nearest class mean under the classes' shared covariance.

    codes (N,) number the classes, -1 unknown; without classes all items are one (Lee et al.,
    NeurIPS 2018). The covariance of the means is shrunk by a hundredth towards the identity.
    """
    mean = items.mean.astype(np.float64)
    codes = codes if (codes >= 0).any() else np.zeros(len(items), np.int64)
    mean, codes = mean[codes >= 0], codes[codes >= 0]
    _, numbers = np.unique(codes, return_inverse=True)
    counts = np.bincount(numbers)
    centres = np.zeros((len(counts), mean.shape[1]))
    np.add.at(centres, numbers, mean)
    centres /= counts[:, None]
    residual = mean - centres[numbers]
    covariance = residual.T @ residual / max(1, len(mean) - len(counts))
    size = max(float(np.trace(covariance)) / len(covariance), 1e-12)
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * size * np.eye(len(covariance))
    root = np.linalg.inv(np.linalg.cholesky(covariance))
    white, targets = queries.mean.astype(np.float64) @ root.T, centres @ root.T
    squares = (white**2).sum(axis=1)[:, None] - 2 * white @ targets.T + (targets**2).sum(axis=1)
    distance: Float64s = np.sqrt(np.maximum(squares.min(axis=1), 0.0))
    return distance


def measure_ood(context: EvaluationContext, ood: Dataset, settings: Settings, report: MetricReport) -> int:
    """Measure AUROC and FPR95 of images from elsewhere against the queries; return their number.

    `ood_auroc` is by uncertainty alone; `_knn`, `_likelihood` and `_mahalanobis` ask
    the gallery. FPR95 is the share of queries taken for such where 95 % of those from elsewhere are.
    """
    check_together(context.gallery, ood)
    other = context.gallery.as_compared(ood.gaussians)
    sides = (
        (context.query_gaussians, context.uncertainty, context.own),
        (other, ood.gaussians.uncertainty.astype(np.float64), own_rows(context.gallery, ood)),
    )
    inside, outside = (
        score(context.control, queries, unsure, k=settings.k, own=own) for queries, unsure, own in sides
    )
    lines: dict[str, tuple[Float64s, Float64s]] = {
        "": (inside.uncertainty, outside.uncertainty),
        "_knn": (inside.knn, outside.knn),
        "_likelihood": (inside.likelihood, outside.likelihood),
    }
    distances = [mahalanobis(context.items, context.gallery_codes, side[0]) for side in sides]
    lines["_mahalanobis"] = distances[0], distances[1]
    positive = np.arange(len(context.query_gaussians) + len(other)) >= len(context.query_gaussians)
    for name, parts in lines.items():
        values = np.concatenate(parts)
        report.add(f"ood_auroc{name}", lambda r, v=values: auroc(v[r], positive[r]), len(values))  # type: ignore[misc]
        report.add(
            f"ood_fpr95{name}",
            lambda r, v=values: false_positives_at(v[r], positive[r]),  # type: ignore[misc]
            len(values),
        )
    return len(other)


def measure_one_class(context: EvaluationContext, report: MetricReport) -> int:
    """Measure, for each class of the gallery as the only normal one, AUROC of all labelled queries.

    `one_class_knn` and `one_class_likelihood` are the means over classes, and each class is given
    as `one_class_knn:NAME`. A gallery of a single class gives one run. Returns the runs.
    """
    which = context.labelled
    truth, own = context.query_codes[which], context.own[which]
    names = {
        code: label
        for code, label in zip(context.gallery_codes.tolist(), context.gallery.labels, strict=True)
        if label
    }
    runs: dict[int, OodScores] = {}
    for code in sorted(names):
        anomalous = truth != code
        if not 0 < anomalous.sum() < len(truth):
            report.notes.append(f"one-class {names[code]}: needs queries inside and outside of the class")
            continue
        keep = context.gallery_codes == code
        runs[code] = score(
            context.control, context.query_gaussians[which], context.uncertainty[which], own=own, keep=keep
        )
    if not runs:
        return 0
    for kind in ("knn", "likelihood"):

        def mean(rows: Int64s, kind: str = kind) -> float:
            return float(np.mean([auroc(getattr(s, kind)[rows], truth[rows] != c) for c, s in runs.items()]))

        report.add(f"one_class_{kind}", mean, len(truth))
        for code, scores in runs.items():
            values = getattr(scores, kind)
            report.add(
                f"one_class_{kind}:{names[code]}",
                lambda r, v=values, c=code: auroc(v[r], truth[r] != c),  # type: ignore[misc]
                len(truth),
            )
    return len(runs)


def rank_anomalies(gallery: Dataset, queries: Dataset, *, k: int = NEAREST) -> list[dict[str, Any]]:
    """Return for each query its id, scores, and their percentiles among the gallery's own images.

    The gallery's images (a thousand of them at most) are scored against the others, so a
    percentile of 99 means: further out than 99 in 100 normal images.
    """
    check_together(gallery, queries)
    items = gallery.as_compared(gallery.gaussians)
    index = ExactIndex.build("cosine", items)
    compared = gallery.as_compared(queries.gaussians)
    unsure = queries.gaussians.uncertainty.astype(np.float64)
    found = score(index, compared, unsure, k=k, own=own_rows(gallery, queries))
    members = np.random.default_rng(0).permutation(len(items))[:1000]
    normal = score(index, items[members], np.zeros(len(members)), k=k, own=members)
    ranks = {
        kind: _percentiles(getattr(normal, kind), getattr(found, kind)) for kind in ("knn", "likelihood")
    }
    columns: dict[str, Any] = {"id": queries.ids, "knn": found.knn, "knn_percentile": ranks["knn"]}
    if gallery.card.has_variance:
        columns |= {"likelihood": found.likelihood, "likelihood_percentile": ranks["likelihood"]}
        columns["uncertainty"] = unsure
    columns = {name: np.asarray(column).tolist() for name, column in columns.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _percentiles(reference: Float64s, values: Float64s) -> Float64s:
    percentiles: Float64s = 100.0 * np.searchsorted(np.sort(reference), values) / len(reference)
    return percentiles
