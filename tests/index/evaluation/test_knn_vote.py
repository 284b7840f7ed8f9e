"""The vote that is right most often on images it was not fitted on becomes the best, the control stays otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from index.evaluation.context import arrange
from index.evaluation.evaluate import Settings, evaluate
from index.evaluation.knn_vote import Vote, best_vote, fit_votes
from tests.index.evaluation.test_evaluate import corpus
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
    gaussians = GaussianEmbedding(mean.astype(np.float32), variance.astype(np.float32))
    return Rows(names, names, [str(label) for label in labels], gaussians)


def test_a_vote_that_reads_variance_wins_where_variance_tells_the_sharp_from_the_blurred() -> None:
    gallery = corpus(blurred(1200, seed=0, prefix="i"), normalise=False)
    queries = corpus(blurred(600, seed=1, prefix="q"), normalise=False)
    report = evaluate(gallery, queries, SETTINGS)
    metrics, vote = report["metrics"], report["chosen"]["vote"]
    assert vote["weighting"] != "cosine"
    assert vote["gain"] > 2 * vote["gain_error"] > 0
    assert metrics["knn_best_top1"] > metrics["knn_top1"] + 0.02
    kind, wide = vote["weighting"].replace("-", "_"), "" if vote["k"] == 20 else "200"
    assert metrics["knn_best_top1"] == metrics[f"knn{wide}_top1_{kind}"]
    assert metrics["knn_best_ece"] < 0.06


def test_without_a_gain_beyond_doubt_the_control_stays() -> None:
    gallery, queries = corpus(sample(600)), corpus(sample(300, seed=1, prefix="q"))
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
    gallery, queries = corpus(sample(400)), corpus(sample(20, seed=1, prefix="q"))
    setting = arrange(gallery, queries, SETTINGS)
    fitted = fit_votes(setting, SETTINGS)
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
