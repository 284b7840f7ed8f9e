"""Heads over a frozen backbone: what they begin as, what stays as it is, and which state is kept."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.sources.run import run_encoder
from tests.train.picture_folder import TINY, write_pictures
from train.data.image_cache import load_images
from train.loop.frozen import features_of_views, frozen_encoder
from train.loop.run import train_images
from train.methods import METHODS, build_encoder
from train.models.heads import AnchoredProjector
from train.settings.recipe import merge
from train.state.checkpoint import Checkpoint, load_checkpoint
from train.state.metrics_log import read_metrics
from vssl.errors import InputError, MismatchError
from vssl.images.sources import open_source

FROZEN = {"freeze": True, "frozen_views": 4}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures")


def run(pictures: Path, out: Path, over: dict[str, Any], init: Path | None) -> Checkpoint:
    settings = merge(TINY, over)
    outcome = train_images(
        str(pictures), out, recipe="small", settings=settings, device="cpu", threads=1, init=init
    )
    return outcome.checkpoint


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a trained backbone alone."""
    folder = tmp_path_factory.mktemp("trained")
    student = run(pictures, folder / "run", {}, None).student
    torch.save({n: v for n, v in student.items() if n.startswith("backbone.")}, folder / "backbone.pth")
    return folder / "backbone.pth"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_its_heads_and_leaves_the_backbone(
    pictures: Path, trained: Path, tmp_path: Path, method: str
) -> None:
    options = {"vje": {"normalise": True}}.get(method, {})
    over = {**FROZEN, "method": method, "options": options, "epochs": 2}
    ended = run(pictures, tmp_path / "run", over, trained)
    for name, value in torch.load(trained, weights_only=True).items():
        torch.testing.assert_close(ended.student[name], value, rtol=0, atol=0)
    assert all(np.isfinite(row["loss"]) for row in read_metrics(tmp_path / "run") if row["epoch"])


def test_the_means_begin_as_the_principal_directions(pictures: Path, trained: Path, tmp_path: Path) -> None:
    ended = run(pictures, tmp_path / "run", {**FROZEN, "epochs": 0}, trained)
    encoder = build_encoder(ended)
    seen = load_images(open_source(str(pictures)), ended.preprocess).images
    with torch.no_grad():
        found = encoder(torch.from_numpy(seen))
    means, features = found.mean.double().numpy(), found.features.double().numpy()
    assert isinstance(encoder.projector, AnchoredProjector)
    centred = features - encoder.projector.centre.double().numpy()
    axes = encoder.projector.directions.double().numpy()
    np.testing.assert_allclose(means, centred @ axes, atol=1e-4)
    gram = axes.T @ axes
    np.testing.assert_allclose(gram, np.eye(8) * gram[0, 0], atol=1e-5 * gram[0, 0])
    training = np.linalg.svd(centred, full_matrices=False)[2][:8]
    # The axes are those of the training images; all images have nearly the same, but for the last ones.
    overlap = np.linalg.svd(training @ axes / np.sqrt(gram[0, 0]), compute_uv=False)
    assert overlap[:6].min() > 0.9


def test_kept_views_are_what_the_backbone_sees_of_them(pictures: Path, trained: Path, tmp_path: Path) -> None:
    ended = run(pictures, tmp_path / "run", {**FROZEN, "epochs": 0}, trained)
    encoder = frozen_encoder(ended.config, torch.load(trained, weights_only=True))
    cache = load_images(open_source(str(pictures)), ended.preprocess)
    done: list[int] = []
    kept, again = (
        features_of_views(encoder, ended.config, cache, torch.device("cpu"), lambda at, _: done.append(at))
        for _ in range(2)
    )
    np.testing.assert_array_equal(kept.images, again.images)
    assert kept.images.shape == (len(cache), 4, encoder.feature_dim)
    assert done[-1] == len(cache)
    with torch.no_grad():
        own = encoder(torch.from_numpy(cache.images)).features.numpy()
    flat = kept.images.astype(np.float64)
    assert len(np.unique(flat.reshape(len(cache) * 4, -1), axis=0)) == len(cache) * 4  # each view its own
    within = np.linalg.norm(flat - own[:, None], axis=2).mean()
    across = np.linalg.norm(flat - np.roll(own, len(own) // 2, axis=0)[:, None], axis=2).mean()
    assert within < across


def test_features_are_kept_for_resuming_and_made_again_where_they_do_not_fit(
    pictures: Path, trained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    run(pictures, folder, {**FROZEN, "epochs": 1}, trained)
    file = folder / "features.npz"
    first, written = file.read_bytes(), file.stat().st_mtime_ns

    def resume(images: Path = pictures) -> None:
        train_images(str(images), folder, device="cpu", threads=1, resume=True)

    resume()
    assert file.stat().st_mtime_ns == written  # read, and not written again
    damaged = bytearray(first)
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    resume()
    with np.load(file) as again, np.load(io.BytesIO(first)) as before:
        for name in before.files:
            np.testing.assert_array_equal(again[name], before[name])
    with np.load(file) as kept:
        others = {name: kept[name] for name in kept.files}
    np.savez(file, **{**others, "key": "of other views", "views": others["views"] * 0})
    resume()
    with np.load(file) as again:
        np.testing.assert_array_equal(again["views"], others["views"])
    more = write_pictures(tmp_path / "more")
    next(more.rglob("*.png")).unlink()
    kept_for = file.read_bytes()
    with pytest.raises(MismatchError, match="the run was begun on"):
        resume(more)
    assert file.read_bytes() == kept_for


def test_the_state_of_the_best_view_recall_is_kept(pictures: Path, trained: Path, tmp_path: Path) -> None:
    ended = run(pictures, tmp_path / "run", {**FROZEN, "epochs": 4, "optimiser": {"lr": 30.0}}, trained)
    recalls = [row["view_recall_mean"] for row in read_metrics(tmp_path / "run")]
    best = int(np.argmax(recalls))
    assert ended.summary["kept_epoch"] == best
    assert ended.epoch == 4
    assert load_checkpoint(tmp_path / "run").summary["kept_epoch"] == best
    if best == 0:
        torch.testing.assert_close(ended.student["projector.gate"], torch.zeros(()))


def test_an_untrained_backbone_is_not_frozen(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--init pretrained, or --init weights\.pth"):
        run(pictures, tmp_path / "run", FROZEN, None)


def test_what_is_served_of_it_is_not_whitened(pictures: Path, trained: Path, tmp_path: Path) -> None:
    frozen = run(pictures, tmp_path / "frozen", {**FROZEN, "epochs": 1}, trained)
    free = run(pictures, tmp_path / "free", {"epochs": 1}, trained)
    assert (run_encoder(frozen).whitening, run_encoder(free).whitening) == (0.0, 0.5)
