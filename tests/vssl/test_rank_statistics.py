"""AUROC is scikit-learn's, the rank correlation and the ranks are scipy's, ties included."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from vssl import rank_statistics
from vssl.rank_statistics import auroc, ranks, spearman

TIED = st.integers(-5, 5)


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(rank_statistics).failed == 0


@given(st.lists(st.tuples(TIED, st.booleans()), min_size=2, max_size=60))
def test_auroc_is_scikit_learn_s(pairs: list[tuple[int, bool]]) -> None:
    score, positive = (np.array(column) for column in zip(*pairs, strict=True))
    found = auroc(score.astype(float), positive)
    if positive.all() or not positive.any():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(positive, score), abs=1e-12)


@given(st.lists(st.tuples(TIED, TIED), min_size=2, max_size=60))
def test_the_rank_correlation_is_scipy_s(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert np.isnan(spearman(a, b))
    else:
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


@given(st.lists(TIED, min_size=1, max_size=60))
def test_ranks_are_scipy_s(values: list[int]) -> None:
    assert ranks(np.array(values, dtype=float)).tolist() == stats.rankdata(values).tolist()
