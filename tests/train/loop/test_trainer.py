"""A run leaves what it promises, stops for cause, and goes on as if it had never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.picture_folder import TINY, write_pictures
from train.data.image_cache import Failure
from train.data.split import Split
from train.loop.run import Display, train_images
from train.loop.trainer import Outcome, Progress, TrainingError
from train.methods import build_encoder
from train.settings.config import TrainConfig
from train.settings.recipe import merge
from train.state.checkpoint import load_checkpoint
from train.state.metrics_log import read_metrics
from vssl.errors import ExistsError, InputError, MismatchError


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures")


def run(pictures: Path, out: Path, over: dict[str, Any] | None = None, **options: Any) -> Outcome:
    settings = merge(TINY, over or {})
    return train_images(
        str(pictures), out, recipe="small", settings=settings, device="cpu", threads=1, **options
    )


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(out) if row["epoch"]]


def watcher(stepped: Any) -> Display:
    def planned(config: TrainConfig, split: Split, failures: list[Failure]) -> None:
        pass

    return Display(lambda done, total: None, planned, stepped)


def test_a_run_leaves_checkpoint_metrics_and_facts(pictures: Path, tmp_path: Path) -> None:
    outcome = run(pictures, tmp_path / "run")
    checkpoint = load_checkpoint(tmp_path / "run")
    rows = read_metrics(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert {"loss", "kl", "likelihood", "classifier_loss", "images_per_second"} <= set(rows[1])
    for name in ("knn_top1", "linear_top1", "view_recall", "spread_features", "rank_features"):
        assert name in rows[0]
        assert rows[-1][name] == outcome.metrics[name]
    assert checkpoint.summary["source"] == str(pictures.resolve())
    assert checkpoint.summary["images"] == 72
    assert checkpoint.summary["epochs"] == 2
    assert checkpoint.step == 2 * (int(checkpoint.summary["train_images"] or 0) // 16)
    assert (tmp_path / "run" / "best.pt").exists()
    assert json.loads((tmp_path / "run" / "failures.json").read_text()) == []
    for branch in ("student", "teacher"):
        output = build_encoder(checkpoint, branch)(torch.zeros(2, 16, 16, 3, dtype=torch.uint8))
        assert output.features.shape == (2, 32)
        assert output.mean.shape == (2, 8)


def test_no_epochs_write_the_untrained_encoder(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "none", {"epochs": 0})
    run(pictures, tmp_path / "some", {"epochs": 1})
    untrained, trained = (load_checkpoint(tmp_path / name).student for name in ("none", "some"))
    name = "backbone.stem.0.weight"
    assert not torch.equal(untrained[name], trained[name])
    assert read_metrics(tmp_path / "none")[0]["knn_top1"] == read_metrics(tmp_path / "some")[0]["knn_top1"]


def test_the_seed_decides(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "a")
    run(pictures, tmp_path / "b")
    run(pictures, tmp_path / "c", {"seed": 6})
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")


def test_killed_in_the_middle_and_resumed_it_has_the_same_losses(pictures: Path, tmp_path: Path) -> None:
    over = {"epochs": 6, "options": {"pairs": "all"}}
    steps = run(pictures, tmp_path / "whole", over).checkpoint.step
    script = (
        "import json, os, signal, sys, train.loop.trainer as trainer\n"
        "trainer.SAVE_SECONDS, trainer.SAVE_SHARE = 0.0, 1.0\n"
        "from train.loop.run import Display, train_images\n"
        "def stepped(now):\n"
        "    if now.step == int(sys.argv[4]):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "train_images(sys.argv[1], trainer.Path(sys.argv[2]), recipe='small', device='cpu', threads=1,\n"
        "             settings=json.loads(sys.argv[3]), display=Display(lambda *_: None, lambda *_: None, stepped))\n"
    )
    cut = tmp_path / "cut"
    last = steps // 2 - 1  # within the third epoch
    arguments = [str(pictures), str(cut), json.dumps(merge(TINY, over)), str(last)]
    killed = subprocess.run([sys.executable, "-c", script, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert load_checkpoint(cut).epoch == 2
    train_images(str(pictures), cut, device="cpu", threads=1, resume=True)
    assert [row["epoch"] for row in read_metrics(cut)] == list(range(7))
    assert losses(cut) == losses(tmp_path / "whole")
    whole, resumed = (load_checkpoint(tmp_path / name) for name in ("whole", "cut"))
    for name, value in whole.student.items():
        assert torch.equal(value, resumed.student[name])


@pytest.mark.parametrize(
    "method",
    [{"method": "vssl"}, {"method": "deepcluster-v2", "options": {"prototypes": 9}}],
    ids=["vssl", "deepcluster-v2"],
)
def test_sigterm_saves_within_the_epoch_and_goes_on_exactly(
    pictures: Path, tmp_path: Path, method: dict[str, Any]
) -> None:
    def stop(now: Progress) -> None:
        if now.step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    over = {"epochs": 3, **method}
    run(pictures, tmp_path / "whole", over)
    outcome = run(pictures, tmp_path / "cut", over, display=watcher(stop))
    assert outcome.stopped_by == signal.SIGTERM
    assert outcome.checkpoint.step == 6
    assert outcome.checkpoint.sums
    resumed = train_images(str(pictures), tmp_path / "cut", device="cpu", threads=1, resume=True)
    assert resumed.stopped_by is None
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_accumulated_batches_make_one_step(pictures: Path, tmp_path: Path) -> None:
    outcome = run(pictures, tmp_path / "run", {"optimiser": {"accumulate": 2}})
    assert outcome.checkpoint.summary["images_seen"] == 2 * outcome.checkpoint.step * 16


def test_outputs_are_not_lost_by_accident(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(pictures, out, {"epochs": 1})
    with pytest.raises(ExistsError, match=r"--resume.*--overwrite"):
        run(pictures, out)
    with pytest.raises(InputError, match="leave the other options out"):
        run(pictures, out, resume=True)
    run(pictures, out, {"epochs": 0}, overwrite=True)
    assert load_checkpoint(out).epoch == 0
    more = write_pictures(tmp_path / "more", 30)
    with pytest.raises(MismatchError, match="begun on 72 images, found 90"):
        train_images(str(more), out, device="cpu", resume=True)


def test_a_loss_that_is_no_number_stops_with_advice(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"Lower optimiser.lr"):
        run(pictures, tmp_path / "run", {"method": "vssl-gaussian", "optimiser": {"lr": 1e30}, "epochs": 9})


def test_a_collapse_stops_with_advice(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.evaluation.collapse.FLAT", 9.0)  # every code counts as collapsed
    with pytest.raises(TrainingError, match=r"collapsed at epoch 2: spread_features.*teacher_momentum"):
        run(pictures, tmp_path / "run", {"epochs": 5})


def test_minutes_shorten_the_run(pictures: Path, tmp_path: Path) -> None:
    outcome = run(pictures, tmp_path / "run", {"epochs": 100_000}, minutes=0.03)
    assert 1 <= outcome.checkpoint.epoch < 1000
    assert outcome.checkpoint.config.epochs == outcome.checkpoint.epoch


def test_training_lowers_the_loss_and_tells_the_classes_apart(pictures: Path, tmp_path: Path) -> None:
    over = {
        "epochs": 40,
        "optimiser": {"name": "adamw", "lr": 0.05},
        "evaluation": {"every": 40},
        "augment": {"flip": 0.0, "crop_scale": [0.6, 1.0], "noise": 30.0},
    }
    outcome = run(pictures, tmp_path / "run", over)
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0] - 2.0
    assert outcome.metrics["knn_top1"] >= 0.85  # chance is 0.33
