"""The offline classifier is the one that an independent tool fits."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from train.evaluation.linear import linear_predict


def test_linear_agrees_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(4, 6))
    labels = random.integers(0, 4, 400)
    features = (centres[labels] + random.normal(0, 0.9, (400, 6))) * [1, 10, 0.1, 5, 1, 1]
    standard = (features - features[:300].mean(0)) / features[:300].std(0)
    expected = (
        LogisticRegression(C=1.0, max_iter=1000).fit(standard[:300], labels[:300]).predict(standard[300:])
    )
    tensors = torch.from_numpy(features).float(), torch.from_numpy(labels)
    found = linear_predict(tensors[0][:300], tensors[1][:300], tensors[0][300:], 4).numpy()
    assert (found == expected).mean() > 0.93
    assert (found == labels[300:]).mean() > (expected == labels[300:]).mean() - 0.05
