"""What a run watches: the same figures as plain tools give on the same codes, and nothing left changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import nn

from train.augment.views import Views
from train.evaluation.monitor import EvaluationSet, embed, watch
from train.methods import new_method
from train.methods.method import Method
from train.settings.config import AugmentConfig, EvaluationConfig, NetworkConfig, TrainConfig
from vssl.embeddings.gaussian import GaussianEmbedding

CPU = torch.device("cpu")
HEAD = {"spread_variance", "norm_variance", "variance_mean", "variance_least", "variance_spread",
        "variance_spread_dims"}  # fmt: skip
LABELLED = {"knn_top1", "knn_top1_mean", "linear_top1", "nearest_top1", "r_auroc_views"}


def method_named(name: str) -> Method:
    torch.manual_seed(0)
    network = NetworkConfig("resnet8", 8, "medium", 6, 16, 12, 12)
    options: dict[str, Any] = {"queue": 24} if name == "nnclr" else {}
    return new_method(TrainConfig(method=name, network=network, size=16, cache_size=16, options=options))


def images(labelled: bool = True) -> EvaluationSet:
    random = np.random.default_rng(2)
    train_images, queries = (random.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8) for n in (60, 40))
    labels = (random.integers(0, 3, 60), random.integers(0, 3, 40)) if labelled else (None, None)
    rows = np.arange(0, 40, 2)
    return EvaluationSet(train_images, queries, queries[rows], *labels, 3 if labelled else 0, rows)


def watched(method: Method, data: EvaluationSet, augment: AugmentConfig | None = None) -> dict[str, float]:
    views = Views(augment or AugmentConfig(), 16)
    classifier = nn.Linear(method.student.feature_dim, 3)
    with torch.no_grad():
        return watch(
            method.student, method.teacher, classifier, data, (views, views), EvaluationConfig(), CPU,
            torch.Generator().manual_seed(0), method.positive_variance,
        )  # fmt: skip


@pytest.mark.parametrize("name", ["vssl", "vssl-gaussian", "vje", "byol", "simclr"])
def test_every_method_logs_what_it_has(name: str) -> None:
    found = watched(method_named(name), images())
    variational = name.startswith("v")
    assert (set(found) >= HEAD) == variational
    assert ("r_auroc" in found) == ("r_auroc_features" in found) == variational
    assert set(found) >= LABELLED
    assert ("teacher_cosine_mean" in found) == (name not in ("simclr", "vje"))
    assert ("teacher_cosine_variance" in found) == (name in ("vssl", "vssl-gaussian"))
    assert all(np.isfinite(value) for value in found.values())


def test_without_labels_what_needs_none_is_still_there() -> None:
    found = watched(method_named("vssl"), images(labelled=False))
    assert set(found) >= {*HEAD, "variance_spread_views", "view_recall", "spread_features", "rank_features"}
    assert not set(found) & {*LABELLED, "r_auroc"}


def test_the_variance_s_figures_are_those_of_plain_tools() -> None:
    method, data = method_named("vje"), images()
    assert data.query_labels is not None
    found = watched(method, data)
    method.eval()
    codes = embed(method.student, data.queries, CPU)
    assert codes.raw_variance is not None
    mean = codes.mean.numpy()
    variance = np.log1p(np.exp(codes.raw_variance.double().numpy())) + 1e-4
    assert found["variance_spread"] == pytest.approx(variance.mean(1).std() / variance.mean(), rel=1e-4)
    assert found["variance_spread_dims"] == pytest.approx(variance.mean(0).std() / variance.mean(), rel=1e-4)
    assert found["variance_mean"] == pytest.approx(variance.mean(), rel=1e-4)
    assert found["variance_least"] == pytest.approx(variance.min(), rel=1e-4)
    assert found["norm_mean"] == pytest.approx(np.linalg.norm(mean, axis=1).mean(), rel=1e-4)
    near = NearestNeighbors(n_neighbors=2, metric="cosine", algorithm="brute").fit(mean)
    wrong = data.query_labels[near.kneighbors(mean)[1][:, 1]] != data.query_labels
    unsure = GaussianEmbedding(mean, variance.astype(np.float32)).uncertainty
    assert found["r_auroc"] == pytest.approx(roc_auc_score(wrong, unsure), abs=1e-6)


def test_views_without_randomness_have_no_spread() -> None:
    still = AugmentConfig(
        crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0, jitter=0, grey=0, blur=0, solarise=0
    )
    method, data = method_named("byol"), images()
    method.eval()
    calm, moved = watched(method, data, still), watched(method, data)
    assert calm["view_recall"] == 1.0
    assert moved["view_recall"] < 1.0
    assert moved["variance_spread_views"] > 0.05


def test_watching_changes_nothing() -> None:
    method = method_named("vssl")
    method.student.train()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    found = []
    for _ in range(2):
        torch.manual_seed(3)  # the classifier's weights
        found.append(watched(method, images()))
    assert method.student.training
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert found[0] == found[1]


def test_a_variance_that_is_the_same_for_every_image_shows() -> None:
    method = method_named("vssl-gaussian")
    last = method.student.projector.trunk[3]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight[6:] = 0.0
    found = watched(method, images())
    assert found["variance_spread"] == pytest.approx(0.0, abs=1e-6)
    assert found["variance_spread_dims"] > 0.01
