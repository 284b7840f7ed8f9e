"""Means, labels and uncertainties of pictures that search each other -> what is known after a search, and how well.

    python -m benchmarks.published_search DIR/served.npz ...

of files with mean (N, D), label (N,) and uncertainty (N,), as published.py writes one to its --cache. Both
calibrations are fitted on 1,000 of the pictures (half of fewer than 2,000), by the served code. Printed: R-AUROC
of distance, risk (all pictures) and match probability (those not fitted on), the difference from the distance with a
95 % interval by a paired bootstrap, and the calibration error of the match probability, of the 10 nearest and of the
nearest alone; each also by the distance and the uncertainties alone.
Shape letters: N pictures, D embedding dimension, K neighbours.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.calibration.match import VOTERS, Votes, fit_match, votes
from index.calibration.risk import FIT_QUERIES, fit_risk
from index.metrics.bootstrap import interval
from index.metrics.calibration import ece
from index.metrics.uncertainty import r_auroc
from index.search.exact import ExactIndex
from index.search.neighbour_graph import leave_out_own
from index.search.vectors import Vectors
from vssl.embeddings.gaussian import GaussianEmbedding

Doubles = NDArray[np.float64]
SHOWN, BINS, RESAMPLES = 10, 10, 300


@dataclass(frozen=True, eq=False)
class Found:
    """Of N pictures: distance (N,) of the nearest, risk (N,), same label (N, 10) and match probabilities (N, 10).

    alone: by distance and uncertainties alone; held: the pictures that nothing was fitted on (N,).
    """

    distance: Doubles
    risk: Doubles
    same: NDArray[np.bool_]
    match: Doubles
    alone: Doubles
    held: NDArray[np.bool_]


def after_search(mean: NDArray[np.float32], unsure: Doubles, labels: NDArray[np.int64]) -> Found:
    """Let the pictures search each other by cosine, and fit both calibrations on some of them."""
    items, rows = Vectors(GaussianEmbedding(mean, np.ones_like(mean))), np.arange(len(mean))
    search = ExactIndex.build("cosine", items).search(items[rows], VOTERS + 1)
    distances, found = leave_out_own(*search, rows, VOTERS)
    rank = ((np.argsort(np.argsort(unsure)) + 0.5) / len(unsure)).astype(np.float32)
    some = np.random.default_rng(0).permutation(len(rows))[: min(FIT_QUERIES, len(rows) // 2)]
    model = fit_risk(mean, items, distances[some], found[some], rank[some], rank)
    same, unsure = labels[found] == labels[:, None], rank.astype(np.float64)
    pairs = distances, np.broadcast_to(unsure[:, None], found.shape), unsure[found], same
    said = votes(distances, labels[found], signed=False)
    own = Votes(said.log_odds[some, :SHOWN].ravel(), said.is_nearest[some, :SHOWN].ravel(), said.length)
    match = fit_match(*(part[some, :SHOWN].ravel() for part in pairs), heard=own)  # type: ignore[call-arg]
    assert model is not None
    assert match is not None
    held = np.ones(len(rows), bool)
    held[some] = False
    return Found(
        distances[:, 0],
        model.scores(items, distances, found, rank, rank),
        same[:, :SHOWN],
        match.probability(*pairs[:3], said)[:, :SHOWN],
        match.probability(*pairs[:3])[:, :SHOWN],
        held,
    )


def judge_search(found: Found) -> dict[str, object]:
    """Return R-AUROC, differences from the distance, and calibration errors."""
    held, right = found.held, found.same[:, 0]
    everything = np.ones(len(held), bool)
    report: dict[str, object] = {"images": len(held), "right": float(right.mean())}
    report["distance"] = r_auroc(found.distance, right)
    signals = {"risk": (found.risk, everything), "match": (-found.match[:, 0], held)}
    for name, (value, which) in (signals | {"match_alone": (-found.alone[:, 0], held)}).items():
        v, d, c = value[which], found.distance[which], right[which]
        report[name] = r_auroc(v, c)
        report[f"{name}_minus_distance"] = r_auroc(v, c) - r_auroc(d, c), interval(
            lambda at, v=v, d=d, c=c: r_auroc(v[at], c[at]) - r_auroc(d[at], c[at]), len(c), resamples=RESAMPLES
        )  # fmt: skip
    for name, probability in {"match": found.match[held], "match_alone": found.alone[held]}.items():
        same = found.same[held]
        report[f"{name}_brier"] = float(((probability - same) ** 2).mean())
        report[f"{name}_ece"] = ece(probability.ravel(), same.ravel(), BINS)
        report[f"{name}_ece_nearest"] = ece(probability[:, 0], same[:, 0], BINS)
    return report


def main() -> None:
    """Read, judge and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+")
    for file in parser.parse_args().files:
        held = np.load(file)
        found = after_search(held["mean"], held["uncertainty"].astype(np.float64), held["label"])
        print(json.dumps({"file": str(file), **judge_search(found)}))


if __name__ == "__main__":
    main()
