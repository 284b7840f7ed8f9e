"""Each distance is what its name says, against formulas written another way and against draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmarks.regimes import REGIMES, gaussians, shifted
from index.distances import NAMES, DistanceParameters, fit_prior, gathered, pairwise
from index.distances.encoding import Anchor
from index.distances.parameters import Densities
from index.distances.table import DISTANCES
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError

ITEMS, QUERIES = gaussians(6, 5, regime="wide"), gaussians(4, 5, regime="wide", seed=1)
PLAIN = DistanceParameters()
DOUBLE = [x.astype(np.float64) for x in (QUERIES.mean, QUERIES.variance, ITEMS.mean, ITEMS.variance)]


def each(function: object) -> np.ndarray:
    m, s, mu, v = DOUBLE
    return np.array(
        [[function(m[q], s[q], mu[x], v[x]) for x in range(len(mu))] for q in range(len(m))]  # type: ignore[operator]
    )


def kl(m: np.ndarray, s: np.ndarray, mu: np.ndarray, v: np.ndarray) -> float:
    """The matrix form of the textbook."""
    inverse = np.linalg.inv(np.diag(v))
    determinants = np.linalg.det(np.diag(v)) / np.linalg.det(np.diag(s))
    gap = mu - m
    return float(0.5 * (np.trace(inverse @ np.diag(s)) + gap @ inverse @ gap - len(m) + np.log(determinants)))


FORMULAS = {
    "cosine": lambda m, s, mu, v: 1 - m @ mu / np.linalg.norm(m) / np.linalg.norm(mu),
    "euclidean": lambda m, s, mu, v: np.linalg.norm(m - mu),
    "expected": lambda m, s, mu, v: np.linalg.norm(m - mu) ** 2 + s.sum() + v.sum(),
    "wasserstein": lambda m, s, mu, v: np.sqrt(
        np.linalg.norm(m - mu) ** 2 + (s + v - 2 * np.sqrt(s * v)).sum()
    ),
    "kl": kl,
    "reverse-kl": lambda m, s, mu, v: kl(mu, v, m, s),
    "jeffreys": lambda m, s, mu, v: kl(m, s, mu, v) + kl(mu, v, m, s),
    "mahalanobis": lambda m, s, mu, v: np.sqrt((m - mu) @ np.linalg.inv(np.diag(v)) @ (m - mu)),
    "student-t": lambda m, s, mu, v: -stats.multivariate_t(mu, np.diag(v), df=4).logpdf(m),
    "mls": lambda m, s, mu, v: -stats.multivariate_normal(mu, np.diag(s + v)).logpdf(m),
    "bhattacharyya": lambda m, s, mu, v: (
        (m - mu) @ np.linalg.inv(np.diag((s + v) / 2)) @ (m - mu) / 8
        + 0.5 * np.log(((s + v) / 2).prod() / np.sqrt(s.prod() * v.prod()))
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_it_equals_the_textbook(name: str) -> None:
    np.testing.assert_allclose(pairwise(name, QUERIES, ITEMS), each(FORMULAS[name]), rtol=1e-9, atol=1e-12)


def test_posterior_is_the_likelihood_ratio_of_one_class_against_two() -> None:
    """From the joint Gaussian of a pair, whose covariance between the two is the class's."""
    b, w, c = np.full(5, 0.3), np.linspace(0.05, 0.2, 5), np.linspace(-0.1, 0.1, 5)
    parameters = DistanceParameters(between=tuple(b), within=tuple(w), centre=tuple(c))

    def ratio(m: np.ndarray, s: np.ndarray, mu: np.ndarray, v: np.ndarray) -> float:
        total = 0.0
        for j in range(5):
            one = [[b[j] + w[j] + s[j], b[j]], [b[j], b[j] + w[j] + v[j]]]
            pair = np.array([m[j], mu[j]]) - c[j]
            total += stats.multivariate_normal([0, 0], one).logpdf(pair)
            total -= stats.multivariate_normal([0, 0], np.diag(np.diag(one))).logpdf(pair)
        return -total

    found = pairwise("posterior", QUERIES, ITEMS, parameters)
    np.testing.assert_allclose(found, each(ratio), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(pairwise("posterior", ITEMS, QUERIES, parameters), found.T, rtol=1e-9)


def test_expected_is_the_mean_of_squared_distances_of_draws() -> None:
    random = np.random.default_rng(0)
    m, s, mu, v = DOUBLE
    gap = random.normal(m[0] - mu[0], np.sqrt(s[0] + v[0]), (200_000, 5))
    squares = (gap**2).sum(axis=1)
    error = squares.std() / len(squares) ** 0.5
    assert abs(pairwise("expected", QUERIES, ITEMS)[0, 0] - squares.mean()) < 4 * error


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"posterior"}))
def test_a_common_offset_changes_nothing_but_directions(name: str) -> None:
    if name == "cosine":
        return
    moved = pairwise(name, shifted(QUERIES, 2.0), shifted(ITEMS, 2.0))
    np.testing.assert_allclose(moved, pairwise(name, QUERIES, ITEMS), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["expected", "wasserstein", "jeffreys", "kl", "mls", "bhattacharyya", "student-t"]
)
def test_with_equal_variances_it_ranks_as_euclidean(name: str) -> None:
    mean = gaussians(40, 6).mean
    items = GaussianEmbedding(mean, np.full_like(mean, 0.05))
    found = np.argsort(pairwise(name, items[:5], items), axis=1)
    np.testing.assert_array_equal(found, np.argsort(pairwise("euclidean", items[:5], items), axis=1))


def test_zero_vectors_have_no_direction() -> None:
    zero = GaussianEmbedding(np.zeros((1, 5), np.float32), np.ones((1, 5), np.float32))
    np.testing.assert_allclose(pairwise("cosine", zero, ITEMS), 1.0, rtol=1e-15)
    np.testing.assert_array_equal(pairwise("cosine", zero, zero), 1.0)
    some = GaussianEmbedding(np.concatenate([3 * ITEMS.mean, zero.mean]), ITEMS.variance[[0, *range(6)]])
    expected = np.concatenate([pairwise("cosine", QUERIES, ITEMS), np.ones((4, 1))], axis=1)
    np.testing.assert_allclose(pairwise("cosine", QUERIES, some), expected, rtol=1e-6)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", NAMES)
def test_its_encoding_is_the_distance_or_lies_below(name: str, regime: str) -> None:
    items, queries = gaussians(200, 16, regime=regime), gaussians(12, 16, regime=regime, seed=2)
    parameters = fit_prior(items)
    distance = DISTANCES[name]
    stored = distance.prepared(parameters.scaled(items), parameters)
    asked = distance.prepared(parameters.scaled(queries), parameters)
    anchor = Anchor.of(stored)
    phi, offset = distance.encode_queries(asked, anchor, parameters)
    psi = distance.encode_items(stored, anchor, parameters)
    found = distance.decode(offset[:, None] - phi @ psi.T, anchor, parameters)
    truth = pairwise(name, queries, items, parameters)
    if distance.bounds:
        assert (found <= truth + 1e-9).all()
        assert np.median(truth - found) < 0.5 * truth.std()  # it says something
    else:
        np.testing.assert_allclose(found, truth, rtol=1e-9, atol=1e-10)


def test_alpha_multiplies_the_variance_and_the_floor_raises_it() -> None:
    double = GaussianEmbedding(ITEMS.mean, ITEMS.variance * 2)
    asked = GaussianEmbedding(QUERIES.mean, QUERIES.variance * 2)
    scaled = pairwise("mls", QUERIES, ITEMS, DistanceParameters(alpha=2.0))
    np.testing.assert_allclose(scaled, pairwise("mls", asked, double), rtol=1e-6)
    tiny = GaussianEmbedding(ITEMS.mean, np.full_like(ITEMS.variance, 1e-12))
    floor = GaussianEmbedding(ITEMS.mean, np.full_like(ITEMS.variance, PLAIN.floor))
    np.testing.assert_allclose(pairwise("kl", QUERIES, tiny), pairwise("kl", QUERIES, floor), rtol=1e-6)
    np.testing.assert_array_less(pairwise("expected", QUERIES, tiny), pairwise("expected", QUERIES, floor))


def test_names_and_dimensions_are_checked() -> None:
    with pytest.raises(InputError, match=r"^distance: found 'angular', expected one of cosine, euclidean, "):
        pairwise("angular", QUERIES, ITEMS)
    with pytest.raises(InputError, match="dimensions"):
        pairwise("cosine", gaussians(1, 4), ITEMS)


@pytest.mark.parametrize("name", NAMES)
def test_gathered_distances_are_entries_of_the_pairwise_ones(name: str) -> None:
    rows = np.array([[0, 3, -1], [5, 5, 1], [-1, -1, -1], [2, 0, 4]])
    for parameters in (None, fit_prior(ITEMS, parameters=DistanceParameters(alpha=2.0, dof=7.0))):
        found = gathered(name, QUERIES, ITEMS, rows, parameters)
        every = pairwise(name, QUERIES, ITEMS, parameters)
        expected = np.where(rows >= 0, np.take_along_axis(every, np.maximum(rows, 0), axis=1), np.inf)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_each_query_meets_its_own_rows_of_items_at_once(name: str) -> None:
    """Queries (Q, 1, D) against items (Q, K, D), as in ranking candidates, and one query against one item."""
    rows, parameters, distance = np.array([[0, 3], [5, 1], [2, 2], [4, 0]]), fit_prior(ITEMS), DISTANCES[name]
    items, queries = (parameters.scaled(x) for x in (ITEMS, QUERIES))
    found = distance.exact(queries.across(), items.at(rows), parameters)
    expected = np.take_along_axis(pairwise(name, QUERIES, ITEMS, parameters), rows, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    one = (Densities(x.mean[0], x.variance[0]) for x in (queries, items))
    assert distance.exact(*one, parameters) == pytest.approx(expected[0, 0], rel=1e-12)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"cosine"}))
def test_an_encoding_does_not_grow_with_what_all_means_have_in_common(name: str) -> None:
    """It is built about the items' centre: float32 keeps the digits that tell items apart."""
    parameters, distance = fit_prior(ITEMS), DISTANCES[name]
    moved = replace(parameters, centre=tuple(x + 1000.0 for x in parameters.centre))
    items, queries = (parameters.scaled(x) for x in (ITEMS, QUERIES))
    far_items, far_queries = (Densities(x.mean + 1000.0, x.variance) for x in (items, queries))
    here, far = Anchor.of(items), Anchor.of(far_items)
    pairs = [
        (distance.encode_items(far_items, far, moved), distance.encode_items(items, here, parameters)),
        *zip(
            distance.encode_queries(far_queries, far, moved),
            distance.encode_queries(queries, here, parameters),
            strict=True,
        ),
    ]
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("factor", [0.01, 100.0])
@pytest.mark.parametrize("name", ["mls", "bhattacharyya", "posterior"])
def test_a_bound_holds_for_items_beyond_the_first_range(name: str, factor: float) -> None:
    first, queries = gaussians(100, 16), gaussians(30, 16, regime="wide", seed=2)
    more = GaussianEmbedding(first.mean, first.variance * np.float32(factor))
    parameters, distance = fit_prior(first), DISTANCES[name]
    stored, added = (distance.prepared(parameters.scaled(x), parameters) for x in (first, more))
    anchor = Anchor.of(stored).widened(added)
    asked = distance.prepared(parameters.scaled(queries), parameters)
    phi, offset = distance.encode_queries(asked, anchor, parameters)
    for items, densities in ((first, stored), (more, added)):
        found = offset[:, None] - phi @ distance.encode_items(densities, anchor, parameters).T
        assert (found <= pairwise(name, queries, items, parameters) + 1e-9).all()
