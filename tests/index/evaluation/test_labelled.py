"""What labels say: retrieval, and whether the uncertain queries are the wrong ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from index.evaluation.dataset import Dataset
from index.evaluation.evaluate import evaluate
from tests.index.evaluation.test_evaluate import QUICK, dataset
from tests.index.samples import sample
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows

SCORES = ("uncertainty", "distance", "disagreement", "combined")


def test_another_distance_is_compared_with_cosine() -> None:
    gallery, queries = dataset(sample(100)), dataset(sample(40, seed=1, prefix="q"))
    control = evaluate(gallery, queries, QUICK)["metrics"]
    other = evaluate(gallery, queries, replace(QUICK, distance="expected"))["metrics"]
    assert other["cosine_recall_at_1"] == control["recall_at_1"]
    assert other["knn_top1"] == control["knn_top1"]


def test_unlabelled_items_neither_vote_nor_count() -> None:
    rows, queries = sample(120), dataset(sample(40, seed=1, prefix="q"))
    some = [label if i % 3 else None for i, label in enumerate(rows.labels)]
    gallery = dataset(replace(rows, labels=some))
    kept = [i for i in range(120) if i % 3]
    smaller = dataset(
        Rows(
            [rows.ids[i] for i in kept],
            [rows.paths[i] for i in kept],
            [rows.labels[i] for i in kept],
            rows.gaussians[kept],
        )
    )
    found, expected = (evaluate(side, queries, QUICK)["metrics"] for side in (gallery, smaller))
    # Any image may be a hub, and informs an unfitted prior.
    kept_names = [n for n in found if "hub" not in n and "posterior" not in n]
    assert {n: found[n] for n in kept_names} == {n: expected[n] for n in kept_names}


def test_many_relevant_items_are_sampled_for_mean_average_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.evaluation.labelled.MAP_BUDGET", 300)
    gallery, queries = dataset(sample(120, groups=6)), dataset(sample(60, seed=1, prefix="q"))
    report = evaluate(gallery, queries, QUICK)
    assert report["counts"]["map_queries"] == 15
    assert any("drawn at random" in line for line in report["notes"])


def blurred(count: int, *, seed: int, prefix: str) -> Dataset:
    """Images whose means lie as far from their class as their variance says."""
    random = np.random.default_rng(seed)
    rows = sample(count, seed=seed, prefix=prefix)
    variance = np.exp(random.uniform(-6, 1.5, (count, 1))) * np.ones((1, 8))
    centres = np.random.default_rng(99).normal(size=(6, 8))[np.arange(count) % 6]
    mean = centres + random.normal(0, 0.2, (count, 8)) + random.normal(0, np.sqrt(variance))
    return dataset(
        replace(rows, gaussians=GaussianEmbedding(mean.astype(np.float32), variance.astype(np.float32)))
    )


def test_abstention_keeps_the_risk_it_was_given() -> None:
    gallery, queries = blurred(1500, seed=0, prefix="i"), blurred(1500, seed=1, prefix="q")
    report = evaluate(gallery, queries, replace(QUICK, max_risk=0.05))
    metrics = report["metrics"]
    assert 1 - metrics["recall_at_1"] > 0.05
    assert max(metrics[f"coverage_{name}"] for name in SCORES) > 0.3
    for name in SCORES:
        assert metrics.get(f"risk_{name}", 0.0) <= 0.05
    assert any("at a risk of 0.05" in line for line in report["notes"])
