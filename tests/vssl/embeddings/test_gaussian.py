"""Diagonal Gaussians: what is accepted, how they are normalised, what uncertainty means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError


def gaussians(rows: int = 4, dim: int = 6, seed: int = 0) -> GaussianEmbedding:
    random = np.random.default_rng(seed)
    mean = random.normal(size=(rows, dim)).astype(np.float32)
    return GaussianEmbedding(mean, np.exp(random.normal(-2, 1, (rows, dim))).astype(np.float32))


PAIRS = st.tuples(st.integers(0, 5), st.integers(2, 8)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=st.floats(-100, 100, width=32)),
        hnp.arrays(np.float32, shape, elements=st.floats(2**-20, 1000, width=32)),
    )
)

GOOD = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("mean", "variance", "message"),
    [
        (GOOD.astype(np.float64), GOOD, "mean: found float64"),
        (GOOD[0], GOOD[0], r"mean: found float32 of shape \(3,\)"),
        (GOOD, [[1.0]], "variance: found"),
        (GOOD, np.ones((2, 4), np.float32), "differ in shape"),
        (GOOD * np.nan, GOOD, "mean: found NaN or infinity"),
        (GOOD, GOOD * np.inf, "variance: found NaN or infinity"),
        (GOOD, GOOD * 0, "variance: found 0.0, expected positive"),
        (GOOD, -GOOD, "expected positive"),
    ],
)
def test_what_is_no_gaussian_is_refused(mean: np.ndarray, variance: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GaussianEmbedding(mean, variance)


class TestFromLists:
    def test_one_row_may_be_unbatched(self) -> None:
        found = GaussianEmbedding.from_lists([1, 2], [0.5, 0.25])
        assert found.mean.tolist() == [[1.0, 2.0]]
        assert found.mean.dtype == np.float32

    @pytest.mark.parametrize("mean", [["a"], [[1], [1, 2]], None, [1e300, 1.0], [{}], "12"])
    def test_anything_else_is_an_input_error(self, mean: object) -> None:
        with pytest.raises(InputError):
            GaussianEmbedding.from_lists(mean, [1.0, 1.0])


@given(pair=PAIRS)
def test_concatenating_the_rows_gives_the_whole(pair: tuple[np.ndarray, np.ndarray]) -> None:
    whole = GaussianEmbedding(*pair)
    parts = [whole[i : i + 1] for i in range(len(whole))]
    if parts:
        joined = GaussianEmbedding.concatenate(parts)
        assert np.array_equal(joined.mean, whole.mean)
        assert np.array_equal(joined.variance, whole.variance)
    assert whole.dim == pair[0].shape[1]


class TestNormalised:
    def test_mean_and_variance_are_one_object(self) -> None:
        found = gaussians().normalised()
        norm = np.linalg.norm(gaussians().mean, axis=1, keepdims=True)
        np.testing.assert_allclose(np.linalg.norm(found.mean, axis=1), 1, rtol=1e-6)
        np.testing.assert_allclose(found.variance, gaussians().variance / norm**2, rtol=1e-5)

    @given(scale=st.floats(2**-10, 2**10))
    def test_the_scale_of_a_gaussian_does_not_matter(self, scale: float) -> None:
        g = gaussians()
        scaled = GaussianEmbedding(
            (g.mean * scale).astype(np.float32), (g.variance * scale**2).astype(np.float32)
        )
        np.testing.assert_allclose(scaled.normalised().mean, g.normalised().mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(scaled.normalised().variance, g.normalised().variance, rtol=1e-4)

    def test_a_zero_mean_has_no_direction(self) -> None:
        with pytest.raises(InputError, match="row 1: its mean is the zero vector"):
            GaussianEmbedding(np.array([[1, 0], [0, 0]], np.float32), GOOD[:, :2]).normalised()

    def test_a_variance_that_underflows_stays_positive(self) -> None:
        tiny = GaussianEmbedding(GOOD * 1e15, GOOD * 1e-30).normalised()
        assert (tiny.variance > 0).all()


class TestUncertainty:
    def test_it_is_the_formula_of_the_card(self) -> None:
        g = gaussians(rows=20)
        mean, variance = g.mean.astype(np.float64), g.variance.astype(np.float64)
        for i in range(20):
            direction = mean[i] / np.linalg.norm(mean[i])
            across = np.trace((np.eye(6) - np.outer(direction, direction)) @ np.diag(variance[i]))
            expected = 1 - 1 / np.sqrt(1 + across / (mean[i] @ mean[i]))
            assert g.uncertainty[i] == pytest.approx(expected, rel=1e-5)

    def test_it_predicts_the_loss_of_cosine_similarity(self) -> None:
        """Against draws from the Gaussian, many dimensions and a modest spread."""
        random = np.random.default_rng(1)
        mean = random.normal(size=(1, 128)).astype(np.float32)
        variance = np.exp(random.normal(-2, 0.5, (1, 128))).astype(np.float32)
        draws = mean + random.normal(size=(20_000, 128)) * np.sqrt(variance)
        cosine = (draws @ mean[0]) / np.linalg.norm(draws, axis=1) / np.linalg.norm(mean)
        assert GaussianEmbedding(mean, variance).uncertainty[0] == pytest.approx(1 - cosine.mean(), rel=0.02)

    def test_more_variance_is_less_sure(self) -> None:
        g = gaussians(rows=1)
        spread = [
            GaussianEmbedding(g.mean, (g.variance * f).astype(np.float32)).uncertainty[0]
            for f in (0.1, 1, 10, 1e4)
        ]
        assert spread == sorted(spread)
        assert spread[0] < spread[-1]

    @given(pair=PAIRS)
    def test_it_lies_from_0_to_1_for_any_gaussian(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        found = GaussianEmbedding(*pair).uncertainty
        assert found.shape == (len(pair[0]),)
        assert found.dtype == np.float32
        assert ((found >= 0) & (found <= 1)).all()

    @given(pair=PAIRS, scale=st.floats(0.01, 100))
    def test_normalising_does_not_change_it(self, pair: tuple[np.ndarray, np.ndarray], scale: float) -> None:
        keep = np.linalg.norm(pair[0], axis=1) > 1e-3
        g = GaussianEmbedding(pair[0][keep], pair[1][keep])
        np.testing.assert_allclose(g.normalised().uncertainty, g.uncertainty, rtol=1e-3, atol=1e-5)

    def test_small_variances_do_not_cancel_to_zero(self) -> None:
        g = GaussianEmbedding(np.array([[1, 0]], np.float32), np.array([[1e-12, 1e-12]], np.float32))
        assert g.uncertainty[0] == pytest.approx(5e-13, rel=1e-3)


class TestPredictedUncertainty:
    """What a model says of itself is kept through everything that is done to its Gaussians."""

    def predicted(self) -> GaussianEmbedding:
        g = gaussians()
        return GaussianEmbedding(g.mean, g.variance, np.array([0.1, 0.9, 0.4, 0.0], np.float32))

    def test_it_is_the_uncertainty(self) -> None:
        assert self.predicted().uncertainty.tolist() == pytest.approx([0.1, 0.9, 0.4, 0.0])
        assert np.array_equal(self.predicted().expected_spread, gaussians().uncertainty)

    def test_rows_batches_and_normalising_keep_it(self) -> None:
        g = self.predicted()
        assert g[2:].uncertainty.tolist() == pytest.approx([0.4, 0.0])
        assert np.array_equal(
            GaussianEmbedding.concatenate([g[:1], g[1:1], g[1:]]).uncertainty, g.uncertainty
        )
        assert np.array_equal(g.normalised().uncertainty, g.uncertainty)

    def test_it_is_not_mixed_with_what_is_derived(self) -> None:
        with pytest.raises(
            InputError, match="rows of a model that predicts it together with rows without it"
        ):
            GaussianEmbedding.concatenate([self.predicted(), gaussians()])

    @pytest.mark.parametrize(
        ("found", "message"),
        [
            (np.ones(3, np.float32), r"of shape \(3,\), expected a float32 array of shape \(4,\)"),
            (np.ones(4), "found float64"),
            (np.array([0, 0, 0, 1.5], np.float32), "outside of 0..1"),
            (np.array([0, np.nan, 0, 0], np.float32), "outside of 0..1"),
        ],
    )
    def test_what_is_no_share_is_refused(self, found: np.ndarray, message: str) -> None:
        with pytest.raises(InputError, match=message):
            GaussianEmbedding(gaussians().mean, gaussians().variance, found)
