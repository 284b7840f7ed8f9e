"""One page is drawn from a report, whatever the report could measure, and its lines are the report's numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.evaluation.dataset import read_dataset
from index.evaluation.evaluate import Settings, SideData, evaluate
from index.evaluation.plots import draw, write_plots
from index.gallery.folder.gallery import FolderGallery
from tests.index.evaluation.test_ood import GALLERY, QUERIES
from tests.index.samples import MODEL, card, sample
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError

pytest.importorskip("matplotlib")
QUICK = Settings(resamples=5)


def corrupted(name: str, factor: float) -> Any:
    given = QUERIES.gaussians
    return replace(QUERIES, place=name, gaussians=GaussianEmbedding(given.mean, given.variance * factor))


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    place = tmp_path_factory.mktemp("plots") / "gallery"
    with FolderGallery.create(place, card=card(), model_id=MODEL) as gallery:
        gallery.add(sample(600))
    unlabelled = replace(QUERIES, labels=[None] * len(QUERIES))
    worse = [
        corrupted("blur-1", 1.5),
        corrupted("blur-3", 2),
        corrupted("noise-1", 3),
        corrupted("noise-2", 2),
    ]
    return {
        "labelled": evaluate(read_dataset(place), QUERIES, replace(QUICK, compare=True)),
        "unlabelled": evaluate(GALLERY, unlabelled, QUICK),
        "corrupted": evaluate(GALLERY, QUERIES, QUICK, SideData(None, worse, None)),
    }


def panel(report: dict[str, Any], title: str) -> Any:
    return next(axis for axis in draw(report).axes if axis.get_title() == title)


def lines(axis: Any) -> dict[str, Any]:
    """Return the lines of a legend: by label, (x, y)."""
    return {line.get_label(): line.get_data() for line in axis.lines}


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_a_page_is_drawn_of_whatever_was_measured(
    tmp_path: Path, reports: dict[str, dict[str, Any]], ending: str
) -> None:
    for name, report in reports.items():
        path = tmp_path / f"{name}{ending}"
        write_plots(report, path)
        assert path.stat().st_size > 5000


def test_risk_is_drawn_over_the_share_that_is_answered(reports: dict[str, dict[str, Any]]) -> None:
    report = reports["labelled"]
    drawn = lines(panel(report, "Risk and coverage"))
    assert set(drawn) == {f"by {name}" for name in report["curves"]["risk_coverage"]}
    for name, risk in report["curves"]["risk_coverage"].items():
        share, values = drawn[f"by {name}"]
        np.testing.assert_array_equal(values, risk)
        assert share[-1] == 1
        assert (np.diff(share) > 0).all()


def test_reliability_is_drawn_beside_the_diagonal(reports: dict[str, dict[str, Any]]) -> None:
    report = reports["labelled"]
    axis = panel(report, "Reliability of match probability")
    diagonal, measured = (line.get_data() for line in axis.lines)
    np.testing.assert_array_equal(diagonal, [[0, 1], [0, 1]])
    curve = report["curves"]["reliability"]
    np.testing.assert_array_equal(measured, [curve["predicted"], curve["observed"]])
    assert f"{report['metrics']['ece']:.3f}" in axis.get_legend().get_texts()[0].get_text()


def test_metrics_are_drawn_with_their_intervals(reports: dict[str, dict[str, Any]]) -> None:
    metrics = reports["labelled"]["metrics"]
    axis = panel(reports["labelled"], "Metrics with 95 % intervals")
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert {"knn_top1", "recall_at_1", "r_auroc"} <= set(names)
    drawn = np.asarray(axis.lines[0].get_xdata(), np.float64)
    np.testing.assert_allclose(drawn, [metrics[name] for name in names])


def test_uncertainty_is_drawn_by_severity(reports: dict[str, dict[str, Any]]) -> None:
    drawn = lines(panel(reports["corrupted"], "Uncertainty of corrupted images"))
    by_name = {"blur": [1, 1.5, 2], "noise": [1, 3, 2]}
    severities = {"blur": [0, 1, 3], "noise": [0, 1, 2]}
    for name, factors in by_name.items():
        steps, values = drawn[name]
        np.testing.assert_array_equal(steps, severities[name])
        scaled = [GaussianEmbedding(QUERIES.gaussians.mean, QUERIES.gaussians.variance * f) for f in factors]
        np.testing.assert_allclose(values, [one.uncertainty.mean() for one in scaled], atol=1e-5)
    rates = panel(reports["corrupted"], "Corrupted images less sure than their originals")
    assert [text.get_text() for text in rates.get_yticklabels()] == ["noise-2", "noise-1", "blur-3", "blur-1"]
    np.testing.assert_array_equal(rates.lines[0].get_xdata(), 1)


def test_without_corruptions_none_are_drawn(reports: dict[str, dict[str, Any]]) -> None:
    assert len(draw(reports["labelled"]).axes) == 4


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png"):
        write_plots({}, tmp_path / "page.gif")
