"""Labelled queries -> retrieval, and whether the uncertain ones are the wrong ones.

Shape letters: Q queries, K neighbours, N items, C classes.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from index.calibration.abstention import calibration_size, fit_rule
from index.calibration.neighbour_disagreement import NEIGHBOURS, Evidence
from index.distances import SIGNED
from index.evaluation.context import SHOWN, Doubles, Rows, Setting, Settings
from index.evaluation.knn_vote import WIDE, measure_votes
from index.evaluation.report import Measures
from index.metrics import calibration, retrieval, uncertainty

Bools = NDArray[np.bool_]
MAP_BUDGET = 1_000_000  # neighbours ranked for mAP@R; more queries than fit are sampled


def measure_labelled(setting: Setting, settings: Settings, measures: Measures) -> dict[str, int]:
    """Measure what needs labels; return further counts."""
    which = setting.labelled
    truth = setting.query_codes[which]
    rows, distances = setting.search(setting.control, which, max(WIDE, settings.k), labelled=True)
    measure_votes(setting, settings, which, rows, distances, measures)
    if setting.index is not setting.control:
        measures.mean("cosine_recall_at_1", (setting.codes(rows[:, 0]) == truth).astype(np.float64))
        wanted = SHOWN if settings.max_risk is None else max(SHOWN, NEIGHBOURS)
        rows, distances = setting.search(setting.index, which, wanted, labelled=True)
    relevant = setting.codes(rows[:, :SHOWN]) == truth[:, None]
    for k in (1, 5, 10):
        measures.mean(f"recall_at_{k}", retrieval.hit_at(relevant, k))
    totals = _totals(setting, which)
    sampled = _mean_average_precision(setting, which, totals, settings, measures)
    _selective(setting, which, relevant[:, 0], distances[:, 0], measures)
    if setting.gallery.match is not None and setting.index.name == setting.gallery.distance:
        _match(setting, which, rows[:, :SHOWN], distances[:, :SHOWN], relevant, measures)
    if settings.max_risk is not None:
        found = rows[:, :NEIGHBOURS], distances[:, :NEIGHBOURS]
        _abstain(setting, settings, which, found, settings.max_risk, measures)
    return {"queries_without_relevant": int((totals == 0).sum()), "map_queries": sampled}


def _totals(setting: Setting, which: Rows) -> Rows:
    """Return how many items are relevant to each query, its own image aside."""
    sizes = np.bincount(setting.gallery_codes[setting.gallery_codes >= 0], minlength=setting.classes)
    own = setting.own[which]
    itself = (own >= 0) & (setting.gallery_codes[own] == setting.query_codes[which])
    totals: Rows = sizes[setting.query_codes[which]] - itself
    return totals


def _mean_average_precision(
    setting: Setting, which: Rows, totals: Rows, settings: Settings, measures: Measures
) -> int:
    """Measure mAP@R on as many queries as the budget of ranked neighbours allows."""
    asking = np.flatnonzero(totals > 0)
    if not len(asking):
        return 0
    fits = max(1, MAP_BUDGET // int(totals.max()))
    if fits < len(asking):
        asking = np.sort(np.random.default_rng(settings.seed).permutation(asking)[:fits])
        measures.notes.append(f"map_at_r: measured on {fits} queries drawn at random")
    rows, _ = setting.search(setting.index, which[asking], int(totals[asking].max()), labelled=True)
    relevant = setting.codes(rows) == setting.query_codes[which[asking]][:, None]
    measures.mean("map_at_r", retrieval.average_precision_at_r(relevant, totals[asking]))
    return len(asking)


def _selective(setting: Setting, which: Rows, correct: Bools, distance: Doubles, measures: Measures) -> None:
    """Measure how well the uncertainty, and what competes with it, knows which answers are wrong."""
    unsure = setting.uncertainty[which]
    norm = np.linalg.norm(setting.queries.gaussians.mean[which].astype(np.float64), axis=1)
    error, count = (~correct).astype(np.float64), len(which)
    measures.add("r_auroc", lambda r: uncertainty.r_auroc(unsure[r], correct[r]), count)
    measures.add("r_auroc_norm", lambda r: uncertainty.r_auroc(-norm[r], correct[r]), count)
    measures.add("r_auroc_distance", lambda r: uncertainty.r_auroc(distance[r], correct[r]), count)
    measures.add("aurc", lambda r: uncertainty.aurc(unsure[r], error[r]), count)
    measures.add("aurc_distance", lambda r: uncertainty.aurc(distance[r], error[r]), count)
    measures.add("e_aurc", lambda r: uncertainty.e_aurc(unsure[r], error[r]), count)
    measures.add("augrc", lambda r: uncertainty.augrc(unsure[r], error[r]), count)
    measures.add("ause", lambda r: uncertainty.ause(unsure[r], error[r]), count)
    measures.add("risk_at_80", lambda r: uncertainty.risk_at(unsure[r], error[r], 0.8), count)
    measures.curve(
        "risk_coverage",
        {
            "uncertainty": uncertainty.selective_risk(unsure, error),
            "distance": uncertainty.selective_risk(distance, error),
            "norm": uncertainty.selective_risk(-norm, error),
            "oracle": uncertainty.selective_risk(error, error),
        },
    )


def _match(
    setting: Setting, which: Rows, rows: Rows, distances: Doubles, relevant: Bools, measures: Measures
) -> None:
    """Measure the calibration of match probabilities on the neighbours that were retrieved."""
    probability = _probability(setting, setting.uncertainty[which], rows, distances)
    if probability is None or (rows < 0).any():
        measures.notes.append(f"ece: fewer than {SHOWN} neighbours a query")
        return
    measures.calibration("ece", probability, relevant)
    measures.mean("match_brier", ((probability - relevant) ** 2).mean(axis=1))
    measures.mean("match_prevalence", relevant.mean(axis=1))
    predicted, observed, share = calibration.reliability(probability.ravel(), relevant.ravel())
    measures.curve("reliability", {"predicted": predicted, "observed": observed, "share": share})


def _probability(setting: Setting, unsure: Doubles, rows: Rows, distances: Doubles) -> Doubles | None:
    """Return the match probabilities of found rows, of the shape of `rows`."""
    if setting.gallery.match is None:
        return None
    items = setting.gallery.gaussians.uncertainty.astype(np.float64)[np.maximum(rows, 0)]
    asked = unsure.reshape(-1, *([1] * (rows.ndim - 1)))
    return setting.gallery.match.probability(np.where(rows >= 0, distances, 0.0), asked, items)


def _abstain(
    setting: Setting,
    settings: Settings,
    which: Rows,
    found: tuple[Rows, Doubles],
    max_risk: float,
    measures: Measures,
) -> None:
    """Fit thresholds on the gallery's own images and measure risk and coverage on the queries."""
    most = calibration_size(len(setting.gallery_codes))
    asking, rows, distances = setting.among_itself(NEIGHBOURS, settings.seed, control=False, most=most)
    wrong = setting.codes(rows[:, 0]) != setting.gallery_codes[asking]
    unsure = setting.gallery.gaussians.uncertainty.astype(np.float64)[asking]
    signed = setting.index.name in SIGNED
    rule = fit_rule(_evidence(setting, unsure, rows, distances), wrong, max_risk, signed=signed)
    scores = rule.scores(_evidence(setting, setting.uncertainty[which], *found))
    correct = setting.codes(found[0][:, 0]) == setting.query_codes[which]
    for name, threshold in rule.thresholds.items():
        _answered(name, threshold.accepts(scores[name]), correct, measures)
    best = rule.best
    _answered("best", best.accepts(scores[best.score]), correct, measures)
    measures.chosen["abstention"] = asdict(best) if best.coverage else None
    measures.notes.append(
        f"abstention at risk {max_risk:g}: answers when {best.score} <= {best.threshold:.6g}, "
        f"which answers {best.coverage:.0%} of {rule.counted} images of the gallery"
    )


def _evidence(setting: Setting, unsure: Doubles, rows: Rows, distances: Doubles) -> Evidence:
    codes = setting.codes(rows)
    return Evidence(unsure, distances, (codes == codes[:, :1]) & (rows >= 0))


def _answered(name: str, taken: Bools, correct: Bools, measures: Measures) -> None:
    measures.mean(f"coverage_{name}", taken.astype(np.float64))
    if taken.any():
        measures.mean(f"risk_{name}", (~correct[taken]).astype(np.float64))
