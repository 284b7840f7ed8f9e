"""Chances of a distance agree with draws, with scipy and with themselves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from index.distances.moments import cumulants, incomplete_gamma, match_chance, squared_distance
from index.distances.parameters import Densities
from tests.index.regimes import gaussians

RANDOM = np.random.default_rng(0)
DRAWS = 100_000


def pair(dim: int) -> tuple[Densities, Densities, np.ndarray]:
    """Two Gaussians and draws of the squared distance of their draws."""
    both = gaussians(2, dim, regime="mild", seed=3)
    mean, variance = both.mean.astype(np.float64), both.variance.astype(np.float64) * 2
    gap = RANDOM.normal(mean[0] - mean[1], np.sqrt(variance[0] + variance[1]), (DRAWS, dim))
    return Densities(mean[:1], variance[:1]), Densities(mean[1:], variance[1:]), (gap**2).sum(axis=1)


@pytest.mark.parametrize("a", [0.01, 0.5, 3.0, 80.0, 5000.0])
def test_the_incomplete_gamma_function_is_that_of_scipy(a: float) -> None:
    x = a * np.linspace(0, 3, 61)
    np.testing.assert_allclose(incomplete_gamma(np.array(a), x), special.gammainc(a, x), atol=1e-11)


def test_it_stays_true_where_the_normal_takes_over() -> None:
    a = 3e4
    x = a + np.sqrt(a) * np.linspace(-4, 4, 41)
    np.testing.assert_allclose(incomplete_gamma(np.array(a), x), special.gammainc(a, x), atol=1e-6)


def test_cumulants_are_those_of_draws() -> None:
    query, item, squared = pair(32)
    mean, variance, third = (float(x[0]) for x in cumulants(query, item))
    assert mean == pytest.approx(squared.mean(), abs=4 * squared.std() / DRAWS**0.5)
    assert variance == pytest.approx(squared.var(), rel=0.03)
    assert third == pytest.approx(((squared - mean) ** 3).mean(), rel=0.1)


@pytest.mark.parametrize("dim", [16, 128])
def test_the_chance_of_a_distance_is_that_of_draws(dim: int) -> None:
    query, item, squared = pair(dim)
    thresholds = np.quantile(squared, np.linspace(0.02, 0.98, 25))
    drawn = (squared[:, None] < thresholds).mean(axis=0)
    error = np.sqrt(drawn * (1 - drawn) / DRAWS)
    found = squared_distance(query, item).below(thresholds)
    assert (np.abs(found - drawn) < 4 * error + 1.5e-3).all()


def test_it_rises_with_the_threshold_falls_with_the_distance_and_obeys_cantelli() -> None:
    query, item, _ = pair(32)
    law = squared_distance(query, item)
    thresholds = np.linspace(0, 3, 200)
    chances = law.below(thresholds)
    assert (np.diff(chances) >= -1e-12).all()
    far = Densities(item.mean + 1.0, item.variance)
    assert (squared_distance(query, far).below(thresholds) <= chances + 1e-12).all()
    mean, variance, _ = cumulants(query, item)
    below = thresholds < mean
    bound = variance / (variance + (mean - thresholds[below]) ** 2)
    assert (chances[below] <= bound).all()


@pytest.mark.parametrize("dim", [16, 128])
def test_the_match_chance_is_the_mean_sigmoid_of_draws(dim: int) -> None:
    query, item, squared = pair(dim)
    slope, offset = 4.0, 4.0 * float(np.sqrt(squared).mean()) + 0.5
    drawn = 1 / (1 + np.exp(slope * np.sqrt(squared) - offset))
    found = match_chance(query, item, slope, offset)
    assert found[0] == pytest.approx(drawn.mean(), abs=4 * drawn.std() / DRAWS**0.5 + 1e-3)


def test_pairs_broadcast() -> None:
    items = gaussians(7, 8)
    densities = Densities(items.mean.astype(np.float64), items.variance.astype(np.float64))
    grid = squared_distance(densities.across(), densities).below(0.5)
    assert grid.shape == (7, 7)
    np.testing.assert_allclose(grid, grid.T, rtol=1e-9)
