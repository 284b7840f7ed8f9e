"""A source spec, a recipe and an output folder -> a finished or stopped run.

What `vssl train` does, as one function: plan the run, decode the images once, train, leave a
checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.data.image_cache import Failure, ImageCache, load_images
from train.data.split import Split, split_images
from train.loop.frozen import FEATURES_NAME, begin_with, with_features
from train.loop.malloc import keep_freed_memory
from train.loop.preparation import clear_run, evaluation_set, fit_to_minutes, fitting, planned, prepare_folder
from train.loop.trainer import Outcome, Progress, Run
from train.methods import new_encoder
from train.models.published_weights import PRETRAINED, in_order_of, published_weights
from train.models.weights import initialise, read_weights
from train.settings.config import TrainConfig
from train.state.checkpoint import CHECKPOINT_NAME, Checkpoint, Fact, load_checkpoint
from train.state.distributed import ProcessGroup, join_group
from vssl.errors import InputError, MismatchError
from vssl.files import require_local
from vssl.images.items import ImageSource
from vssl.images.preprocess import Preprocess
from vssl.images.sources import check_outside, open_source


@dataclass(frozen=True)
class Display:
    """Where a run tells how it goes: decoding (done, total), the plan, each step."""

    decoded: Callable[[int, int], None]
    planned: Callable[[TrainConfig, Split, list[Failure]], None]
    stepped: Callable[[Progress], None]


NO_DISPLAY = Display(lambda done, total: None, lambda config, split, failures: None, lambda progress: None)


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

    recipe, settings, options: see `train.settings.recipe.plan`. device: auto, cpu or cuda. threads: of the CPU, 0
    for all. minutes: shorten the run to about so long, measured on its first steps. init: a run, or a file of
    weights, that the student begins with (`train.models.weights`), or PRETRAINED. resume: go on from the
    folder's checkpoint with the settings it was begun with.
    Raises InputError, ExistsError, MismatchError, FormatError, TrainingError.
    """
    if threads < 0 or (minutes is not None and not minutes >= 0):
        raise InputError(f"found {threads} threads, {minutes} minutes; expected at least 0")
    require_local(out)
    if not resume:  # what was begun before can be ended
        check_outside(out, spec)
    group, target = join_group(), choose_device(device)
    target = _set_up(target, threads, group)
    given = None if init in (None, PRETRAINED) else read_weights(init)
    changed = bool(settings or options or minutes or init)
    checkpoint = _resumed(out, group, resume=resume, overwrite=overwrite, changed=changed)
    source = open_source(spec)
    config, preprocess = planned(source, recipe, settings, options, checkpoint, init)
    weights = _fitting_weights(config, given, init, is_begun=checkpoint is not None)
    shown = display if group.is_first and display is not None else NO_DISPLAY
    cache = _decode(source, preprocess, config, out, threads, group, shown)
    origin = _origin(checkpoint, cache, spec) if checkpoint is not None else str(init) if init else None
    split = split_images(cache, config.evaluation.validation)
    config = fitting(config, len(split.train))
    if overwrite and group.is_first:
        clear_run(out)
    group.barrier()
    stored, evaluation = cache, evaluation_set(source, preprocess, cache, split, config)
    if config.freeze:
        own = checkpoint.student if checkpoint is not None else weights or {}
        stored, evaluation = with_features(
            config, own, cache, evaluation, target, shown.decoded, out / FEATURES_NAME, group
        )
    if minutes is not None:
        config = fit_to_minutes(config, stored, split, target, minutes, group)
    summary = _facts(spec, config, cache, split, target, group) | {"init": origin}
    _describe(out, config, cache, group)
    shown.planned(config, split, cache.failures)
    run = Run(out, config, preprocess, stored, split, evaluation, target, summary, group)
    begin_with(run.learner.method, weights, str(init), evaluation, target)
    if checkpoint is not None:
        run.restore(checkpoint)
    return run.train(shown.stepped)


def _set_up(device: torch.device, threads: int, group: ProcessGroup) -> torch.device:
    """Prepare this process's memory, threads and GPU; return its device."""
    if device.type == "cpu":
        keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    if device.type == "cuda" and group.count > 1:
        device = torch.device("cuda", group.local_rank)
        torch.cuda.set_device(device)
    return device


def _resumed(
    out: Path, group: ProcessGroup, *, resume: bool, overwrite: bool, changed: bool
) -> Checkpoint | None:
    """Make the run's folder in the first process; return the checkpoint that all go on from, if any.

    changed: whether settings are given, which a checkpoint has of its own.
    """
    checkpoint = prepare_folder(out, resume=resume, overwrite=overwrite) if group.is_first else None
    group.barrier()  # the others find the folder as the first left it
    if not group.is_first and resume and (out / CHECKPOINT_NAME).exists():
        checkpoint = load_checkpoint(out)
    if checkpoint is not None and changed:
        raise InputError(
            "--resume goes on with the settings the run was begun with; leave the other options out, "
            "or start over with --overwrite"
        )
    return checkpoint


def _fitting_weights(
    config: TrainConfig, weights: Mapping[str, Tensor] | None, init: Path | None, *, is_begun: bool
) -> Mapping[str, Tensor] | None:
    """Return the weights to begin with, published ones too; refuse before anything is decoded what cannot be built.

    That is an unknown method, a network that cannot take pictures of this size, weights of another shape, and none
    where there must be some.
    """
    encoder = new_encoder(config)
    if init == PRETRAINED:
        weights = published_weights(config.network.backbone)
    if weights is not None:
        weights = in_order_of(encoder, dict(weights))
        initialise(encoder, weights, str(init))
    elif config.is_published and not is_begun:
        raise InputError(
            "freeze and finetune keep what a backbone knows, and this one is untrained: add --init pretrained, or "
            "--init weights.pth"
        )
    return weights


def _decode(
    source: ImageSource,
    preprocess: Preprocess,
    config: TrainConfig,
    out: Path,
    threads: int,
    group: ProcessGroup,
    display: Display,
) -> ImageCache:
    """Decode the images, in the first process before the others, which find the files it leaves."""
    if not group.is_first:
        group.barrier()
    cache = load_images(
        source, preprocess, config.cache_size, whole=True, cache=out / "cache",
        threads=threads or torch.get_num_threads(),
        tick=lambda done: display.decoded(done, len(source.items)),
    )  # fmt: skip
    if group.is_first:
        group.barrier()
    return cache


def _facts(
    spec: str, config: TrainConfig, cache: ImageCache, split: Split, device: torch.device, group: ProcessGroup
) -> dict[str, Fact]:
    """Return what a checkpoint's summary says of the run's origin."""
    return {
        "source": spec if ":" in spec and not Path(spec).exists() else str(Path(spec).expanduser().resolve()),
        "images": len(cache),
        "image_digest": cache.digest(),
        "failures": len(cache.failures),
        "train_images": len(split.train),
        "method": config.method,
        "recipe": config.recipe,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "device": str(device),
        "processes": group.count,
    }


def _origin(checkpoint: Checkpoint, cache: ImageCache, spec: str) -> Fact:
    """Return what a resumed run was once initialised with; raise MismatchError if it saw other images."""
    begun_on = checkpoint.summary.get("images")
    if begun_on != len(cache):
        raise MismatchError(
            f"the run was begun on {begun_on} images, found {len(cache)} in {spec!r}; "
            "give the same images to go on, or start over with --overwrite"
        )
    if checkpoint.summary.get("image_digest") not in (None, cache.digest()):
        raise MismatchError(
            f"the run was begun on other images than the {len(cache)} in {spec!r}: their ids, labels or pixels "
            "differ; give the same images to go on, or start over with --overwrite"
        )
    return checkpoint.summary.get("init")


def _describe(out: Path, config: TrainConfig, cache: ImageCache, group: ProcessGroup) -> None:
    """Write the settings after all merging, and what could not be read, next to the checkpoint."""
    if not group.is_first:
        return
    (out / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    failures = [{"id": f.id, "path": f.path, "reason": f.reason} for f in cache.failures]
    (out / "failures.json").write_text(json.dumps(failures, indent=2) + "\n")


def choose_device(name: str) -> torch.device:
    """Return the device of a name: auto takes the GPU where there is one. Raises InputError."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device: found {name!r}, expected auto, cpu or cuda")
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise InputError("--device cuda: torch finds no CUDA device here; use --device cpu")
    return torch.device("cuda" if present and name != "cpu" else "cpu")
