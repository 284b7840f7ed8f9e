"""One page is drawn from a report, whatever the report could measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index.evaluation.evaluate import Settings, evaluate
from index.evaluation.plots import plot
from tests.index.evaluation.test_ood import GALLERY, QUERIES
from vssl.errors import InputError

pytest.importorskip("matplotlib")
QUICK = Settings(resamples=5)


@pytest.fixture(scope="module")
def reports() -> dict[str, dict[str, Any]]:
    unlabelled = replace(QUERIES, labels=[None] * len(QUERIES))
    return {
        "labelled": evaluate(GALLERY, QUERIES, replace(QUICK, compare=True)),
        "unlabelled": evaluate(GALLERY, unlabelled, QUICK),
    }


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_a_page_is_drawn_with_and_without_labels(
    tmp_path: Path, reports: dict[str, dict[str, Any]], ending: str
) -> None:
    for name, report in reports.items():
        path = tmp_path / f"{name}{ending}"
        plot(report, path)
        assert path.stat().st_size > 5000


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png"):
        plot({}, tmp_path / "page.gif")
