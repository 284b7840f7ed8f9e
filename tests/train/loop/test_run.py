"""Any folder a person has: the sensible thing happens, or the message says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.train.picture_folder import TINY, write_pictures
from train.data.image_cache import Failure
from train.data.split import Split
from train.loop.run import Display, choose_device, train_images
from train.loop.trainer import Outcome, Progress, TrainingError
from train.settings.config import TrainConfig
from train.settings.recipe import merge
from train.state.checkpoint import load_checkpoint
from train.state.metrics_log import read_metrics
from vssl.errors import ExistsError, InputError, VsslError

MODES = ("RGB", "L", "RGBA", "P", "1", "LA", "I;16", "CMYK")
FORMATS = {"CMYK": "jpg", "I;16": "png"}


class Seen:
    """A display that remembers what it was shown."""

    def __init__(self) -> None:
        self.decoded: list[tuple[int, int]] = []
        self.plans: list[tuple[TrainConfig, Split, list[Failure]]] = []
        self.steps: list[Progress] = []

    @property
    def display(self) -> Display:
        return Display(
            lambda done, total: self.decoded.append((done, total)),
            lambda config, split, failures: self.plans.append((config, split, failures)),
            self.steps.append,
        )


def run(images: Path, out: Path, over: dict[str, Any] | None = None, **options: Any) -> Outcome:
    settings = merge(TINY, {"epochs": 1, **(over or {})})
    return train_images(
        str(images), out, recipe="small", settings=settings, device="cpu", threads=1, **options
    )


def mixed(folder: Path, count: int = 32) -> Path:
    """Write pictures of many sizes, modes and shapes, one of them a pixel wide."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        mode = MODES[number % len(MODES)]
        width, height = int(random.integers(3, 90)), int(random.integers(3, 90))
        if number == 5:
            width, height = 1, 200
        picture = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        converted = picture.convert("I").convert("I;16") if mode == "I;16" else picture.convert(mode)
        converted.save(folder / f"{number}.{FORMATS.get(mode, 'png')}")
    return folder


def test_mixed_sizes_and_modes_are_trained_on(tmp_path: Path) -> None:
    outcome = run(mixed(tmp_path / "images"), tmp_path / "run")
    assert outcome.checkpoint.summary["images"] == 32
    assert outcome.checkpoint.summary["failures"] == 0
    assert np.isfinite(read_metrics(tmp_path / "run")[1]["loss"])


def test_three_broken_files_are_reported_and_left_out(tmp_path: Path) -> None:
    images = mixed(tmp_path / "images")
    (images / "text.png").write_text("no picture")
    whole = (images / "0.png").read_bytes()
    (images / "cut.png").write_bytes(whole[: len(whole) // 2])
    (images / "empty.jpg").write_bytes(b"")
    seen = Seen()
    outcome = run(images, tmp_path / "run", display=seen.display)
    assert outcome.checkpoint.summary["images"] == 32
    assert outcome.checkpoint.summary["failures"] == 3
    listed = json.loads((tmp_path / "run" / "failures.json").read_text())
    assert sorted(Path(failure["path"]).name for failure in listed) == ["cut.png", "empty.jpg", "text.png"]
    assert all(failure["reason"] for failure in listed)
    assert len(seen.plans[0][2]) == 3
    assert seen.decoded[-1] == (35, 35)


def test_five_images_are_too_few_and_the_message_says_how_many_it_takes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found 5 readable images.*expected at least 8"):
        run(mixed(tmp_path / "images", 5), tmp_path / "run")
    # Nothing was left that would be in the way of the next try.
    run(mixed(tmp_path / "more", 9), tmp_path / "run")


def test_an_empty_folder_and_one_without_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(VsslError, match="empty"):
        run(tmp_path / "empty", tmp_path / "run")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "note.txt").write_text("hello")
    with pytest.raises(VsslError, match=r"0 readable images|no images|none of"):
        run(tmp_path / "texts", tmp_path / "run")
    with pytest.raises(VsslError, match="absent"):
        run(tmp_path / "absent", tmp_path / "run")


def test_one_class_is_trained_on_without_accuracies(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "images", 60)
    outcome = run(images / "rings", tmp_path / "run")
    assert outcome.checkpoint.summary["images"] == 60
    assert not {"knn_top1", "linear_top1", "r_auroc"} & set(outcome.metrics)
    assert {"view_recall", "spread_features", "variance_spread"} <= set(outcome.metrics)
    assert "classifier_loss" not in read_metrics(tmp_path / "run")[1]
    assert (tmp_path / "run" / "best.pt").exists()  # by view recall


def test_copies_of_one_image_stop_as_a_collapse(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(20):
        Image.fromarray(np.full((16, 16, 3), 200, np.uint8)).save(images / f"{number}.png")
    with pytest.raises(TrainingError, match="the code has collapsed at epoch 2"):
        run(images, tmp_path / "run", {"epochs": 5})


def test_a_batch_is_no_larger_than_the_images_and_a_step_no_more_than_they_fill(tmp_path: Path) -> None:
    images = mixed(tmp_path / "images", 20)
    outcome = run(
        images, tmp_path / "run", {"batch_size": 256, "optimiser": {"accumulate": 8, "name": "sgd"}}
    )
    config = outcome.checkpoint.config
    assert (config.batch_size, config.optimiser.accumulate) == (20, 1)
    assert outcome.checkpoint.step == 1
    outcome = run(
        images, tmp_path / "other", {"batch_size": 8, "optimiser": {"accumulate": 8, "name": "sgd"}}
    )
    assert outcome.checkpoint.config.optimiser.accumulate == 2
    assert outcome.checkpoint.summary["images_seen"] == 16


def test_a_run_that_is_over_stays_as_it_is_when_resumed(tmp_path: Path) -> None:
    images = mixed(tmp_path / "images", 20)
    first = run(images, tmp_path / "run")
    again = train_images(str(images), tmp_path / "run", device="cpu", threads=1, resume=True)
    assert again.checkpoint.step == first.checkpoint.step
    assert all(torch.equal(v, again.checkpoint.student[k]) for k, v in first.checkpoint.student.items())
    assert len(read_metrics(tmp_path / "run")) == 2


def test_resuming_where_nothing_was_begun_begins(tmp_path: Path) -> None:
    images = mixed(tmp_path / "images", 20)
    run(images, tmp_path / "run", resume=True)
    assert load_checkpoint(tmp_path / "run").epoch == 1


def test_what_stands_in_the_way_is_said(tmp_path: Path) -> None:
    images = mixed(tmp_path / "images", 20)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExistsError, match="is no folder"):
        run(images, tmp_path / "file")
    with pytest.raises(InputError, match="exclude each other"):
        run(images, tmp_path / "run", resume=True, overwrite=True)
    with pytest.raises(InputError, match=r"method: found 'sim', expected one of vssl"):
        run(images, tmp_path / "run", {"method": "sim"})
    with pytest.raises(InputError, match="recipe: found 'none'"):
        train_images(str(images), tmp_path / "run", recipe="none", device="cpu")


def test_replacing_a_run_leaves_other_files_alone(tmp_path: Path) -> None:
    images = mixed(tmp_path / "images", 20)
    run(images, tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    for wrong in ({"seed": -1}, {"batch_size": 1}):
        with pytest.raises(InputError):
            run(images, tmp_path / "run", wrong, overwrite=True)
    (tmp_path / "few").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "few" / "1.png")
    for source in (tmp_path / "few", tmp_path / "nowhere"):
        with pytest.raises(InputError):
            run(source, tmp_path / "run", overwrite=True)
    assert load_checkpoint(tmp_path / "run").config.seed == 5, "a run is replaced only by one that begins"
    run(images, tmp_path / "run", {"seed": 9}, overwrite=True)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert load_checkpoint(tmp_path / "run").config.seed == 9


def test_translated_encoders_train_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "train.loop.step.TRANSLATOR", "eager"
    )  # traced; what it is translated to is torch's affair
    images = mixed(tmp_path / "images", 24)
    plain, translated = (
        run(images, tmp_path / name, {"compile": wanted})
        for name, wanted in (("plain", False), ("translated", True))
    )
    assert translated.checkpoint.student.keys() == plain.checkpoint.student.keys()
    losses = [read_metrics(tmp_path / name)[1]["loss"] for name in ("plain", "translated")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="--device: found 'tpu', expected auto, cpu or cuda"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        assert choose_device("auto") == torch.device("cpu")
        with pytest.raises(InputError, match="use --device cpu"):
            choose_device("cuda")
