"""An evaluation says what a slow loop over the images says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from index.distances import NAMES
from index.evaluation.dataset import Dataset, read_dataset
from index.evaluation.evaluate import Settings, evaluate
from index.gallery.folder.gallery import FolderGallery
from tests.index.samples import MODEL, card, sample
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.manifest import write_manifest
from vssl.embeddings.store import Rows, part_name, to_table, write_table
from vssl.errors import InputError, MismatchError

QUICK = Settings(resamples=20)


def dataset(rows: Rows, *, labels: bool = True, normalise: bool = True) -> Dataset:
    names = rows.labels if labels else [None] * len(rows)
    return Dataset("x", rows.ids, list(names), rows.gaussians, card(), MODEL, normalise=normalise)


def stored(rows: Rows, folder: Path) -> Path:
    folder.mkdir()
    write_table(to_table(rows, card(), MODEL), folder / part_name(0))
    write_manifest(folder, model_id=MODEL, parts=[part_name(0)], rows=len(rows), failures=0)
    return folder


def cosines(queries: Dataset, gallery: Dataset) -> np.ndarray:
    a, b = (x.gaussians.mean.astype(np.float64) for x in (queries, gallery))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    similarity: np.ndarray = a @ b.T
    return similarity


def by_hand(queries: Dataset, gallery: Dataset, *, itself: bool) -> dict[str, float]:
    """Every labelled metric, one query at a time."""
    similarity = cosines(queries, gallery)
    values: dict[str, list[float]] = {n: [] for n in ("knn_top1", "recall_at_1", "recall_at_5", "map_at_r")}
    for q in range(len(queries)):
        order = [i for i in np.argsort(-similarity[q]) if not (itself and gallery.ids[i] == queries.ids[q])]
        same = [gallery.labels[i] == queries.labels[q] for i in order]
        votes: dict[str | None, float] = {}
        for i in order[:20]:
            votes[gallery.labels[i]] = votes.get(gallery.labels[i], 0) + np.exp(similarity[q, i] / 0.07)
        values["knn_top1"].append(max(votes, key=lambda c: votes[c]) == queries.labels[q])
        values["recall_at_1"].append(same[0])
        values["recall_at_5"].append(any(same[:5]))
        total = sum(same)
        values["map_at_r"].append(sum(np.mean(same[: i + 1]) for i in range(total) if same[i]) / total)
    first = np.array(values["recall_at_1"], bool)
    means = {name: float(np.mean(numbers)) for name, numbers in values.items()}
    return means | {"r_auroc": float(sk.roc_auc_score(first, -queries.gaussians.uncertainty))}


def test_held_out_queries() -> None:
    gallery, queries = dataset(sample(200)), dataset(sample(60, seed=1, prefix="q"))
    report = evaluate(gallery, queries, QUICK)
    for name, value in by_hand(queries, gallery, itself=False).items():
        assert report["metrics"][name] == pytest.approx(value, abs=1e-12), name
        assert report["metrics"][f"{name}_low"] <= value <= report["metrics"][f"{name}_high"]
    assert not report["leave_one_out"]
    assert report["counts"]["queries"] == 60
    assert "instance_recall_at_1" not in report["metrics"]


def test_the_risk_stands_beside_the_distance() -> None:
    found = evaluate(dataset(sample(400)), dataset(sample(200, seed=1, prefix="q")), QUICK)["metrics"]
    # Its uncertainty tells little here (R-AUROC 0.61), so that what is joined gains nothing, and loses little.
    assert found["r_auroc_risk"] > found["r_auroc_distance"] - 0.04
    few = evaluate(dataset(sample(100)), dataset(sample(60, seed=1, prefix="q")), QUICK)
    assert "r_auroc_risk" not in few["metrics"]
    assert any("r_auroc_risk: fewer than 320 images" in note for note in few["notes"])


def test_queries_of_the_gallery_leave_themselves_out_by_id() -> None:
    gallery = dataset(sample(150))
    rows = sample(150)
    chosen = list(range(0, 150, 2))
    queries = dataset(
        Rows(
            [rows.ids[i] for i in chosen],
            [rows.paths[i] for i in chosen],
            [rows.labels[i] for i in chosen],
            rows.gaussians[chosen],
        )
    )
    report = evaluate(gallery, queries, QUICK)
    assert report["leave_one_out"]
    assert report["counts"]["queries_in_gallery"] == 75
    for name, value in by_hand(queries, gallery, itself=True).items():
        assert report["metrics"][name] == pytest.approx(value, abs=1e-12), name
    assert "instance_recall_at_1" not in report["metrics"]  # each would find its own numbers


def test_corrupted_copies_are_asked_to_find_their_originals() -> None:
    rows = sample(120)
    random = np.random.default_rng(5)
    mean = rows.gaussians.mean + random.normal(0, 0.5, rows.gaussians.mean.shape).astype(np.float32)
    copies = replace(rows, gaussians=GaussianEmbedding(mean, rows.gaussians.variance))
    gallery, queries = dataset(rows, labels=False), dataset(copies, labels=False)
    report = evaluate(gallery, queries, replace(QUICK, one_class=True, max_risk=0.1))
    order = np.argsort(-cosines(queries, gallery), axis=1)
    metrics = report["metrics"]
    assert metrics["instance_recall_at_1"] == pytest.approx((order[:, 0] == np.arange(120)).mean())
    assert metrics["instance_recall_at_5"] == pytest.approx(
        (order[:, :5] == np.arange(120)[:, None]).any(axis=1).mean()
    )
    assert 0 < metrics["instance_r_auroc"] < 1
    assert "knn_top1" not in metrics
    assert any("no labels" in line for line in report["notes"])
    for option in ("--one-class", "--max-risk"):
        assert f"{option} needs these labels too: left out" in report["notes"]


def test_hubs_are_counted_among_ten_neighbours() -> None:
    gallery, queries = dataset(sample(80)), dataset(sample(40, seed=1, prefix="q"))
    order = np.argsort(-cosines(queries, gallery), axis=1)[:, :10]
    metrics = evaluate(gallery, queries, replace(QUICK, resamples=200))["metrics"]
    counts = np.bincount(order.ravel(), minlength=80)
    assert metrics["hub_max"] == counts.max()
    assert metrics["hub_skew"] == pytest.approx(stats.skew(counts))
    for name in ("hub_max", "hub_skew"):
        assert metrics[f"{name}_low"] < metrics[name] < metrics[f"{name}_high"]


def test_folders_of_either_kind_are_read_and_match_probability_is_checked(tmp_path: Path) -> None:
    rows = sample(600)
    embeddings = stored(rows, tmp_path / "embeddings")
    with FolderGallery.create(tmp_path / "gallery", card=card(), model_id=MODEL) as gallery:
        gallery.add(rows)
    queries = stored(sample(200, seed=1, prefix="q"), tmp_path / "queries")
    one = evaluate(read_dataset(embeddings), read_dataset(queries), QUICK)
    two = evaluate(read_dataset(tmp_path / "gallery"), read_dataset(queries), QUICK)
    assert one["metrics"].items() <= two["metrics"].items()
    assert 0 < two["metrics"]["ece"] < 0.1
    assert two["metrics"]["match_brier"] < two["metrics"]["match_prevalence"] * 0.5


def test_two_models_or_an_empty_side_are_refused() -> None:
    gallery, queries = dataset(sample(20)), dataset(sample(5, seed=1, prefix="q"))
    with pytest.raises(MismatchError, match="extract both with one model"):
        evaluate(gallery, replace(queries, model_id="b" * 64), QUICK)
    with pytest.raises(InputError, match="no images"):
        evaluate(gallery, dataset(sample(0)), QUICK)
    with pytest.raises(InputError, match="positive"):
        Settings(k=0)
    with pytest.raises(InputError, match="found no manifest"):
        read_dataset(Path(__file__).parent)


def test_more_neighbours_asked_than_there_are() -> None:
    few, asked = dataset(sample(7)), dataset(sample(3, seed=1, prefix="q"))
    report = evaluate(few, asked, replace(QUICK, k=50))
    assert 0 <= report["metrics"]["knn_top1"] <= 1
    most = evaluate(few, asked, replace(QUICK, k=10**9))
    assert (most["k"], most["metrics"]["knn_top1"]) == (200, report["metrics"]["knn_top1"])
    with pytest.raises(InputError, match="seed -1; expected positive numbers"):
        evaluate(few, asked, replace(QUICK, seed=-1))


def test_every_distance_is_compared_when_asked() -> None:
    gallery, queries = dataset(sample(200)), dataset(sample(80, seed=1, prefix="q"))
    metrics = evaluate(gallery, queries, replace(QUICK, compare=True))["metrics"]
    assert metrics["recall_at_1:cosine"] == metrics["recall_at_1"]
    assert metrics["hub:cosine_max"] == metrics["hub_max"]
    for name in NAMES:
        assert 0 <= metrics[f"recall_at_1:{name}"] <= 1
