"""Who asks never answers, who fits never judges, and right answers are there to be found."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.calibration import holdout
from index.calibration.holdout import JUDGING, MATES, PRIOR_ROWS, SEARCHED, split, unjudged
from index.metrics.vote import class_codes
from vssl.errors import InputError


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(holdout).failed == 0


@given(count=st.integers(12, 400), classes=st.integers(1, 6), seed=st.integers(0, 5))
def test_the_groups_are_apart_and_unlabelled_rows_are_in_none(count: int, classes: int, seed: int) -> None:
    labels = [None if i % 7 == 0 else str(i % classes) for i in range(count)]
    try:
        judge, fit = split(labels, seed=seed), split(labels, seed=seed, fit=True)
    except InputError:
        return
    rows = unjudged(labels, seed=seed)
    assert not set(judge.queries) & {*judge.searched, *fit.queries, *fit.searched, *rows}
    assert not set(fit.queries) & {*fit.searched, *judge.searched}
    for part in (judge, fit):
        assert all(labels[row] is not None for row in (*part.queries, *part.searched))
        expected = [[labels[a] == labels[b] for b in part.searched] for a in part.queries]
        np.testing.assert_array_equal(part.relevant, expected)
        assert part.relevant.any(axis=1).all()


def test_of_many_small_classes_those_of_the_queries_are_searched() -> None:
    labels = [str(i // 5) for i in range(50_000)]  # of 2,000 drawn at random one in six would have a mate
    judge = split(labels)
    assert len(judge.queries) == JUDGING
    assert len(judge.searched) == SEARCHED
    assert judge.relevant.sum(axis=1).mean() > 0.9 * MATES


def test_wide_embeddings_are_judged_on_fewer_pairs() -> None:
    labels = [str(i % 10) for i in range(20_000)]
    found = [len(split(labels, dim=dim).searched) for dim in (128, 256, 512, 2048, 8192)]
    assert found == [2000, 2000, 1000, 500, 500]


def test_the_prior_sees_many_classes_and_more_than_one_of_each() -> None:
    labels = [str(i // 5) for i in range(150_000)]
    rows = unjudged(labels)
    assert len(rows) == PRIOR_ROWS
    counts = np.bincount(class_codes(labels)[rows])
    assert (counts > 0).sum() > 9_000
    assert (counts == 1).mean() < 0.05
    few = unjudged([str(i % 2) for i in range(100_000)])
    assert np.bincount(few % 2).tolist() == [PRIOR_ROWS // 2, PRIOR_ROWS // 2]


def test_no_two_images_of_one_label_is_an_error() -> None:
    for labels in ([str(i) for i in range(50)], [None] * 50, [], ["a"]):
        with pytest.raises(InputError, match="share a label"):
            split(labels)
