"""Labelled queries -> retrieval, and whether the uncertain ones are the wrong ones.

Shape letters: Q queries, K neighbours, N items, C classes.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from index.arrays import Bools, Float64s, Int64s
from index.calibration.abstention import NEIGHBOURS, AbstentionInputs, fit_rule
from index.calibration.holdout import calibration_size
from index.calibration.risk import CLUSTERED, FEWEST, FIT_QUERIES, fit_risk
from index.distances import SIGNED
from index.evaluation.context import SHOWN, EvaluationContext, Settings
from index.evaluation.knn_vote import WIDE, measure_votes
from index.evaluation.report import MetricReport
from index.metrics import calibration, retrieval, uncertainty
from index.search.vectors import Vectors

MAP_BUDGET = 1_000_000  # neighbours ranked for mAP@R; more queries than fit are sampled


def measure_labelled(context: EvaluationContext, settings: Settings, report: MetricReport) -> dict[str, int]:
    """Measure what needs labels; return further counts."""
    which = context.labelled
    truth = context.query_codes[which]
    rows, distances = context.search(context.control, which, max(WIDE, settings.k), labelled=True)
    measure_votes(context, settings, which, rows, distances, report)
    if context.index is not context.control:
        report.mean("cosine_recall_at_1", (context.codes(rows[:, 0]) == truth).astype(np.float64))
        rows, distances = context.search(context.index, which, NEIGHBOURS, labelled=True)
    relevant = context.codes(rows[:, :SHOWN]) == truth[:, None]
    for k in (1, 5, 10):
        report.mean(f"recall_at_{k}", retrieval.hit_at(relevant, k))
    totals = _totals(context, which)
    sampled = _mean_average_precision(context, which, totals, settings, report)
    found = rows[:, :NEIGHBOURS], distances[:, :NEIGHBOURS]
    _selective(context, which, relevant[:, 0], distances[:, 0], report)
    _risk(context, settings, which, found, relevant[:, 0], report)
    if context.gallery.match is not None and context.index.name == context.gallery.distance:
        _match(context, which, found, relevant, report)
    if settings.max_risk is not None:
        _abstain(context, settings, which, found, settings.max_risk, report)
    return {"queries_without_relevant": int((totals == 0).sum()), "map_queries": sampled}


def _totals(context: EvaluationContext, which: Int64s) -> Int64s:
    """Return how many items are relevant to each query, its own image aside."""
    sizes = np.bincount(context.gallery_codes[context.gallery_codes >= 0], minlength=context.classes)
    own = context.own[which]
    itself = (own >= 0) & (context.gallery_codes[own] == context.query_codes[which])
    totals: Int64s = sizes[context.query_codes[which]] - itself
    return totals


def _mean_average_precision(
    context: EvaluationContext, which: Int64s, totals: Int64s, settings: Settings, report: MetricReport
) -> int:
    """Measure mAP@R on as many queries as the budget of ranked neighbours allows."""
    asking = np.flatnonzero(totals > 0)
    if not len(asking):
        return 0
    fits = max(1, MAP_BUDGET // int(totals.max()))
    if fits < len(asking):
        asking = np.sort(np.random.default_rng(settings.seed).permutation(asking)[:fits])
        report.notes.append(f"map_at_r: measured on {fits} queries drawn at random")
    rows, _ = context.search(context.index, which[asking], int(totals[asking].max()), labelled=True)
    relevant = context.codes(rows) == context.query_codes[which[asking]][:, None]
    report.mean("map_at_r", retrieval.average_precision_at_r(relevant, totals[asking]))
    return len(asking)


def _selective(
    context: EvaluationContext, which: Int64s, correct: Bools, distance: Float64s, report: MetricReport
) -> None:
    """Measure how well the uncertainty, and what competes with it, knows which answers are wrong."""
    unsure = context.uncertainty[which]
    norm = np.linalg.norm(context.queries.gaussians.mean[which].astype(np.float64), axis=1)
    error, count = (~correct).astype(np.float64), len(which)
    report.add("r_auroc", lambda r: uncertainty.r_auroc(unsure[r], correct[r]), count)
    report.add("r_auroc_norm", lambda r: uncertainty.r_auroc(-norm[r], correct[r]), count)
    report.add("r_auroc_distance", lambda r: uncertainty.r_auroc(distance[r], correct[r]), count)
    report.add("aurc", lambda r: uncertainty.aurc(unsure[r], error[r]), count)
    report.add("aurc_distance", lambda r: uncertainty.aurc(distance[r], error[r]), count)
    report.add("e_aurc", lambda r: uncertainty.e_aurc(unsure[r], error[r]), count)
    report.add("augrc", lambda r: uncertainty.augrc(unsure[r], error[r]), count)
    report.add("ause", lambda r: uncertainty.ause(unsure[r], error[r]), count)
    report.add("risk_at_80", lambda r: uncertainty.risk_at(unsure[r], error[r], 0.8), count)
    report.curve(
        "risk_coverage",
        {
            "uncertainty": uncertainty.selective_risk(unsure, error),
            "distance": uncertainty.selective_risk(distance, error),
            "norm": uncertainty.selective_risk(-norm, error),
            "oracle": uncertainty.selective_risk(error, error),
        },
    )


def _risk(
    context: EvaluationContext,
    settings: Settings,
    which: Int64s,
    found: tuple[Int64s, Float64s],
    correct: Bools,
    report: MetricReport,
) -> None:
    """Measure how well distance, uncertainty and dissent joined know which answers are wrong."""
    asking, rows, distances = context.among_itself(NEIGHBOURS, settings.seed, control=False, most=FIT_QUERIES)
    items, own = Vectors(context.items), context.gallery.gaussians.uncertainty
    drawn = np.random.default_rng(settings.seed).permutation(len(items))[:CLUSTERED]
    signed = context.index.name in SIGNED
    model = fit_risk(items.means(drawn), items, distances, rows, own[asking], own, signed=signed)
    if model is None:
        report.notes.append(f"r_auroc_risk: fewer than {FEWEST} images in the gallery")
        return
    unsure = context.queries.gaussians.uncertainty[which]
    risk = model.scores(items, found[1], found[0], unsure, own)
    report.add("r_auroc_risk", lambda r: uncertainty.r_auroc(risk[r], correct[r]), len(which))


def _match(
    context: EvaluationContext,
    which: Int64s,
    found: tuple[Int64s, Float64s],
    relevant: Bools,
    report: MetricReport,
) -> None:
    """Measure the calibration of match probabilities on the neighbours that were retrieved."""
    rows, distances = found
    match = context.gallery.match
    if match is None or (rows[:, :SHOWN] < 0).any() or rows.shape[1] < SHOWN:
        report.notes.append(f"ece: fewer than {SHOWN} neighbours a query")
        return
    items = context.gallery.gaussians.uncertainty.astype(np.float64)[np.maximum(rows, 0)]
    query, finite = context.uncertainty[which][:, None], np.where(rows >= 0, distances, 0.0)
    heard = match.votes(distances, context.codes(rows))
    probability = match.probability(finite, query, items, heard)[:, :SHOWN]
    nearest, correct = probability[:, 0], relevant[:, 0]
    report.add("r_auroc_match", lambda r: uncertainty.r_auroc(-nearest[r], correct[r]), len(which))
    report.calibration("ece", probability, relevant)
    report.mean("match_brier", ((probability - relevant) ** 2).mean(axis=1))
    report.mean("match_prevalence", relevant.mean(axis=1))
    predicted, observed, share = calibration.reliability(probability.ravel(), relevant.ravel())
    report.curve("reliability", {"predicted": predicted, "observed": observed, "share": share})


def _abstain(
    context: EvaluationContext,
    settings: Settings,
    which: Int64s,
    found: tuple[Int64s, Float64s],
    max_risk: float,
    report: MetricReport,
) -> None:
    """Fit thresholds on the gallery's own images and measure risk and coverage on the queries."""
    most = calibration_size(len(context.gallery_codes))
    asking, rows, distances = context.among_itself(NEIGHBOURS, settings.seed, control=False, most=most)
    wrong = context.codes(rows[:, 0]) != context.gallery_codes[asking]
    unsure = context.gallery.gaussians.uncertainty.astype(np.float64)[asking]
    signed = context.index.name in SIGNED
    rule = fit_rule(_inputs(context, unsure, rows, distances), wrong, max_risk, signed=signed)
    scores = rule.scores(_inputs(context, context.uncertainty[which], *found))
    correct = context.codes(found[0][:, 0]) == context.query_codes[which]
    for name, threshold in rule.thresholds.items():
        _answered(name, threshold.accepts(scores[name]), correct, report)
    best = rule.best
    _answered("best", best.accepts(scores[best.score]), correct, report)
    report.chosen["abstention"] = asdict(best) if best.coverage else None
    report.notes.append(
        f"abstention: {rule.describe()}"
        + (f", when {best.score} <= {best.threshold:.6g}" if best.coverage else "")
    )


def _inputs(
    context: EvaluationContext, unsure: Float64s, rows: Int64s, distances: Float64s
) -> AbstentionInputs:
    codes = context.codes(rows)
    return AbstentionInputs(unsure, distances, (codes == codes[:, :1]) & (rows >= 0))


def _answered(name: str, taken: Bools, correct: Bools, report: MetricReport) -> None:
    report.mean(f"coverage_{name}", taken.astype(np.float64))
    if taken.any():
        report.mean(f"risk_{name}", (~correct[taken]).astype(np.float64))
