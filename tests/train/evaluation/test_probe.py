"""The probe's figures are those of independent tools on the same features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.train.picture_folder import TINY, write_pictures
from train.evaluation.probe import linear_predict, probe, wilson
from train.loop.run import train_images
from vssl.errors import InputError


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


def test_wilson_by_hand() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=2e-4)
    assert wilson(0, 20)[0] == 0.0
    assert wilson(20, 20)[1] == pytest.approx(1.0)


def test_a_run_is_probed_on_a_held_out_fifth(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures")
    train_images(str(pictures), tmp_path / "run", recipe="small", settings=TINY, device="cpu", threads=1)
    result = probe(tmp_path / "run", str(pictures))
    assert result.train_images + result.test_images == 72
    assert 8 <= result.test_images <= 24
    assert result.classes == 3
    assert len(result.accuracies) == 8  # two branches, two spaces, two classifiers
    for accuracy in result.accuracies.values():
        assert 0 <= accuracy.low <= accuracy.value <= accuracy.high <= 1
    same = probe(tmp_path / "run", str(pictures), str(pictures))
    assert same.test_images == 72


def test_images_without_labels_cannot_be_probed(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures")
    train_images(
        str(pictures),
        tmp_path / "run",
        recipe="small",
        settings={**TINY, "epochs": 0},
        device="cpu",
        threads=1,
    )
    with pytest.raises(InputError, match="found 0 classes"):
        probe(tmp_path / "run", str(pictures / "rings"), str(pictures))
