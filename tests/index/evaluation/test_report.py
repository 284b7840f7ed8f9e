"""MetricReport are flat numbers with intervals; what is undefined is said, not invented."""

from __future__ import annotations

import math

import numpy as np

from index.evaluation.report import POINTS, MetricReport


def test_a_metric_has_its_interval() -> None:
    measures = MetricReport(200, 0)
    measures.mean("share", np.array([0.0, 1.0] * 50))
    flat = measures.flat()
    assert set(flat) == {"share", "share_low", "share_high"}
    assert flat["share"] == 0.5
    assert 0.35 < flat["share_low"] < 0.5 < flat["share_high"] < 0.65
    assert measures.metrics["share"].queries == 100


def test_an_undefined_metric_becomes_a_note() -> None:
    measures = MetricReport(10, 0)
    measures.add("nothing", lambda rows: math.nan, 5)
    measures.mean("empty", np.empty(0))
    assert measures.flat() == {}
    assert [note.partition(":")[0] for note in measures.notes] == ["nothing", "empty"]


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    measures = MetricReport(10, 0)
    measures.curve("long", {"line": np.arange(5000.0)})
    line = measures.curves["long"]["line"]
    assert (len(line), line[0], line[-1]) == (POINTS, 0.0, 4999.0)
