"""A budget is kept as measured, or refused with what was closest."""

from dataclasses import replace

import numpy as np
import pytest

from index.search.approximate import ApproximateIndex, Recipe
from index.search.autotune import Budget, Measured, choose, describe, views
from index.search.exact import ExactIndex
from tests.index.samples import gaussians
from vssl.errors import InputError

ITEMS = gaussians(4000, 16, groups=60).normalised()


def test_a_budget_is_read_with_its_units() -> None:
    assert Budget.parse("memory=2GB,latency=5ms,recall=0.9") == Budget(2e9, 0.005, 0.9)
    assert Budget.parse(" memory=1.5 MiB ") == Budget(1.5 * 2**20, None, 0.95)
    assert Budget.parse("latency=200us").latency == pytest.approx(2e-4)
    for text in (
        "",
        "speed=1",
        "memory=2",
        "latency=5",
        "recall=1.5",
        "recall=0",
        "memory=1GB,memory=2GB",
        "recall",
    ):
        with pytest.raises(InputError, match="budget"):
            Budget.parse(text)


def test_flat_is_chosen_where_it_fits() -> None:
    choice = choose("cosine", ITEMS, Budget.parse("recall=1"))
    assert isinstance(choice.index, ExactIndex)
    assert choice.measured.recipe is None
    assert choice.measured.memory == 4000 * 16 * 4


def test_little_memory_gets_codes_and_the_recall_that_was_measured() -> None:
    choice = choose("cosine", ITEMS, Budget.parse("memory=120KB,recall=0.8"))
    assert isinstance(choice.index, ApproximateIndex)
    assert choice.measured.recipe == choice.index.recipe
    assert choice.measured.recipe.kind == "ivfpq"
    assert choice.measured.memory == choice.index.bytes <= 120_000
    queries = views(ITEMS, 200, seed=0)
    truth = ExactIndex.build("cosine", ITEMS).search(queries, 10)[1]
    found = choice.index.search(queries, 10)[1]
    hits = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])
    assert hits == pytest.approx(choice.measured.recall)
    assert hits >= 0.8


def test_an_impossible_budget_names_the_closest() -> None:
    with pytest.raises(InputError, match=r"no index keeps the budget .* closest is .*recall@10"):
        choose("cosine", ITEMS[:300], Budget.parse("latency=0.001us"))
    with pytest.raises(InputError, match="no vectors to measure"):
        choose("cosine", ITEMS[:0], Budget())


def test_a_measurement_keeps_a_budget_in_every_part() -> None:
    measured = Measured(Recipe("hnsw"), 0.95, 0.002, 1000, 1.0)
    assert measured.keeps(Budget(1000, 0.002, 0.95))
    for budget in (Budget(999, None, 0.9), Budget(None, 0.001, 0.9), Budget(None, None, 0.96)):
        assert not measured.keeps(budget)
    assert describe(measured) == (
        "hnsw (efSearch 64, shortlist 100): recall@10 0.950, 2.00 ms a query, 0.0 MB, built in 1.0 s"
    )
    assert describe(replace(measured, recipe=None)).startswith("flat: ")


def test_queries_are_other_views_of_the_items() -> None:
    drawn = views(ITEMS, 500, seed=3)
    rows = np.random.default_rng(3).choice(4000, 500, replace=False)
    np.testing.assert_allclose(np.linalg.norm(drawn.mean, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(drawn.variance, ITEMS.variance[rows])
    apart = ((drawn.mean - ITEMS.mean[rows]) ** 2).sum(axis=1)
    assert np.median(apart / ITEMS.variance[rows].sum(axis=1)) == pytest.approx(0.9, abs=0.3)
    assert len(views(ITEMS[:5], 500, seed=3)) == 5
