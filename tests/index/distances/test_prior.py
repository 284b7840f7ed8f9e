"""The prior of `posterior` is what its moments are, by draws and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from index.distances import DistanceParameters, fit_prior, pairwise
from vssl.embeddings.gaussian import GaussianEmbedding


def items_of(mean: list[list[float]], variance: list[float]) -> GaussianEmbedding:
    """Items of these means, all of one variance."""
    return GaussianEmbedding(np.array(mean, np.float32), np.array([variance] * len(mean), np.float32))


def test_the_prior_splits_the_variance_into_between_and_within() -> None:
    random = np.random.default_rng(0)
    classes, each_, dim = 400, 20, 3
    b, w, v = np.array([1.0, 0.5, 0.2]), np.array([0.1, 0.2, 0.3]), 0.05
    centres = 2.0 + random.normal(0, np.sqrt(b), (classes, dim))
    labels = np.repeat(np.arange(classes), each_)
    mean = centres[labels] + random.normal(0, np.sqrt(w + v), (len(labels), dim))
    items = GaussianEmbedding(mean.astype(np.float32), np.full(mean.shape, v, np.float32))
    fitted = fit_prior(items, [str(x) for x in labels])
    np.testing.assert_allclose(fitted.between, b, rtol=0.2)
    np.testing.assert_allclose(fitted.within, w, rtol=0.05)
    np.testing.assert_allclose(fitted.centre, 2.0, atol=0.15)
    some = [str(x) if i % 2 else None for i, x in enumerate(labels)]
    np.testing.assert_allclose(fit_prior(items, some).within, w, rtol=0.1)
    unlabelled = fit_prior(items)
    np.testing.assert_allclose(unlabelled.within, v / 4, rtol=1e-5)
    assert fit_prior(items, [str(i) for i in range(len(items))]) == unlabelled


def test_without_labels_by_hand() -> None:
    """Two items each in four dimensions, whose totals are 1, 4, 100 and 1e-4; alpha 2 doubles the variances.

    within, a quarter of the encoder variance: as it is; as it is; a thousandth of the total; the floor.
    between, total - noise - within: as it is; a tenth of the total; as it is; the floor.
    """
    items = items_of([[1, -2, 20, 3.01], [3, 2, 0, 2.99]], [0.1, 20.0, 0.02, 1e-5])
    fitted = fit_prior(items, parameters=DistanceParameters(alpha=2.0, floor=1e-3))
    assert fitted.within == pytest.approx([0.025, 5.0, 0.1, 1e-3], rel=1e-5)
    assert fitted.between == pytest.approx([1 - 0.2 - 0.025, 0.4, 100 - 0.04 - 0.005, 1e-3], rel=1e-5)
    assert fitted.centre == pytest.approx([2, 0, 10, 3])
    assert (fitted.alpha, fitted.floor) == (2.0, 1e-3)


def test_with_labels_by_hand() -> None:
    """Class a lies at 1 and 3, b at 8, and 12 is nobody's: it counts for the total alone.

    The squares about the class means are 2, of 3 - 2 degrees of freedom; the total is (25 + 9 + 4 + 36) / 4.
    """
    items = items_of([[1], [3], [8], [12]], [0.5])
    fitted = fit_prior(items, ["a", "a", "b", None])
    assert (fitted.between, fitted.within, fitted.centre) == ((18.5 - 2.0,), (1.5,), (6.0,))
    pair = fit_prior(items, ["a", "a", None, None])
    assert (pair.between, pair.within) == ((18.5 - 2.0,), (1.5,))


@pytest.mark.parametrize("labels", [[None] * 4, ["a", None, None, None], ["a", "b", "c", None]])
def test_labels_that_no_two_items_share_say_nothing(labels: list[str | None]) -> None:
    items = items_of([[1], [3], [8], [12]], [0.5])
    assert fit_prior(items, labels) == fit_prior(items)


def test_without_a_prior_that_of_the_items_is_taken_for_the_alpha_that_was_asked() -> None:
    queries, items = items_of([[0.5], [2]], [0.3]), items_of([[1], [3], [8], [12]], [0.5])
    few = DistanceParameters(alpha=1 / 16)
    for asked, meant in ((DistanceParameters(alpha=2.0, floor=1e-3),) * 2, (few, few), (None, few)):
        expected = pairwise("posterior", queries, items, fit_prior(items, parameters=meant))
        np.testing.assert_array_equal(pairwise("posterior", queries, items, asked), expected)


def test_no_items_have_a_prior_too() -> None:
    queries = items_of([[0.5, 1], [2, 1]], [0.3, 0.2])
    assert pairwise("posterior", queries, queries[:0]).shape == (2, 0)
