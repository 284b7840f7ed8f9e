"""Corrupted images, and images that people disagree on, are compared one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from index.evaluation.dataset import Dataset
from index.evaluation.report import MetricReport
from index.evaluation.robustness import measure_corruptions, measure_human
from tests.index.samples import MODEL, card, sample
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError, MismatchError

ROWS = sample(60)
QUERIES = Dataset("queries", ROWS.ids, list(ROWS.labels), ROWS.gaussians, card(), MODEL)


def less_sure(name: str, factor: float, *, of: int = 60) -> Dataset:
    """The queries, the first `of` of them with their variance multiplied, the rest divided."""
    factors = np.where(np.arange(60) < of, factor, 1 / factor).astype(np.float32)[:, None]
    order = np.random.default_rng(0).permutation(60)  # pairs are found by id, not by position
    gaussians = GaussianEmbedding(ROWS.gaussians.mean, ROWS.gaussians.variance * factors)[order]
    return replace(QUERIES, place=f"folder/{name}", ids=[ROWS.ids[i] for i in order], gaussians=gaussians)


def report() -> MetricReport:
    return MetricReport(20, 0)


def test_the_share_with_higher_uncertainty_is_counted_by_id() -> None:
    found = report()
    assert measure_corruptions(QUERIES, [less_sure("crop", 1.5, of=45)], found) == 60
    assert found.metrics["uncertainty_increase_rate:crop"].value == 0.75


def test_severities_are_ordered_by_their_number() -> None:
    found = report()
    folders = [less_sure("blur-10", 3.0), less_sure("blur-2", 1.5), less_sure("blur-1", 1.2, of=30)]
    measure_corruptions(QUERIES, folders, found)
    up, dip = (
        stats.spearmanr([0, 1, 2, 3], [0, 1, 2, 3]).statistic,
        stats.spearmanr([0, 1, 2, 3], [1, 0, 2, 3]).statistic,
    )
    assert found.metrics["severity_correlation:blur"].value == pytest.approx((up + dip) / 2)


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(InputError, match="shares no id"):
        measure_corruptions(QUERIES, [replace(QUERIES, ids=[f"x{i}" for i in range(60)])], report())
    with pytest.raises(MismatchError):
        measure_corruptions(QUERIES, [replace(QUERIES, model_id="b" * 64)], report())


def test_human_votes_are_found_by_the_number_in_the_id(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 5, (60, 4)) + 1
    np.save(tmp_path / "votes.npy", counts)
    found = report()
    assert measure_human(less_sure("same", 1.0), tmp_path / "votes.npy", found) == 60
    entropy = stats.entropy(counts, axis=1)
    expected = stats.spearmanr(QUERIES.gaussians.uncertainty, entropy).statistic
    assert found.metrics["human_spearman"].value == pytest.approx(expected)


def test_votes_of_another_form_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "votes.npy"
    for values, message in (
        (np.ones(5), "expected counts"),
        (np.zeros((60, 3)), "expected counts"),
        (np.array([["a"]]), "expected counts"),
        (np.ones((0, 3)), "no row each"),
    ):
        np.save(path, values)
        with pytest.raises(InputError, match=message):
            measure_human(QUERIES, path, report())
    path.write_text("not an array")
    with pytest.raises(InputError, match="not readable"):
        measure_human(QUERIES, path, report())
