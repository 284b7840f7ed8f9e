"""A gallery and queries -> every metric that their labels and ids allow, with intervals.

With labels: k-NN accuracy, recall, mAP@R, and whether the uncertain queries are those whose
nearest neighbour is wrong. With ids that occur in the gallery in another form (the same images
under a disturbance): whether each finds itself. Always: hubness. A query whose own image is in
the gallery never finds that image in a labelled metric.

Shape letters: Q queries, K neighbours, N items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from index.distances import NAMES, DistanceParameters, fit_prior
from index.distances.prior import UNFITTED_ALPHA
from index.evaluation.context import SHOWN, Rows, Setting, Settings, arrange
from index.evaluation.dataset import Corpus
from index.evaluation.labelled import measure_labelled
from index.evaluation.ood import measure_foreign, measure_one_class
from index.evaluation.report import Measures
from index.evaluation.robustness import measure_disturbed, measure_human
from index.metrics import retrieval, uncertainty
from index.search.exact import ExactIndex

__all__ = ["Beside", "Settings", "evaluate"]

COMPARED = 2000  # queries that every distance is compared on; some evaluate most of the gallery


@dataclass(frozen=True, eq=False)
class Beside:
    """What may stand beside gallery and queries.

    foreign: images from elsewhere; disturbed: other forms of the queries; human: a file of votes.
    """

    foreign: Corpus | None = None
    disturbed: Sequence[Corpus] = ()
    human: Path | None = None


def evaluate(
    gallery: Corpus,
    queries: Corpus,
    settings: Settings | None = None,
    beside: Beside | None = None,
    *,
    told: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return the report as plain values: model, counts, settings, notes, curves and the flat `metrics`.

    told: hears what is measured next. Raises MismatchError for two models, InputError for an empty side.
    """
    settings, beside = settings or Settings(), beside or Beside()
    told(f"encoding {len(gallery):,} images of the gallery")
    setting = arrange(gallery, queries, settings)
    measures = Measures(settings.resamples, settings.seed)
    if gallery.stale:
        measures.notes.append(f"constants of the distances: {gallery.stale}")
    counts: dict[str, int] = {"gallery": len(gallery), "queries": len(queries), "classes": setting.classes}
    counts["labelled_queries"] = len(setting.labelled)
    counts["queries_in_gallery"] = int((setting.own >= 0).sum())
    if len(setting.labelled):
        told(f"neighbours and votes of {len(setting.labelled):,} labelled queries")
        counts |= measure_labelled(setting, settings, measures)
    else:
        measures.notes.append(
            "no labels on both sides: k-NN accuracy, recall, mAP@R and R-AUROC need label folders "
            "(IMAGES/CLASS/file.jpg) at extraction"
        )
    told(f"hubs among the neighbours of {len(queries):,} queries")
    counts["instance_queries"] = _instances(setting, measures)
    measures.mean("uncertainty_mean", setting.uncertainty)
    _hubs(setting, setting.index, np.arange(len(queries)), "hub", measures)
    if settings.compare:
        told(f"all {len(NAMES)} distances")
        counts["compared_queries"] = _compare(setting, settings, measures)
    if settings.one_class and len(setting.labelled):
        told("each class as the only normal one")
        counts["one_class_runs"] = measure_one_class(setting, measures)
    if beside.foreign is not None:
        counts["foreign"] = measure_foreign(setting, beside.foreign, settings, measures)
    if beside.disturbed:
        counts["disturbed_pairs"] = measure_disturbed(queries, beside.disturbed, measures)
    if beside.human is not None:
        counts["human_votes"] = measure_human(queries, beside.human, measures)
    told(f"intervals from {settings.resamples:,} resamples")
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
        "chosen": measures.chosen,
        "notes": measures.notes,
        "metrics": measures.flat(),
        "curves": measures.curves,
    }


def _instances(setting: Setting, measures: Measures) -> int:
    """Measure whether queries that are another form of a gallery image find that image."""
    which = np.flatnonzero(setting.own >= 0)
    own = setting.own[which]
    same = (setting.queries.gaussians.mean[which] == setting.gallery.gaussians.mean[own]).all(axis=1)
    which, own = which[~same], own[~same]
    if not len(which):
        return 0
    _, rows = setting.index.search(setting.asked[which], SHOWN)
    found = rows == own[:, None]
    for k in (1, 5, 10):
        measures.mean(f"instance_recall_at_{k}", retrieval.hit_at(found, k))
    unsure = setting.uncertainty[which]
    measures.add("instance_r_auroc", lambda r: uncertainty.r_auroc(unsure[r], found[r, 0]), len(which))
    return len(which)


def _hubs(setting: Setting, index: ExactIndex, which: Rows, name: str, measures: Measures) -> None:
    """Measure how often the most frequent item is among the ten nearest, and the skewness of that.

    Drawing queries twice makes hubs by itself, so the interval of the first is that of the one
    item's count, and the interval of the second is drawn over items.
    """
    rows, _ = setting.search(index, which, SHOWN, labelled=False)
    counts = retrieval.occurrences(rows, len(setting.gallery))
    of_the_most = (rows == counts.argmax()).sum(axis=1)
    measures.add(f"{name}_max", lambda queries: float(of_the_most[queries].sum()), len(rows))
    measures.add(f"{name}_skew", lambda items: retrieval.skewness(counts[items]), len(counts))


def _compare(setting: Setting, settings: Settings, measures: Measures) -> int:
    """Measure recall@1 and hubs of every distance, with the gallery's constants.

    Where none were fitted, the prior of posterior is that of the gallery's labels.

    On 2,000 queries at most, drawn at random. Returns how many.
    """
    drawn = np.sort(np.random.default_rng(settings.seed).permutation(len(setting.queries))[:COMPARED])
    which = np.intersect1d(drawn, setting.labelled)
    most: dict[str, float] = {}
    prior = fit_prior(setting.items, setting.gallery.labels, DistanceParameters(alpha=UNFITTED_ALPHA))
    for name in NAMES:
        constants = setting.gallery.constants.get(name, prior if name == "posterior" else None)
        index = ExactIndex.build(name, setting.items, parameters=constants)
        if len(which):
            rows, _ = setting.search(index, which, 1, labelled=True)
            right = setting.codes(rows[:, 0]) == setting.query_codes[which]
            measures.mean(f"recall_at_1:{name}", right.astype(np.float64))
        _hubs(setting, index, drawn, f"hub:{name}", measures)
        most[name] = measures.metrics[f"hub:{name}_max"].value
    hubs = [name for name in NAMES if most[name] > 10 * most["cosine"]]
    if hubs:
        measures.notes.append(
            f"hubs: {', '.join(hubs)} put one image among the ten nearest over ten times as often as cosine"
        )
    return len(drawn)
