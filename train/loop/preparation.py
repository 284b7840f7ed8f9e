"""A run's settings, folder and images -> settings that fit them, a folder to write into, images to watch.

What `train.loop.run` does before the first step.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from train.data.image_cache import ImageCache, load_images
from train.data.split import Split
from train.evaluation.curves import CURVES_NAME
from train.evaluation.monitor import EvaluationSet
from train.loop.frozen import FEATURES_NAME
from train.loop.saving import BEST_NAME
from train.loop.step import Learner, length_of
from train.models.published_weights import PRETRAINED, library_info, resized
from train.models.weights import WEIGHTS_NAME
from train.settings.backbone_names import OWN, full_name
from train.settings.config import TrainConfig
from train.settings.recipe import merge, plan
from train.state.checkpoint import CHECKPOINT_NAME, Checkpoint, load_checkpoint
from train.state.distributed import SINGLE, ProcessGroup
from train.state.metrics_log import METRICS_NAME
from vssl.errors import ExistsError, InputError
from vssl.files import is_free
from vssl.images.items import ImageSource
from vssl.images.preprocess import Preprocess

OWN_FILES = (
    CHECKPOINT_NAME, BEST_NAME, WEIGHTS_NAME, METRICS_NAME, CURVES_NAME, FEATURES_NAME, "config.json",
    "failures.json",
)  # fmt: skip
TIMED_STEPS = 4  # steps tried out to learn what one costs
FINETUNE = "finetune"  # the recipe that trains published weights on
WATCH_SHARE = 0.85  # of a time budget that goes to steps; the rest to watching and saving


def planned(
    source: ImageSource,
    recipe: str,
    settings: Mapping[str, Any] | None,
    options: Mapping[str, Any] | None,
    checkpoint: Checkpoint | None,
    init: Path | None,
) -> tuple[TrainConfig, Preprocess]:
    """Return the settings of a run, a checkpoint's own, and how it sees a picture: published weights as they expect it.

    Raises InputError (train.settings.recipe.plan).
    """
    if checkpoint is not None:
        return checkpoint.config, checkpoint.preprocess
    asked = merge(settings or {}, options or {})
    backbone = full_name(str(merge({"network": {"backbone": OWN[0]}}, asked)["network"]["backbone"]))
    is_given = init is not None and (init == PRETRAINED or init.is_file())
    wanted = asked.get("freeze") or recipe == FINETUNE or (recipe == "folder" and is_given)
    if not wanted or backbone in OWN:
        config = plan(source, recipe, settings, options)
        return config, Preprocess(size=config.size, resize=config.size, interpolation=config.interpolation)
    info = library_info(backbone)
    if recipe == "folder":
        recipe = "frozen" if asked.get("freeze") else FINETUNE
    side = int(asked.get("size", info.preprocess.size))
    expected = {"size": side, "cache_size": side, "mean": info.pixel_mean, "std": info.pixel_std}
    config = plan(source, recipe, merge(expected, settings or {}), {**(options or {}), "cache_size": side})
    return config, resized(info.preprocess, config.size)


def fitting(config: TrainConfig, images: int) -> TrainConfig:
    """Return the config with a batch, and batches a step, no larger than so many training images."""
    batch = min(config.batch_size, images)
    accumulate = min(config.optimiser.accumulate, images // batch)
    return replace(config, batch_size=batch, optimiser=replace(config.optimiser, accumulate=accumulate))


def fit_to_minutes(
    config: TrainConfig,
    cache: ImageCache,
    split: Split,
    device: torch.device,
    minutes: float,
    group: ProcessGroup = SINGLE,
) -> TrainConfig:
    """Return the config with as many epochs, at most its own, as fit into the minutes.

    A throwaway learner makes a few steps on the real images; the evaluations are spread over
    at most ten points of the run. With several processes, the first one's clock counts.
    """
    trial = replace(config, epochs=max(config.epochs, 1))
    length = length_of(trial, len(split.train))
    aspects = None if cache.aspects is None else cache.aspects[split.train]
    learner = Learner(trial, length, split.classes, device, group, aspects)
    rows = split.train[: config.batch_size]
    own = rows[group.local_slice(len(rows))]
    images = [torch.from_numpy(np.ascontiguousarray(cache.images[own])).to(device)]
    places = [torch.arange(len(rows), device=device)]
    learner.begin_epoch(lambda: [(places[0], images[0])])
    learner.step(0, images, None, places)  # the first step pays for allocations
    began = time.monotonic()
    for number in range(1, 1 + TIMED_STEPS):
        float(learner.step(number, images, None, places)["loss"])
    cost = (time.monotonic() - began) / TIMED_STEPS * config.optimiser.accumulate
    epochs = int(60.0 * minutes * WATCH_SHARE / (cost * length.steps_per_epoch))
    epochs = group.broadcast(max(1, min(config.epochs, epochs)))
    every = max(config.evaluation.every, -(-epochs // 10))
    return replace(config, epochs=epochs, evaluation=replace(config.evaluation, every=every))


def prepare_folder(out: Path, *, resume: bool, overwrite: bool) -> Checkpoint | None:
    """Make the run's folder; return the checkpoint to go on from, if any. A run that is there stays (`clear_run`)."""
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other; choose one")
    if out.exists() and not out.is_dir():
        raise ExistsError(f"{out} exists and is no folder; choose another --out")
    if not is_free(out):
        if resume and (out / CHECKPOINT_NAME).exists():
            return load_checkpoint(out)
        if resume:
            raise InputError(
                f"--resume: {out} holds no checkpoint yet; start over with --overwrite and the options of before"
            )
        if not overwrite:
            raise ExistsError(
                f"{out} exists already; choose another --out, go on with --resume, or replace it with --overwrite"
            )
        shutil.rmtree(out / "cache", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    return None


def clear_run(out: Path) -> None:
    """Remove the run that a folder holds, once all is known to be in order for the one that takes its place."""
    for name in OWN_FILES:
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "tensorboard", ignore_errors=True)


def evaluation_set(
    source: ImageSource,
    preprocess: Preprocess,
    cache: ImageCache,
    split: Split,
    config: TrainConfig,
) -> EvaluationSet:
    """Choose the images that are watched, as export and search will see them."""
    most = config.evaluation.images
    train = _spread(split.train, most)
    queries = _spread(split.validation, most) if len(split.validation) else _spread(split.train, most)

    def plain(rows: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if cache.images.shape[1] == preprocess.size == preprocess.resize and cache.aspects is None:
            return np.ascontiguousarray(cache.images[rows])
        return load_images(source, preprocess, rows=[cache.rows[row] for row in rows]).images

    labelled = split.classes and len(split.validation)
    shown = _spread(np.arange(len(queries), dtype=np.int64), 1000)
    return EvaluationSet(
        train_images=plain(train),
        queries=plain(queries),
        stored=np.ascontiguousarray(cache.images[queries[shown]]),
        train_labels=split.labels[train] if labelled and split.labels is not None else None,
        query_labels=split.labels[queries] if labelled and split.labels is not None else None,
        classes=split.classes,
        stored_rows=shown,
        cache_rows=queries[shown],
        stored_aspects=None if cache.aspects is None else cache.aspects[queries[shown]],
    )


def _spread(rows: np.ndarray[Any, np.dtype[np.int64]], most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return at most `most` of the rows, evenly spread over them."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
