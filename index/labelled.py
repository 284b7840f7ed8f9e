"""Labelled queries -> accuracy, retrieval, and whether the uncertain ones are the wrong ones.

Shape letters: Q queries, K neighbours, N items, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from index.abstention import fit_abstention, widest
from index.measure import Measures
from index.metrics import calibration, retrieval, uncertainty
from index.neighbours import in_top, votes, without
from index.setting import SHOWN, Doubles, Rows, Setting, Settings
from index.weighting import WEIGHTINGS, Ballot, ballot, fit_temperature, log_weights, probabilities

Bools = NDArray[np.bool_]
WIDE = 200  # the second k of the k-NN vote, for comparison with published figures
MAP_BUDGET = 1_000_000  # neighbours ranked for mAP@R; more queries than fit are sampled
FITTED_ON = 4000  # gallery images that ask one another when something is fitted


def measure_labelled(setting: Setting, settings: Settings, measures: Measures) -> dict[str, int]:
    """Measure what needs labels; return further counts."""
    which = setting.labelled
    truth = setting.query_codes[which]
    rows, distances = setting.search(setting.control, which, max(WIDE, settings.k), labelled=True)
    _vote(setting, settings, truth, rows, distances, measures)
    _weighted_votes(setting, settings, which, rows[:, : settings.k], distances[:, : settings.k], measures)
    if setting.index is not setting.control:
        measures.mean("cosine_recall_at_1", (setting.codes(rows[:, 0]) == truth).astype(np.float64))
        rows, distances = setting.search(setting.index, which, SHOWN, labelled=True)
    relevant = setting.codes(rows[:, :SHOWN]) == truth[:, None]
    for k in (1, 5, 10):
        measures.mean(f"recall_at_{k}", retrieval.hit_at(relevant, k))
    totals = _totals(setting, which)
    sampled = _mean_average_precision(setting, which, totals, settings, measures)
    _selective(setting, which, relevant[:, 0], distances[:, 0], measures)
    if setting.gallery.match is not None and setting.index.name == setting.gallery.distance:
        _match(setting, which, rows[:, :SHOWN], distances[:, :SHOWN], relevant, measures)
    if settings.max_risk is not None:
        _abstain(setting, settings, which, relevant[:, 0], distances[:, 0], settings.max_risk, measures)
    return {"queries_without_relevant": int((totals == 0).sum()), "map_queries": sampled}


def _vote(
    setting: Setting, settings: Settings, truth: Rows, rows: Rows, distances: Doubles, measures: Measures
) -> None:
    codes = setting.codes(rows)
    for name, k in (("knn", settings.k), (f"knn{WIDE}", WIDE)):
        shares = votes(codes[:, :k], (1.0 - distances[:, :k]) / settings.temperature, setting.classes)
        first = in_top(shares, truth, 1)
        measures.mean(f"{name}_top1", first.astype(np.float64))
        measures.mean(f"{name}_top5", in_top(shares, truth, min(5, k)).astype(np.float64))
        if k == settings.k:
            _calibrated(measures, "knn_ece", shares.max(axis=1)[:, None], first[:, None])


def _own_gallery(
    setting: Setting, settings: Settings, k: int, *, control: bool
) -> tuple[Rows, Rows, Doubles]:
    """Let labelled gallery images ask one another: who asks (n,), rows and distances (n, K)."""
    known = setting.gallery_codes >= 0
    members = np.flatnonzero(known)
    asking = np.sort(np.random.default_rng(settings.seed).permutation(members)[:FITTED_ON])
    index = setting.control if control else setting.index
    distances, rows = index.search(setting.items[asking], k + 1, keep=None if known.all() else known)
    return asking, *without(rows, distances, asking, k)


def _weighted_votes(
    setting: Setting, settings: Settings, which: Rows, rows: Rows, distances: Doubles, measures: Measures
) -> None:
    """Measure every weighting at the temperature that the gallery's own images fit."""
    asking, own_rows, own_distances = _own_gallery(setting, settings, rows.shape[1], control=True)
    fit = ballot(setting.items[asking], setting.items, setting.gallery_codes, own_rows, 1 - own_distances)
    test = ballot(setting.asked[which], setting.items, setting.gallery_codes, rows, 1 - distances)
    truth = setting.query_codes[which]
    for kind in WEIGHTINGS:
        temperature = fit_temperature(kind, fit, setting.gallery_codes[asking], setting.classes)
        shares = _shares(kind, test, temperature, setting.classes)
        first = in_top(shares, truth, 1)
        name = kind.replace("-", "_")
        measures.mean(f"knn_top1_{name}", first.astype(np.float64))
        _calibrated(measures, f"knn_ece_{name}", shares.max(axis=1)[:, None], first[:, None])


def _shares(kind: str, ballot: Ballot, temperature: float, classes: int) -> Doubles:
    shares = votes(ballot.codes, log_weights(kind, ballot, temperature), classes)
    return probabilities(shares, ballot.codes.shape[1])


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
    _calibrated(measures, "ece", probability, relevant)
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
    correct: Bools,
    distance: Doubles,
    max_risk: float,
    measures: Measures,
) -> None:
    """Fit thresholds on the gallery's own images and measure risk and coverage on the queries."""
    asking, rows, own_distances = _own_gallery(setting, settings, 1, control=False)
    wrong = setting.codes(rows[:, 0]) != setting.gallery_codes[asking]
    unsure = setting.gallery.gaussians.uncertainty.astype(np.float64)[asking]
    known = np.stack([unsure, own_distances[:, 0]], axis=1)
    asked = np.stack([setting.uncertainty[which], distance], axis=1)
    # One half says how to join the two scores, the other is left to calibrate thresholds on.
    direction = _discriminant(known[::2], wrong[::2])
    fit, test = (
        {"uncertainty": part[:, 0], "distance": part[:, 1], "both": _logarithms(part) @ direction}
        for part in (known[1::2], asked)
    )
    wrong = wrong[1::2]
    fitted = fit_abstention(fit, wrong, max_risk)
    chosen = widest(fitted)
    for name, rule in fitted.items():
        taken = rule.accepts(test[name])
        measures.mean(f"coverage_{name}", taken.astype(np.float64))
        if taken.any():
            measures.mean(f"risk_{name}", (~correct[taken]).astype(np.float64))
    measures.notes.append(
        f"abstention at risk {max_risk:g}: answers when {chosen.score} <= {chosen.threshold:.6g}, "
        f"which answers {chosen.coverage:.0%} of {len(wrong)} images of the gallery"
    )


def _logarithms(scores: Doubles) -> Doubles:
    logarithms: Doubles = np.log(np.maximum(scores, 1e-12))
    return logarithms


def _discriminant(scores: Doubles, wrong: Bools) -> Doubles:
    """Return the direction (2,) in the logarithms of scores (n, 2) that tells wrong from right best."""
    values = _logarithms(scores)
    if not 0 < wrong.sum() < len(wrong):
        return np.array([0.0, 1.0])
    groups = values[wrong], values[~wrong]
    within = np.concatenate([group - group.mean(axis=0) for group in groups])
    spread = within.T @ within / len(within) + 1e-9 * np.eye(2)
    return np.linalg.solve(spread, groups[0].mean(axis=0) - groups[1].mean(axis=0))


def _calibrated(measures: Measures, name: str, probability: Doubles, outcome: Bools) -> None:
    """Measure the calibration error of (Q, K) probabilities, resampling whole queries."""

    def error(rows: Rows) -> float:
        return calibration.ece(probability[rows].ravel(), outcome[rows].ravel())

    measures.add(name, error, len(probability))
