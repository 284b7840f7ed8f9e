"""A gallery and queries -> every metric that their labels and ids allow, with intervals.

With labels: k-NN accuracy, recall, mAP@R, and whether the uncertain queries are those whose
nearest neighbour is wrong. With ids that occur in the gallery in another form (the same images
under a disturbance): whether each finds itself. Always: hubness. A query whose own image is in
the gallery never finds that image in a labelled metric.

Shape letters: Q queries, K neighbours, N items, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.corpus import Corpus, check_together
from index.exact import ExactIndex
from index.measure import Measures
from index.metrics import calibration, retrieval, uncertainty
from index.neighbours import TEMPERATURE, in_top, votes, without
from vssl.errors import InputError

Rows = NDArray[np.int64]
Doubles = NDArray[np.float64]
WIDE = 200  # the second k of the k-NN vote, for comparison with published figures
SHOWN = 10  # neighbours that recall, hubness and match probability look at
MAP_BUDGET = 1_000_000  # neighbours ranked for mAP@R; more queries than fit are sampled


@dataclass(frozen=True)
class Settings:
    """What an evaluation may be asked; distance None is the gallery's own."""

    k: int = 20
    temperature: float = TEMPERATURE
    distance: str | None = None
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 1 or self.resamples < 1 or not self.temperature > 0:
            raise InputError(
                f"found k = {self.k}, {self.resamples} resamples, temperature {self.temperature}; "
                "expected positive numbers"
            )


@dataclass(frozen=True, eq=False)
class Setting:
    """Both sides as arrays: classes (-1 unknown), each query's own row (-1 none), the indexes."""

    gallery: Corpus
    queries: Corpus
    gallery_codes: Rows
    query_codes: Rows
    classes: int
    own: Rows
    control: ExactIndex
    index: ExactIndex


def evaluate(gallery: Corpus, queries: Corpus, settings: Settings | None = None) -> dict[str, Any]:
    """Return the report as plain values: model, counts, settings, notes and the flat `metrics`.

    Raises MismatchError for two models, InputError for an empty side.
    """
    settings = settings or Settings()
    check_together(gallery, queries)
    setting = _arrange(gallery, queries, settings)
    measures = Measures(settings.resamples, settings.seed)
    counts: dict[str, int] = {"gallery": len(gallery), "queries": len(queries), "classes": setting.classes}
    labelled = np.flatnonzero(setting.query_codes >= 0)
    counts["labelled_queries"], counts["queries_in_gallery"] = len(labelled), int((setting.own >= 0).sum())
    if len(labelled) and (setting.gallery_codes >= 0).any():
        counts |= _labelled(setting, labelled, settings, measures)
    else:
        measures.notes.append(
            "no labels on both sides: k-NN accuracy, recall, mAP@R and R-AUROC need label folders "
            "(IMAGES/CLASS/file.jpg) at extraction"
        )
    counts["instance_queries"] = _instances(setting, measures)
    _hubs(setting, measures)
    return {
        "format": 1,
        "model_id": gallery.model_id,
        "model": gallery.card.name,
        "gallery": str(gallery.path),
        "queries": str(queries.path),
        "distance": setting.index.name,
        "normalised": gallery.normalise,
        "k": settings.k,
        "temperature": settings.temperature,
        "seed": settings.seed,
        "resamples": settings.resamples,
        "leave_one_out": counts["queries_in_gallery"] > 0,
        "counts": counts,
        "notes": measures.notes,
        "metrics": measures.flat(),
    }


def _arrange(gallery: Corpus, queries: Corpus, settings: Settings) -> Setting:
    names = sorted({label for label in gallery.labels + queries.labels if label is not None})
    code: dict[str | None, int] = {name: number for number, name in enumerate(names)}
    row = {id_: number for number, id_ in enumerate(gallery.ids)}
    compared = gallery.compared
    control = ExactIndex.build("cosine", compared)
    name = settings.distance or gallery.distance
    return Setting(
        gallery,
        queries,
        np.array([code.get(label, -1) for label in gallery.labels], np.int64),
        np.array([code.get(label, -1) for label in queries.labels], np.int64),
        len(names),
        np.array([row.get(id_, -1) for id_ in queries.ids], np.int64),
        control,
        control if name == "cosine" else ExactIndex.build(name, compared),
    )


def _search(
    setting: Setting, index: ExactIndex, which: Rows, k: int, *, labelled: bool
) -> tuple[Rows, Doubles]:
    """Return the k nearest others of some queries, among labelled items only if asked."""
    compared = setting.queries.gaussians[which]
    if setting.gallery.normalise:
        compared = compared.normalised()
    known = setting.gallery_codes >= 0
    distances, rows = index.search(compared, k + 1, keep=known if labelled and not known.all() else None)
    return without(rows, distances, setting.own[which], k)


def _labelled(setting: Setting, which: Rows, settings: Settings, measures: Measures) -> dict[str, int]:
    """Measure what needs labels, on the labelled queries `which`; return further counts."""
    truth = setting.query_codes[which]
    rows, distances = _search(setting, setting.control, which, max(WIDE, settings.k), labelled=True)
    codes = np.where(rows >= 0, setting.gallery_codes[rows], -1)
    for name, k in (("knn", settings.k), (f"knn{WIDE}", WIDE)):
        shares = votes(codes[:, :k], (1.0 - distances[:, :k]) / settings.temperature, setting.classes)
        first = in_top(shares, truth, 1)
        measures.mean(f"{name}_top1", first.astype(np.float64))
        measures.mean(f"{name}_top5", in_top(shares, truth, min(5, k)).astype(np.float64))
        if k == settings.k:
            _calibrated(measures, "knn_ece", shares.max(axis=1)[:, None], first[:, None])
    if setting.index is not setting.control:
        measures.mean("cosine_recall_at_1", (codes[:, 0] == truth).astype(np.float64))
        rows, distances = _search(setting, setting.index, which, SHOWN, labelled=True)
        codes = np.where(rows >= 0, setting.gallery_codes[rows], -1)
    relevant = codes[:, :SHOWN] == truth[:, None]
    for k in (1, 5, 10):
        measures.mean(f"recall_at_{k}", retrieval.hit_at(relevant, k))
    totals = _totals(setting, which)
    sampled = _mean_average_precision(setting, which, totals, settings, measures)
    _selective(setting, which, relevant[:, 0], distances[:, 0], measures)
    if setting.gallery.match is not None and setting.index.name == setting.gallery.distance:
        _match(setting, which, rows[:, :SHOWN], distances[:, :SHOWN], relevant, measures)
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
    rows, _ = _search(setting, setting.index, which[asking], int(totals[asking].max()), labelled=True)
    codes = np.where(rows >= 0, setting.gallery_codes[rows], -1)
    relevant = codes == setting.query_codes[which[asking]][:, None]
    measures.mean("map_at_r", retrieval.average_precision_at_r(relevant, totals[asking]))
    return len(asking)


def _selective(
    setting: Setting, which: Rows, correct: NDArray[np.bool_], distance: Doubles, measures: Measures
) -> None:
    """Measure how well the uncertainty, and what competes with it, knows which answers are wrong."""
    unsure = setting.queries.gaussians.uncertainty[which].astype(np.float64)
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


def _match(
    setting: Setting,
    which: Rows,
    rows: Rows,
    distances: Doubles,
    relevant: NDArray[np.bool_],
    measures: Measures,
) -> None:
    """Measure the calibration of match probabilities on the neighbours that were retrieved."""
    model = setting.gallery.match
    if model is None or (rows < 0).any():
        measures.notes.append(f"ece: fewer than {SHOWN} neighbours a query")
        return
    asked = setting.queries.gaussians.uncertainty[which].astype(np.float64)[:, None]
    items = setting.gallery.gaussians.uncertainty.astype(np.float64)[rows]
    probability = model.probability(distances, asked, items)
    _calibrated(measures, "ece", probability, relevant)
    measures.mean("match_brier", ((probability - relevant) ** 2).mean(axis=1))
    measures.mean("match_prevalence", relevant.mean(axis=1))


def _calibrated(measures: Measures, name: str, probability: Doubles, outcome: NDArray[np.bool_]) -> None:
    """Measure the calibration error of (Q, K) probabilities, resampling whole queries."""

    def error(rows: Rows) -> float:
        return calibration.ece(probability[rows].ravel(), outcome[rows].ravel())

    measures.add(name, error, len(probability))


def _instances(setting: Setting, measures: Measures) -> int:
    """Measure whether queries that are another form of a gallery image find that image."""
    which = np.flatnonzero(setting.own >= 0)
    own = setting.own[which]
    same = (setting.queries.gaussians.mean[which] == setting.gallery.gaussians.mean[own]).all(axis=1)
    which, own = which[~same], own[~same]
    if not len(which):
        return 0
    compared = setting.queries.gaussians[which]
    if setting.gallery.normalise:
        compared = compared.normalised()
    _, rows = setting.index.search(compared, SHOWN)
    found = rows == own[:, None]
    for k in (1, 5, 10):
        measures.mean(f"instance_recall_at_{k}", retrieval.hit_at(found, k))
    unsure = setting.queries.gaussians.uncertainty[which].astype(np.float64)
    measures.add("instance_r_auroc", lambda r: uncertainty.r_auroc(unsure[r], found[r, 0]), len(which))
    return len(which)


def _hubs(setting: Setting, measures: Measures) -> None:
    """Measure how often the most frequent item is among the ten nearest, and the skewness of that."""
    rows, _ = _search(setting, setting.index, np.arange(len(setting.queries)), SHOWN, labelled=False)
    count = len(setting.gallery)

    def most(which: Rows) -> float:
        return float(retrieval.occurrences(rows[which], count).max())

    def skew(which: Rows) -> float:
        return retrieval.skewness(retrieval.occurrences(rows[which], count))

    measures.add("hub_max", most, len(rows))
    measures.add("hub_skew", skew, len(rows))
