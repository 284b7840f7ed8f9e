"""On real images that no curve was fitted on, seven in ten means seven in ten and five in a hundred means at most five.

The images are scikit-learn's handwritten digits; the encoder is six principal components of the
pixels of other digits, weak enough to err, and the variance is what shifts by a pixel make of them.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_digits

from index.answers.result_building import abstention_inputs
from index.calibration.abstention import NEIGHBOURS
from index.calibration.match import fit_match
from index.distances import SIGNED, pairwise
from index.evaluation.dataset import Dataset
from index.evaluation.evaluate import Settings, evaluate
from index.gallery.folder.gallery import FolderGallery
from index.metrics.calibration import ece
from tests.index.samples import MODEL, card
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows

DIM, AXES = 6, 300


def digits() -> Rows:
    """The 1,497 digits that the axes were not fitted on, in random order."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    pixels, labels = pixels[order].reshape(-1, 8, 8) / 16, labels[order]
    flat = pixels.reshape(len(pixels), -1)
    centre = flat[:AXES].mean(axis=0)
    axes = np.linalg.eigh(np.cov((flat[:AXES] - centre).T))[1][:, ::-1][:, :DIM]
    views = [
        np.roll(pixels, shift, (1, 2)).reshape(flat.shape) for shift in ((0, 1), (0, -1), (1, 0), (-1, 0))
    ]
    mean = (flat - centre) @ axes
    variance = np.mean([((view - centre) @ axes - mean) ** 2 for view in views], axis=0) + 1e-4
    names = [f"digit/{row}" for row in range(len(pixels) - AXES)]
    gaussians = GaussianEmbedding(mean[AXES:].astype(np.float32), variance[AXES:].astype(np.float32))
    return Rows(names, names, [str(label) for label in labels[AXES:]], gaussians)


def part(rows: Rows, which: slice) -> Rows:
    return Rows(rows.ids[which], rows.paths[which], rows.labels[which], rows.gaussians[which])


ROWS = digits()
STORED, ASKED = part(ROWS, slice(0, 900)), part(ROWS, slice(900, 1497))


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> FolderGallery:
    with FolderGallery.create(
        tmp_path_factory.mktemp("digits") / "gallery", card=card(DIM), model_id=MODEL
    ) as made:
        made.add(STORED)
        made.fit()
        yield made  # type: ignore[misc]


@pytest.mark.parametrize("distance", ["cosine", "wasserstein", "mls", "posterior"])
def test_match_probabilities_of_held_out_digits_are_calibrated(gallery: FolderGallery, distance: str) -> None:
    answers = gallery.search(ASKED.gaussians, 10, distance=distance)
    probability = np.array(
        [[n.match_probability for n in answer.neighbours] for answer in answers], np.float64
    )
    same = np.array(
        [[n.label == own for n in a.neighbours] for a, own in zip(answers, ASKED.labels, strict=True)]
    )
    assert 0.5 < same.mean() < 0.9
    assert ece(probability.ravel(), same.ravel()) <= 0.03
    # A curve fitted on pairs drawn at random, which are told apart more easily, is not.
    random = np.random.default_rng(0)
    items, fitting = STORED.gaussians.normalised(), gallery.fitting
    assert fitting is not None
    table = pairwise(distance, items, items, fitting.constants[distance])
    first, second = random.integers(0, len(items), (2, 10_000))
    first, second = first[first != second], second[first != second]
    labels, unsure = np.array(STORED.labels), STORED.gaussians.uncertainty.astype(np.float64)
    easy = fit_match(
        table[first, second],
        unsure[first],
        unsure[second],
        labels[first] == labels[second],
        signed=distance in SIGNED,
    )
    assert easy is not None
    reach = np.array([[n.distance for n in answer.neighbours] for answer in answers])
    found = np.array([[n.uncertainty for n in answer.neighbours] for answer in answers])
    own = np.array([answer.uncertainty for answer in answers])[:, None]
    assert ece(easy.probability(reach, own, found).ravel(), same.ravel()) > 0.03


@pytest.mark.parametrize("distance", ["cosine", "posterior"])
def test_a_risk_is_kept_on_held_out_digits_at_the_largest_coverage(
    gallery: FolderGallery, distance: str
) -> None:
    answers = gallery.search(ASKED.gaussians, NEIGHBOURS, distance=distance)
    wrong = np.array([a.neighbours[0].label != own for a, own in zip(answers, ASKED.labels, strict=True)])
    assert wrong.mean() > 0.1
    rule = gallery.abstention(0.05, distance)
    inputs = abstention_inputs(answers)
    taken = ~rule.abstains(inputs)
    assert taken.mean() > 0.3
    assert wrong[taken].mean() <= 0.05
    # More errors than this would happen in one of a hundred draws at a risk of 5 %.
    assert wrong[taken].sum() <= stats.binom.ppf(0.99, taken.sum(), 0.05)
    found = gallery.search(ASKED.gaussians, 3, distance=distance, max_risk=0.05)
    assert [not one.abstain for one in found] == taken.tolist()
    coverage = {name: t.accepts(rule.scores(inputs)[name]).mean() for name, t in rule.thresholds.items()}
    assert taken.mean() >= max(coverage.values()) - 0.05


def test_an_evaluation_reports_the_same_promise() -> None:
    sides = [
        Dataset(name, rows.ids, rows.labels, rows.gaussians, card(DIM), MODEL)
        for name, rows in (("gallery", STORED), ("queries", ASKED))
    ]
    report = evaluate(*sides, Settings(resamples=20, max_risk=0.05))
    metrics, chosen = report["metrics"], report["chosen"]["abstention"]
    assert metrics["coverage_best"] == metrics[f"coverage_{chosen['score']}"] > 0.3
    assert metrics["risk_best"] <= 0.05
