"""The right constants and the right distance win where the data were made for them."""

from __future__ import annotations

import numpy as np
import pytest

from index.choice import Split, compare, fit_parameters, split, winner
from index.distances import NAMES, DistanceParameters, pairwise
from index.metrics.retrieval import average_precision_at_r
from vssl.errors import InputError
from vssl.gaussian import GaussianEmbedding


def classes(
    count: int = 2000, dim: int = 16, *, spread: float = 1.2, scale: float = 1.0
) -> tuple[GaussianEmbedding, list[str | None]]:
    """Classes of 20 whose images are blurred by their own variance, reported `scale` times too large."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % (count // 20)
    centres = random.normal(0, 1.0, (count // 20, dim))
    variance = np.exp(random.normal(-0.5, spread, (count, 1)) + random.normal(0, 0.3, (count, dim)))
    mean = centres[labels] + random.normal(0, 0.3, (count, dim)) + random.normal(0, np.sqrt(variance))
    items = GaussianEmbedding(mean.astype(np.float32), (scale * variance).astype(np.float32))
    return items, [str(label) for label in labels]


def test_the_model_that_made_the_data_wins_and_its_hubs_are_gone() -> None:
    items, labels = classes()
    trials = {trial.name: trial for trial in compare(items, labels, DistanceParameters(alpha=1.0))}
    assert set(trials) == set(NAMES)
    assert winner(list(trials.values())).name == "posterior"
    assert trials["posterior"].hub_max < trials["kl"].hub_max / 3
    assert trials["cosine"].gain == 0.0


def test_a_trial_is_what_brute_force_says() -> None:
    items, labels = classes(400)
    parts = split(labels)
    for name in ("cosine", "kl", "student-t", "mls", "posterior"):
        trial = compare(items, labels, names=[name])[-1]
        distances = pairwise(name, items[parts.asking], items[parts.answering], trial.parameters)
        order = np.argsort(distances, axis=1)
        relevant = np.take_along_axis(parts.relevant, order, axis=1)
        precision = average_precision_at_r(relevant, parts.relevant.sum(axis=1))
        assert trial.map_at_r == pytest.approx(precision.mean(), abs=1e-9)
        assert trial.recall_at_1 == pytest.approx(relevant[:, 0].mean())


def test_without_signal_in_the_variance_cosine_stays() -> None:
    items, labels = classes(spread=0.0)
    mean = items.mean / np.linalg.norm(items.mean, axis=1, keepdims=True)
    shuffled = np.random.default_rng(1).permutation(items.variance.ravel()).reshape(mean.shape)
    unit = GaussianEmbedding(mean, shuffled / 10)
    assert winner(compare(unit, labels, names=["cosine", "expected", "wasserstein", "kl"])).name == "cosine"


@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_alpha_undoes_a_wrong_scale_and_leaves_a_right_one(scale: float) -> None:
    items, labels = classes(scale=scale)
    fitted = fit_parameters(items, labels)
    assert 0.4 / scale <= fitted.alpha <= 2.5 / scale
    assert len(fitted.between) == 16
    kept = fit_parameters(items, labels, DistanceParameters(alpha=1 / scale))
    assert 0.4 / scale <= kept.alpha <= 2.5 / scale


def test_queries_never_answer_and_unlabelled_rows_do_neither() -> None:
    labels = [None if i % 7 == 0 else str(i % 5) for i in range(300)]
    parts: Split = split(labels, seed=1)
    assert not set(parts.asking) & set(parts.answering)
    assert all(labels[row] is not None for row in (*parts.asking, *parts.answering))
    for q in (0, 5):
        same = [labels[row] == labels[parts.asking[q]] for row in parts.answering]
        np.testing.assert_array_equal(parts.relevant[q], same)


def test_no_two_images_of_one_label_is_an_error() -> None:
    with pytest.raises(InputError, match="share a label"):
        split([str(i) for i in range(50)])
    with pytest.raises(InputError, match="share a label"):
        split([None] * 50)
