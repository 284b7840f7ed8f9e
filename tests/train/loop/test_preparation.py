"""Before the first step: a folder that nothing is lost in, settings and images that fit what there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.picture_folder import TINY, write_pictures
from train.data.image_cache import ImageCache, load_images
from train.data.split import Split, split_images
from train.loop.preparation import clear_run, evaluation_set, fit_to_minutes, fitting, prepare_folder
from train.settings.config import TrainConfig
from train.settings.recipe import merge
from vssl.errors import ExistsError, InputError
from vssl.images.preprocess import Preprocess
from vssl.images.sources import ImageSource, open_source

CONFIG = TrainConfig.from_dict(merge(TINY, {"epochs": 100_000}))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    return open_source(write_pictures(tmp_path_factory.mktemp("data") / "pictures"))


def decoded(source: ImageSource, side: int = 16) -> tuple[Preprocess, ImageCache, Split]:
    preprocess = Preprocess(size=16, resize=16)
    cache = load_images(source, preprocess, side)
    return preprocess, cache, split_images(cache, 0.3)


def test_a_batch_and_a_step_are_no_larger_than_the_images() -> None:
    config = TrainConfig.from_dict(merge(TINY, {"batch_size": 16, "optimiser": {"accumulate": 4}}))
    for images, batch, accumulate in ((1000, 16, 4), (40, 16, 2), (10, 10, 1)):
        found = fitting(config, images)
        assert (found.batch_size, found.optimiser.accumulate) == (batch, accumulate)


def test_minutes_buy_epochs_at_the_measured_rate_and_at_most_ten_evaluations(pictures: ImageSource) -> None:
    _, cache, split = decoded(pictures)
    cpu = torch.device("cpu")
    short, long = (fit_to_minutes(CONFIG, cache, split, cpu, minutes) for minutes in (1e-6, 0.5))
    assert short.epochs == 1
    assert 1 < long.epochs < CONFIG.epochs
    assert long.evaluation.every == -(-long.epochs // 10)


def test_the_folder_is_made_kept_or_cleared(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert prepare_folder(out, resume=False, overwrite=False) is None
    (out / "metrics.jsonl").write_text("old\n")
    (out / "notes.txt").write_text("mine\n")
    with pytest.raises(ExistsError, match=r"--resume.*--overwrite"):
        prepare_folder(out, resume=False, overwrite=False)
    with pytest.raises(InputError, match="exclude each other"):
        prepare_folder(out, resume=True, overwrite=True)
    with pytest.raises(InputError, match=r"holds no checkpoint yet.*--overwrite and the options of before"):
        prepare_folder(out, resume=True, overwrite=False)  # nothing there says its settings
    prepare_folder(out, resume=False, overwrite=True)
    assert (out / "metrics.jsonl").exists(), "what is there stays until the run that replaces it begins"
    clear_run(out)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    with pytest.raises(ExistsError, match="is no folder"):
        prepare_folder(out / "notes.txt", resume=False, overwrite=False)


def test_watched_images_are_seen_as_search_will_see_them(pictures: ImageSource) -> None:
    config = TrainConfig.from_dict(merge(TINY, {"cache_size": 20, "evaluation": {"images": 15}}))
    preprocess, cache, split = decoded(pictures, 20)
    found = evaluation_set(pictures, preprocess, cache, split, config)
    assert len(found.train_images) == 15
    assert len(found.queries) == min(15, len(split.validation))
    assert found.train_images.shape[1:] == (16, 16, 3)
    assert found.stored.shape[1:] == (20, 20, 3)
    plain = load_images(pictures, preprocess)
    assert all(any(np.array_equal(image, other) for other in plain.images) for image in found.queries)
    assert found.train_labels is not None
    assert found.stored_rows is not None
    assert found.classes == 3
