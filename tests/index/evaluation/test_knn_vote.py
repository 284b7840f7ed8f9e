"""The vote that is right most often on images it was not fitted on becomes the best, the control stays otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.regimes import gaussians
from index.distances import DistanceParameters, fit_prior, pairwise
from index.evaluation.context import make_context
from index.evaluation.evaluate import Settings, evaluate
from index.evaluation.knn_vote import (
    TEMPERATURES,
    WEIGHTINGS,
    Vote,
    VoteInputs,
    best_vote,
    fit_temperature,
    fit_votes,
    log_weights,
    probabilities,
    vote_inputs,
)
from index.metrics.calibration import ece
from index.metrics.vote import votes
from tests.index.evaluation.test_evaluate import dataset
from tests.index.samples import sample
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows

SETTINGS = Settings(resamples=20)
KINDS = ("cosine", "inverse_variance", "attenuated", "likelihood", "posterior")


def blurred(count: int, *, seed: int, prefix: str) -> Rows:
    """Half of the images are sharp, half lie far from their class, as their variance says."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 6
    variance = np.where(random.random((count, 1)) < 0.5, 0.05, 3.0) * np.ones((1, 8))
    centres = np.random.default_rng(99).normal(size=(6, 8))
    mean = centres[labels] + random.normal(0, np.sqrt(variance))
    names = [f"{prefix}{i}" for i in range(count)]
    made = GaussianEmbedding(mean.astype(np.float32), variance.astype(np.float32))
    return Rows(names, names, [str(label) for label in labels], made)


def test_a_vote_that_reads_variance_wins_where_variance_tells_the_sharp_from_the_blurred() -> None:
    gallery = dataset(blurred(1200, seed=0, prefix="i"), normalise=False)
    queries = dataset(blurred(600, seed=1, prefix="q"), normalise=False)
    report = evaluate(gallery, queries, SETTINGS)
    metrics, vote = report["metrics"], report["chosen"]["vote"]
    assert vote["weighting"] != "cosine"
    assert vote["gain"] > 2 * vote["gain_error"] > 0
    assert metrics["knn_best_top1"] > metrics["knn_top1"] + 0.02
    kind, wide = vote["weighting"].replace("-", "_"), "" if vote["k"] == 20 else "200"
    assert metrics["knn_best_top1"] == metrics[f"knn{wide}_top1_{kind}"]
    assert metrics["knn_best_ece"] < 0.06


def test_without_a_significant_gain_the_control_stays() -> None:
    gallery, queries = dataset(sample(600)), dataset(sample(300, seed=1, prefix="q"))
    report = evaluate(gallery, queries, SETTINGS)
    metrics, vote = report["metrics"], report["chosen"]["vote"]
    assert (vote["weighting"], vote["k"]) == ("cosine", 20)
    assert metrics["knn_best_top1"] == metrics["knn_top1_cosine"]
    assert metrics["knn_best_ece"] == metrics["knn_ece_cosine"]
    for wide in ("", "200"):
        for kind in KINDS:
            assert metrics[f"knn{wide}_top1_{kind}"] > 0.6
            assert metrics[f"knn{wide}_ece_{kind}"] < 0.1


def test_temperatures_are_fitted_on_one_half_and_judged_on_the_other() -> None:
    gallery, queries = dataset(sample(400)), dataset(sample(20, seed=1, prefix="q"))
    context = make_context(gallery, queries, SETTINGS)
    fitted = fit_votes(context, SETTINGS)
    assert [(vote.weighting, vote.k) for vote in fitted] == [
        (kind.replace("_", "-"), k) for k in (20, 200) for kind in KINDS
    ]
    assert fitted[0].gain_error < 0.05


@pytest.mark.parametrize(
    ("gain", "error", "wins"), [(0.021, 0.01, True), (0.019, 0.01, False), (0.0, 0.0, False)]
)
def test_two_standard_errors_are_wanted(gain: float, error: float, wins: bool) -> None:
    control, other = Vote("cosine", 20, 0.07, 0.0, 0.0), Vote("likelihood", 200, 1.0, gain, error)
    assert best_vote([control, other]) == (other if wins else control)


ITEMS, QUERIES = gaussians(50, 6, regime="wide"), gaussians(8, 6, regime="wide", seed=1)
CODES = np.random.default_rng(0).integers(0, 3, 50)
COSINE = 1 - pairwise("cosine", QUERIES, ITEMS)
ROWS = np.argsort(-COSINE, axis=1)[:, :10]
INPUTS = vote_inputs(QUERIES, ITEMS, CODES, ROWS, np.take_along_axis(COSINE, ROWS, axis=1))


def test_the_inputs_of_a_vote_are_those_of_the_found_items() -> None:
    np.testing.assert_array_equal(INPUTS.codes, CODES[ROWS])
    np.testing.assert_allclose(INPUTS.trace, ITEMS.variance.sum(axis=1)[ROWS], rtol=1e-6)
    np.testing.assert_allclose(
        INPUTS.likelihood, -np.take_along_axis(pairwise("mls", QUERIES, ITEMS), ROWS, axis=1)
    )
    np.testing.assert_allclose(
        INPUTS.ratio, -np.take_along_axis(pairwise("posterior", QUERIES, ITEMS), ROWS, axis=1)
    )
    fitted = {name: DistanceParameters(alpha=0.5) for name in ("mls", "posterior")}
    fitted["posterior"] = fit_prior(ITEMS, parameters=fitted["posterior"])
    other = vote_inputs(QUERIES, ITEMS, CODES, ROWS, INPUTS.cosine, fitted)
    for name, found in (("mls", other.likelihood), ("posterior", other.ratio)):
        expected = np.take_along_axis(pairwise(name, QUERIES, ITEMS, fitted[name]), ROWS, axis=1)
        np.testing.assert_allclose(found, -expected)
    np.testing.assert_array_equal(INPUTS.nearest(4).ratio, INPUTS.ratio[:, :4])
    np.testing.assert_array_equal(INPUTS.nearest(4).codes, INPUTS.codes[:, :4])
    missing = vote_inputs(QUERIES, ITEMS, CODES, np.full((8, 2), -1), np.full((8, 2), -np.inf))
    assert (missing.codes == -1).all()
    assert (votes(missing.codes, log_weights("likelihood", missing, 1.0), 3) == 0).all()


def test_weights_follow_their_formulas() -> None:
    weight = {kind: np.exp(log_weights(kind, INPUTS, 0.5)) for kind in WEIGHTINGS}
    np.testing.assert_allclose(weight["cosine"], np.exp(INPUTS.cosine / 0.5))
    np.testing.assert_allclose(weight["inverse-variance"], np.exp(INPUTS.cosine / 0.5) / INPUTS.trace)
    np.testing.assert_allclose(
        weight["attenuated"], np.exp(INPUTS.cosine * (1 - ITEMS.uncertainty)[ROWS] / 0.5), rtol=1e-6
    )
    np.testing.assert_allclose(weight["likelihood"], np.exp(INPUTS.likelihood) ** 2)
    np.testing.assert_allclose(weight["posterior"], np.exp(INPUTS.ratio) ** 2)


@pytest.mark.parametrize("true", [TEMPERATURES[6], TEMPERATURES[12]])
def test_the_fitted_temperature_is_the_one_that_drew_the_classes(true: float) -> None:
    random = np.random.default_rng(0)
    count, k, classes = 3000, 20, 4
    codes = random.integers(0, classes, (count, k))
    cosine = random.uniform(-0.5, 1, (count, k))
    ones = np.ones_like(cosine)
    made = VoteInputs(codes, cosine, ones, ones, cosine, cosine)
    chance = probabilities(votes(codes, cosine / true, classes), k)
    truth = np.array([random.choice(classes, p=row) for row in chance])
    fitted = fit_temperature("cosine", made, truth, classes)
    assert 0.7 < fitted / true < 1.5
    found = probabilities(votes(codes, log_weights("cosine", made, fitted), classes), k)
    assert ece(found.max(axis=1), found.argmax(axis=1) == truth) < 0.03


def test_probabilities_sum_to_one_and_none_is_zero() -> None:
    shares = np.array([[1.0, 0.0], [0.0, 0.0]])
    found = probabilities(shares, 4)
    assert found.min() > 0
    assert found[0].sum() == pytest.approx(1)
