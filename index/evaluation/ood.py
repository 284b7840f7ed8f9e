"""Queries and images from elsewhere -> how well each score tells them apart.

Also the one-class protocol, where every class of the gallery in turn is the only normal one.
Shape letters: Q queries, N items, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from index.evaluation.anomaly import NEAREST, Scores, mahalanobis, score
from index.evaluation.context import Doubles, Rows, Setting, Settings, as_compared, own_rows
from index.evaluation.dataset import Corpus, check_together
from index.evaluation.report import Measures
from index.metrics.uncertainty import false_positives_at
from index.search.exact import ExactIndex
from vssl.rank_statistics import auroc


def measure_foreign(setting: Setting, foreign: Corpus, settings: Settings, measures: Measures) -> int:
    """Measure AUROC and FPR95 of foreign images against the queries; return their number.

    `ood_auroc` is by uncertainty alone; `_knn`, `_likelihood` and `_mahalanobis` beside it ask
    the gallery. FPR95 is the share of queries taken for foreign where 95 % of the foreign are.
    """
    check_together(setting.gallery, foreign)
    asked = as_compared(setting.gallery, foreign.gaussians)
    sides = (
        (setting.asked, setting.uncertainty, setting.own),
        (asked, foreign.gaussians.uncertainty.astype(np.float64), own_rows(setting.gallery, foreign)),
    )
    inside, outside = (
        score(setting.control, queries, unsure, k=settings.k, own=own) for queries, unsure, own in sides
    )
    lines: dict[str, tuple[Doubles, Doubles]] = {
        "": (inside.uncertainty, outside.uncertainty),
        "_knn": (inside.knn, outside.knn),
        "_likelihood": (inside.likelihood, outside.likelihood),
    }
    distances = [mahalanobis(setting.items, setting.gallery_codes, side[0]) for side in sides]
    lines["_mahalanobis"] = distances[0], distances[1]
    positive = np.arange(len(setting.asked) + len(asked)) >= len(setting.asked)
    for name, parts in lines.items():
        values = np.concatenate(parts)
        measures.add(f"ood_auroc{name}", lambda r, v=values: auroc(v[r], positive[r]), len(values))  # type: ignore[misc]
        measures.add(
            f"ood_fpr95{name}",
            lambda r, v=values: false_positives_at(v[r], positive[r]),  # type: ignore[misc]
            len(values),
        )
    return len(asked)


def measure_one_class(setting: Setting, measures: Measures) -> int:
    """Measure, for each class of the gallery as the only normal one, AUROC of all labelled queries.

    `one_class_knn` and `one_class_likelihood` are the means over classes, each class beside them
    as `one_class_knn:NAME`. A gallery of a single class gives one run. Returns the runs.
    """
    which = setting.labelled
    truth, own = setting.query_codes[which], setting.own[which]
    names = {
        code: label
        for code, label in zip(setting.gallery_codes.tolist(), setting.gallery.labels, strict=True)
        if label
    }
    runs: dict[int, Scores] = {}
    for code in sorted(names):
        anomalous = truth != code
        if not 0 < anomalous.sum() < len(truth):
            measures.notes.append(f"one-class {names[code]}: needs queries inside and outside of the class")
            continue
        keep = setting.gallery_codes == code
        runs[code] = score(
            setting.control, setting.asked[which], setting.uncertainty[which], own=own, keep=keep
        )
    if not runs:
        return 0
    for kind in ("knn", "likelihood"):

        def mean(rows: Rows, kind: str = kind) -> float:
            return float(np.mean([auroc(getattr(s, kind)[rows], truth[rows] != c) for c, s in runs.items()]))

        measures.add(f"one_class_{kind}", mean, len(truth))
        for code, scores in runs.items():
            values = getattr(scores, kind)
            measures.add(
                f"one_class_{kind}:{names[code]}",
                lambda r, v=values, c=code: auroc(v[r], truth[r] != c),  # type: ignore[misc]
                len(truth),
            )
    return len(runs)


def rank_foreign(gallery: Corpus, queries: Corpus, *, k: int = NEAREST) -> list[dict[str, Any]]:
    """Return for each query its id, scores, and their percentiles among the gallery's own images.

    The gallery's images (a thousand of them at most) are scored against the others, so a
    percentile of 99 means: more foreign than 99 in 100 normal images.
    """
    check_together(gallery, queries)
    items = gallery.compared
    index = ExactIndex.build("cosine", items)
    asked = as_compared(gallery, queries.gaussians)
    unsure = queries.gaussians.uncertainty.astype(np.float64)
    found = score(index, asked, unsure, k=k, own=own_rows(gallery, queries))
    members = np.random.default_rng(0).permutation(len(items))[:1000]
    normal = score(index, items[members], np.zeros(len(members)), k=k, own=members)
    ranks = {
        kind: _percentiles(getattr(normal, kind), getattr(found, kind)) for kind in ("knn", "likelihood")
    }
    return [
        {
            "id": id_,
            "knn": float(found.knn[row]),
            "knn_percentile": float(ranks["knn"][row]),
            "likelihood": float(found.likelihood[row]),
            "likelihood_percentile": float(ranks["likelihood"][row]),
            "uncertainty": float(unsure[row]),
        }
        for row, id_ in enumerate(queries.ids)
    ]


def _percentiles(reference: Doubles, values: Doubles) -> Doubles:
    percentiles: Doubles = 100.0 * np.searchsorted(np.sort(reference), values) / len(reference)
    return percentiles
