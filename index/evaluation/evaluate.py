"""A gallery and queries -> every metric that their labels and ids allow, with intervals.

With labels: k-NN accuracy, recall, mAP@R, and whether the uncertain queries are those whose
nearest neighbour is wrong. With ids that occur in the gallery in another form (the same images
corrupted): whether each finds itself. Always: hubness. A query whose own image is in
the gallery never finds that image in a labelled metric.

Shape letters: Q queries, K neighbours, N items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from index.answers.validation import distances_of, needs_variances
from index.arrays import Int64s
from index.distances import DistanceParameters, fit_prior
from index.distances.prior import UNFITTED_ALPHA
from index.evaluation.context import SHOWN, EvaluationContext, Settings, make_context
from index.evaluation.dataset import Dataset
from index.evaluation.knn_vote import WIDE
from index.evaluation.labelled import measure_labelled
from index.evaluation.ood import measure_one_class, measure_ood
from index.evaluation.report import MetricReport
from index.evaluation.robustness import measure_corruptions, measure_human
from index.metrics import retrieval, uncertainty
from index.search.exact import ExactIndex

__all__ = ["Settings", "SideData", "evaluate"]

SELECTIVE = (
    "r_auroc", "instance_r_auroc", "aurc", "e_aurc", "augrc", "ause", "risk_at_80", "uncertainty_mean"
)  # fmt: skip
DETECTION = ("ood_auroc", "ood_fpr95", "ood_auroc_likelihood", "ood_fpr95_likelihood", "one_class_likelihood")
READ_VARIANCE = frozenset({*SELECTIVE, *DETECTION, "uncertainty", "coverage_uncertainty", "risk_uncertainty"})
"""Metrics, and lines of curves, that means without variances do not have."""
COMPARED = 2000  # queries that every distance is compared on; some evaluate most of the gallery


@dataclass(frozen=True, eq=False)
class SideData:
    """Optional inputs of an evaluation, besides gallery and queries.

    ood: images from elsewhere; corrupted: corrupted forms of the queries; human: a file of people's votes.
    """

    ood: Dataset | None = None
    corrupted: Sequence[Dataset] = ()
    human: Path | None = None


def evaluate(
    gallery: Dataset,
    queries: Dataset,
    settings: Settings | None = None,
    side: SideData | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return the report as plain values: model, counts, settings, notes, curves and the flat `metrics`.

    progress: is called with what is measured next. Raises MismatchError for two models, InputError for an
    empty side.
    """
    settings, side = settings or Settings(), side or SideData()
    settings = replace(settings, k=min(settings.k, max(WIDE, len(gallery))))  # no more can vote
    progress(f"encoding {len(gallery):,} images of the gallery")
    context = make_context(gallery, queries, settings)
    known = gallery.card.has_variance
    report = MetricReport(settings.resamples, settings.seed, frozenset() if known else READ_VARIANCE)
    if not known:
        report.notes.append(f"{gallery.place} holds means without variances: what reads them is left out")
    if gallery.stale:
        report.notes.append(f"constants of the distances: {gallery.stale}")
    counts: dict[str, int] = {"gallery": len(gallery), "queries": len(queries), "classes": context.classes}
    counts["labelled_queries"] = len(context.labelled)
    counts["queries_in_gallery"] = int((context.own >= 0).sum())
    counts |= _measure(context, settings, side, report, progress)
    progress(f"intervals from {settings.resamples:,} resamples")
    return {
        "format": 1,
        "model_id": gallery.model_id,
        "model": gallery.card.name,
        "gallery": gallery.place,
        "queries": queries.place,
        "distance": context.index.name,
        "normalised": gallery.normalise,
        "k": settings.k,
        "temperature": settings.temperature,
        "seed": settings.seed,
        "resamples": settings.resamples,
        "leave_one_out": counts["queries_in_gallery"] > 0,
        "counts": counts,
        "chosen": report.chosen,
        "notes": report.notes,
        "metrics": report.flat(),
        "curves": report.curves,
    }


def _measure(
    context: EvaluationContext,
    settings: Settings,
    side: SideData,
    report: MetricReport,
    progress: Callable[[str], None],
) -> dict[str, int]:
    """Measure all that labels, ids, settings and side data allow; return further counts."""
    queries = context.queries
    counts: dict[str, int] = {}
    if len(context.labelled):
        progress(f"neighbours and votes of {len(context.labelled):,} labelled queries")
        counts |= measure_labelled(context, settings, report)
    else:
        report.notes.append(
            "no labels on both sides: k-NN accuracy, recall, mAP@R and R-AUROC need label folders "
            "(IMAGES/CLASS/file.jpg) at extraction"
        )
        asked = {"--one-class": settings.one_class, "--max-risk": settings.max_risk is not None}
        report.notes += [
            f"{option} needs these labels too: left out" for option, is_on in asked.items() if is_on
        ]
    progress(f"hubs among the neighbours of {len(queries):,} queries")
    counts["instance_queries"] = _instances(context, report)
    report.mean("uncertainty_mean", context.uncertainty)
    _hubs(context, context.index, np.arange(len(queries)), "hub", report)
    if settings.compare:
        progress(f"all {len(distances_of(context.gallery.card))} distances")
        counts["compared_queries"] = _compare(context, settings, report)
    if settings.one_class and len(context.labelled):
        progress("each class as the only normal one")
        counts["one_class_runs"] = measure_one_class(context, report)
    if side.ood is not None:
        counts["ood"] = measure_ood(context, side.ood, settings, report)
    if side.corrupted or side.human is not None:
        needs_variances(context.gallery.place, context.gallery.card, "uncertainty")
    if side.corrupted:
        counts["corrupted_pairs"] = measure_corruptions(queries, side.corrupted, report)
    if side.human is not None:
        counts["human_votes"] = measure_human(queries, side.human, report)
    return counts


def _instances(context: EvaluationContext, report: MetricReport) -> int:
    """Measure whether queries that are another form of a gallery image find that image."""
    which = np.flatnonzero(context.own >= 0)
    own = context.own[which]
    same = (context.queries.gaussians.mean[which] == context.gallery.gaussians.mean[own]).all(axis=1)
    which, own = which[~same], own[~same]
    if not len(which):
        return 0
    _, rows = context.index.search(context.query_gaussians[which], SHOWN)
    found = rows == own[:, None]
    for k in (1, 5, 10):
        report.mean(f"instance_recall_at_{k}", retrieval.hit_at(found, k))
    unsure = context.uncertainty[which]
    report.add("instance_r_auroc", lambda r: uncertainty.r_auroc(unsure[r], found[r, 0]), len(which))
    return len(which)


def _hubs(
    context: EvaluationContext, index: ExactIndex, which: Int64s, name: str, report: MetricReport
) -> None:
    """Measure how often the most frequent item is among the ten nearest, and the skewness of that.

    Drawing queries twice makes hubs by itself, so the interval of the first is that of the one
    item's count, and the interval of the second is drawn over items.
    """
    rows, _ = context.search(index, which, SHOWN, labelled=False)
    counts = retrieval.occurrences(rows, len(context.gallery))
    of_the_most = (rows == counts.argmax()).sum(axis=1)
    report.add(f"{name}_max", lambda queries: float(of_the_most[queries].sum()), len(rows))
    report.add(f"{name}_skew", lambda items: retrieval.skewness(counts[items]), len(counts))


def _compare(context: EvaluationContext, settings: Settings, report: MetricReport) -> int:
    """Measure recall@1 and hubs of every distance, with the gallery's constants.

    Where none were fitted, the prior of posterior is that of the gallery's labels.

    On 2,000 queries at most, drawn at random. Returns how many.
    """
    drawn = np.sort(np.random.default_rng(settings.seed).permutation(len(context.queries))[:COMPARED])
    which = np.intersect1d(drawn, context.labelled)
    most: dict[str, float] = {}
    prior = fit_prior(context.items, context.gallery.labels, DistanceParameters(alpha=UNFITTED_ALPHA))
    names = distances_of(context.gallery.card)
    for name in names:
        constants = context.gallery.constants.get(name, prior if name == "posterior" else None)
        index = ExactIndex.build(name, context.items, parameters=constants)
        if len(which):
            rows, _ = context.search(index, which, 1, labelled=True)
            right = context.codes(rows[:, 0]) == context.query_codes[which]
            report.mean(f"recall_at_1:{name}", right.astype(np.float64))
        _hubs(context, index, drawn, f"hub:{name}", report)
        most[name] = report.metrics[f"hub:{name}_max"].value
    hubs = [name for name in names if most[name] > 10 * most["cosine"]]
    if hubs:
        report.notes.append(
            f"hubs: {', '.join(hubs)} put one image among the ten nearest over ten times as often as cosine"
        )
    return len(drawn)
