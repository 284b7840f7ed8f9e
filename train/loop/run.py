"""A source spec, a recipe and an output folder -> a finished or stopped run.

What `vssl train` does, as one function: plan the run, decode the images once, train, leave a
checkpoint.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from train.data.image_cache import Failure, ImageBank, load_bank
from train.data.split import Split, split_bank
from train.evaluation.curves import CURVES_NAME
from train.evaluation.monitor import EvaluationSet
from train.loop.malloc import keep_freed_memory
from train.loop.step import Learner, length_of
from train.loop.trainer import Outcome, Progress, Run
from train.methods import method_class, new_encoder
from train.models.published_weights import published_weights
from train.models.weights import WEIGHTS_NAME, initialise, read_weights
from train.settings.config import TrainConfig
from train.settings.recipe import plan
from train.state.checkpoint import CHECKPOINT_NAME, Checkpoint, Fact, load_checkpoint
from train.state.distributed import ALONE, Peers, join
from train.state.metrics_log import METRICS_NAME
from vssl.errors import ExistsError, InputError, MismatchError
from vssl.files import is_free
from vssl.images.items import ImageSource
from vssl.images.preprocess import Preprocess
from vssl.images.sources import open_source

OWN_FILES = (
    CHECKPOINT_NAME, "best.pt", WEIGHTS_NAME, METRICS_NAME, CURVES_NAME, "config.json", "failures.json"
)  # fmt: skip
PRETRAINED = Path("pretrained")
"""Given as `init`, the weights that the network's library publishes."""
TIMED_STEPS = 4  # steps tried out to learn what one costs
WATCH_SHARE = 0.85  # of a time budget that goes to steps; the rest to watching and saving


@dataclass(frozen=True)
class Display:
    """Where a run tells how it goes: decoding (done, total), the plan, each step."""

    decoded: Callable[[int, int], None]
    planned: Callable[[TrainConfig, Split, list[Failure]], None]
    stepped: Callable[[Progress], None]


def train_images(
    spec: str,
    out: Path,
    *,
    recipe: str = "folder",
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int = 0,
    minutes: float | None = None,
    init: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    display: Display | None = None,
) -> Outcome:
    """Train on the images of a source spec (vssl.images.sources) and leave the run in folder `out`.

    recipe, settings, options: see `train.settings.recipe.plan`. device: auto, cpu or cuda. threads: of
    the CPU, 0 for all. minutes: shorten the run to about so long, measured on its first steps.
    init: a run, or a file of weights, that the student begins with (`train.models.weights`), or
    PRETRAINED.
    resume: go on from the folder's checkpoint with the settings it was begun with.
    Raises InputError, ExistsError, MismatchError, FormatError, TrainingError.
    """
    peers = join()
    target = choose_device(device)
    if target.type == "cuda" and peers.count > 1:
        target = torch.device("cuda", peers.local)
        torch.cuda.set_device(target)
    if target.type == "cpu":
        keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    weights = None if init in (None, PRETRAINED) else read_weights(init)
    checkpoint = _prepare_folder(out, resume=resume, overwrite=overwrite) if peers.first else None
    peers.wait()  # the others find the folder as the first left it
    if not peers.first:
        display = None
        checkpoint = load_checkpoint(out) if resume and (out / CHECKPOINT_NAME).exists() else None
    if checkpoint is not None and (settings or options or minutes or init):
        raise InputError(
            "--resume goes on with the settings the run was begun with; leave the other options out, "
            "or begin anew with --overwrite"
        )
    source = open_source(spec)
    config = checkpoint.config if checkpoint else plan(source, recipe, settings, options)
    method_class(config.method)  # an unknown name is told before anything is decoded
    encoder = new_encoder(config)  # and so is a network that cannot take pictures of this size,
    if init == PRETRAINED:
        weights = published_weights(config.network.backbone)
    if weights is not None:
        initialise(encoder, weights, str(init))  # or a shape that does not fit
    preprocess = Preprocess(size=config.size, resize=config.size, interpolation=config.interpolation)

    def tick(done: int) -> None:
        if display is not None:
            display.decoded(done, len(source.items))

    if not peers.first:
        peers.wait()  # for the cache that the first may be writing
    bank = load_bank(
        source, preprocess, config.cache_size, cache=out / "cache",
        threads=threads or torch.get_num_threads(), tick=tick,
    )  # fmt: skip
    if peers.first:
        peers.wait()
    split = split_bank(bank, config.evaluation.validation)
    config = _fitting(config, len(split.train))
    evaluation = _evaluation_set(source, preprocess, bank, split, config)
    if minutes is not None:
        config = fit_to_minutes(config, bank, split, target, minutes, peers)
    summary: dict[str, Fact] = {
        "source": spec if ":" in spec and not Path(spec).exists() else str(Path(spec).expanduser().resolve()),
        "images": len(bank),
        "failures": len(bank.failures),
        "train_images": len(split.train),
        "method": config.method,
        "recipe": config.recipe,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "device": str(target),
        "processes": peers.count,
        "init": str(init) if checkpoint is None and init is not None else _begun_from(checkpoint),
    }
    if checkpoint is not None and checkpoint.summary.get("images") != len(bank):
        raise MismatchError(
            f"the run was begun on {checkpoint.summary.get('images')} images, found {len(bank)} in {spec!r}; "
            "give the same images to go on, or begin anew with --overwrite"
        )
    if peers.first:
        (out / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")
        failures = [{"id": f.id, "path": f.path, "reason": f.reason} for f in bank.failures]
        (out / "failures.json").write_text(json.dumps(failures, indent=2) + "\n")
    if display is not None:
        display.planned(config, split, bank.failures)
    run = Run(out, config, preprocess, bank, split, evaluation, target, summary, peers)
    if weights is not None:
        run.initialise(weights, str(init))
    if checkpoint is not None:
        run.restore(checkpoint)
    return run.train(display.stepped if display is not None else lambda _: None)


def _begun_from(checkpoint: Checkpoint | None) -> Fact:
    """Return what a resumed run was once initialised with."""
    return checkpoint.summary.get("init") if checkpoint is not None else None


def choose_device(name: str) -> torch.device:
    """Return the device of a name: auto takes the GPU where there is one. Raises InputError."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device: found {name!r}, expected auto, cpu or cuda")
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise InputError("--device cuda: torch finds no CUDA device here; use --device cpu")
    return torch.device("cuda" if present and name != "cpu" else "cpu")


def _fitting(config: TrainConfig, images: int) -> TrainConfig:
    """Return the config with a batch, and batches a step, no larger than so many training images."""
    batch = min(config.batch_size, images)
    accumulate = min(config.optimiser.accumulate, images // batch)
    return replace(config, batch_size=batch, optimiser=replace(config.optimiser, accumulate=accumulate))


def fit_to_minutes(
    config: TrainConfig,
    bank: ImageBank,
    split: Split,
    device: torch.device,
    minutes: float,
    peers: Peers = ALONE,
) -> TrainConfig:
    """Return the config with as many epochs, at most its own, as fit into the minutes.

    A throwaway learner makes a few steps on the real images; the evaluations are spread over
    at most ten points of the run. With peers, the first one's clock counts.
    """
    trial = replace(config, epochs=max(config.epochs, 1))
    length = length_of(trial, len(split.train))
    learner = Learner(trial, length, split.classes, device, peers)
    rows = split.train[: config.batch_size]
    own = rows[peers.share(len(rows))]
    images = [torch.from_numpy(np.ascontiguousarray(bank.images[own])).to(device)]
    places = [torch.arange(len(rows), device=device)]
    learner.begin_epoch(lambda: [(places[0], images[0])])
    learner.step(0, images, None, places)  # the first step pays for allocations
    began = time.monotonic()
    for number in range(1, 1 + TIMED_STEPS):
        float(learner.step(number, images, None, places)["loss"])
    cost = (time.monotonic() - began) / TIMED_STEPS * config.optimiser.accumulate
    epochs = int(60.0 * minutes * WATCH_SHARE / (cost * length.steps_per_epoch))
    epochs = peers.tell(max(1, min(config.epochs, epochs)))
    every = max(config.evaluation.every, -(-epochs // 10))
    return replace(config, epochs=epochs, evaluation=replace(config.evaluation, every=every))


def _prepare_folder(out: Path, *, resume: bool, overwrite: bool) -> Checkpoint | None:
    """Make the run's folder; return the checkpoint to go on from, if any."""
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other; choose one")
    if out.exists() and not out.is_dir():
        raise ExistsError(f"{out} exists and is no folder; choose another --out")
    if not is_free(out):
        if resume:
            return load_checkpoint(out) if (out / CHECKPOINT_NAME).exists() else None
        if not overwrite:
            raise ExistsError(
                f"{out} exists already; choose another --out, go on with --resume, or replace it with --overwrite"
            )
        for name in OWN_FILES:
            (out / name).unlink(missing_ok=True)
        for name in ("tensorboard", "cache"):
            shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    return None


def _evaluation_set(
    source: ImageSource, preprocess: Preprocess, bank: ImageBank, split: Split, config: TrainConfig
) -> EvaluationSet:
    """Choose the images that are watched, as export and search will see them."""
    most = config.evaluation.images
    train = _spread(split.train, most)
    queries = _spread(split.validation, most) if len(split.validation) else _spread(split.train, most)

    def plain(rows: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if bank.images.shape[1] == preprocess.size:
            return np.ascontiguousarray(bank.images[rows])
        return load_bank(source, preprocess, rows=[bank.rows[row] for row in rows]).images

    labelled = split.classes and len(split.validation)
    shown = _spread(np.arange(len(queries), dtype=np.int64), 1000)
    return EvaluationSet(
        bank=plain(train),
        queries=plain(queries),
        stored=np.ascontiguousarray(bank.images[queries[shown]]),
        bank_labels=split.labels[train] if labelled and split.labels is not None else None,
        query_labels=split.labels[queries] if labelled and split.labels is not None else None,
        classes=split.classes,
        stored_rows=shown,
    )


def _spread(rows: np.ndarray[Any, np.dtype[np.int64]], most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return at most `most` of the rows, evenly spread over them."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
