"""One page is drawn from a report, whatever the report could measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from index.evaluation.evaluate import Settings, evaluate
from index.evaluation.plots import plot
from tests.index.evaluation.test_ood import GALLERY, QUERIES
from vssl.errors import InputError

pytest.importorskip("matplotlib")
QUICK = Settings(resamples=5)


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_a_page_is_drawn_with_and_without_labels(tmp_path: Path, ending: str) -> None:
    unlabelled = replace(QUERIES, labels=[None] * len(QUERIES))
    for name, queries in (("labelled", QUERIES), ("unlabelled", unlabelled)):
        path = tmp_path / f"{name}{ending}"
        plot(evaluate(GALLERY, queries, replace(QUICK, compare=name == "labelled")), path)
        assert path.stat().st_size > 5000


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png"):
        plot({}, tmp_path / "page.gif")
