"""A bootstrap interval covers the truth as often as it says."""

from __future__ import annotations

import doctest

import numpy as np

from index.arrays import Int64s
from index.metrics import bootstrap
from index.metrics.calibration import ece


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(bootstrap).failed == 0


def test_the_interval_of_a_mean_is_two_standard_errors_wide_and_covers_it() -> None:
    random = np.random.default_rng(7)
    covered = 0
    for seed in range(150):
        values = random.normal(size=100)
        low, high = bootstrap.interval(
            lambda rows, v=values: float(v[rows].mean()), 100, resamples=200, seed=seed
        )  # type: ignore[misc]
        covered += low <= 0 <= high
        assert abs((high - low) / (2 * 1.96 * values.std() / 10) - 1) < 0.35
    assert 135 <= covered <= 149  # 95 %, give or take three standard errors


def test_the_same_seed_draws_the_same_and_undefined_resamples_are_left_out() -> None:
    values = np.arange(50.0)

    def mean(rows: np.ndarray) -> float:
        return float(values[rows].mean())

    assert bootstrap.interval(mean, 50) == bootstrap.interval(mean, 50, seed=0)
    assert bootstrap.interval(mean, 50, seed=3) == bootstrap.interval(mean, 50, seed=3)
    assert bootstrap.interval(mean, 50, seed=3) != bootstrap.interval(mean, 50, seed=4)
    some = bootstrap.interval(lambda rows: float("nan") if rows[0] < 25 else 1.0, 50)
    assert some == (1.0, 1.0)
    assert np.isnan(bootstrap.interval(lambda rows: float("nan"), 50)).all()


def test_what_resampling_takes_away_is_given_back_at_both_ends() -> None:
    """50 different rows; drawn with replacement, each is missing with probability (1 - 1/50)^50."""

    def different(rows: Int64s) -> float:
        return float(len(set(rows.tolist())))

    plain = bootstrap.interval(different, 50)
    low, high = bootstrap.interval(different, 50, unbiased=False)
    missing = 50 * (1 - 1 / 50) ** 50
    assert abs(low - plain[0] - missing) < 0.5
    assert abs(high - plain[1] - missing) < 0.5
    assert low < 50 < high


def test_the_interval_of_a_calibration_error_holds_its_value_and_covers_its_expectation() -> None:
    random = np.random.default_rng(3)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        probability = random.uniform(size=count)
        return probability, random.uniform(size=count) < probability

    expected = float(np.mean([ece(*drawn(150)) for _ in range(2000)]))
    covered, held_before = 0, 0
    for seed in range(100):
        probability, outcome = drawn(150)

        def error(rows: Int64s, p: np.ndarray = probability, o: np.ndarray = outcome) -> float:
            return ece(p[rows], o[rows])

        low, high = bootstrap.interval(error, 150, resamples=100, seed=seed, unbiased=False)
        assert 0 <= low <= error(np.arange(150)) <= high
        covered += low <= expected <= high
        plain = bootstrap.interval(error, 150, resamples=100, seed=seed)
        held_before += plain[0] <= error(np.arange(150)) <= plain[1]
    assert covered >= 85
    assert held_before < 80  # of 100: what it mends
