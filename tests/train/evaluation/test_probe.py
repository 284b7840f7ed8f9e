"""The probe measures both branches, and the classifier that was trained with the encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.train.picture_folder import TINY, write_pictures
from train.data.image_cache import load_images
from train.evaluation.probe import online_classifier, probe, wilson
from train.loop.run import train_images
from train.methods import build_encoder
from train.state.checkpoint import CHECKPOINT_NAME, load_checkpoint, save_checkpoint
from vssl.errors import InputError
from vssl.images.sources import open_source


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
    assert "may have seen the labels" in str(result.online_left_out)
    same = probe(tmp_path / "run", str(pictures), str(pictures))
    assert same.test_images == 72
    assert same.online_left_out is None
    assert set(same.accuracies) - set(result.accuracies) == {
        ("student", "features", "online"), ("teacher", "features", "online")
    }  # fmt: skip


def test_the_online_accuracy_is_that_of_the_stored_classifier_by_class_names(tmp_path: Path) -> None:
    pictures, run = write_pictures(tmp_path / "pictures"), tmp_path / "run"
    settings = {**TINY, "epochs": 6, "evaluation": {"validation": 0.0}}
    checkpoint = train_images(
        str(pictures), run, recipe="small", settings=settings, device="cpu", threads=1
    ).checkpoint
    cache = load_images(open_source(pictures), checkpoint.preprocess)
    weights, names = checkpoint.classifier["weights"], checkpoint.classifier["classes"]
    assert names == ["across", "down", "rings"]
    for branch in ("student", "teacher"):
        with torch.no_grad():
            features = build_encoder(checkpoint, branch)(torch.from_numpy(cache.images)).features
        scores = features @ weights["weight"].T + weights["bias"]
        right = [names[int(row.argmax())] == label for row, label in zip(scores, cache.labels, strict=True)]
        found = probe(run, str(pictures), str(pictures)).accuracies[branch, "features", "online"]
        assert found.value == pytest.approx(sum(right) / len(right))
    turned = online_classifier(checkpoint, ["rings", "across", "down"])
    torch.testing.assert_close(turned.weight, weights["weight"][[2, 0, 1]])
    torch.testing.assert_close(turned.bias, weights["bias"][[2, 0, 1]])


def test_a_classifier_of_other_classes_is_left_out_and_named(tmp_path: Path) -> None:
    pictures, run = write_pictures(tmp_path / "pictures"), tmp_path / "run"
    settings = {**TINY, "epochs": 0}
    train_images(str(pictures), run, recipe="small", settings=settings, device="cpu", threads=1)
    (pictures / "rings").rename(pictures / "circles")
    found = probe(run, str(pictures), str(pictures))
    assert found.online_left_out == "it knows 3 classes, 'circles' is none of them"
    assert all(kind != "online" for _, _, kind in found.accuracies)
    checkpoint = load_checkpoint(run)
    del checkpoint.classifier["classes"]  # as earlier versions wrote it
    save_checkpoint(run / CHECKPOINT_NAME, checkpoint)
    assert "earlier version" in str(probe(run, str(pictures), str(pictures)).online_left_out)


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
