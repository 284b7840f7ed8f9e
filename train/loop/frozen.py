"""A frozen backbone and decoded images -> features of a few views of each, for the heads to train on.

They are made once and kept in the run's folder. A step then costs the heads alone, so a run takes about as
long as embedding the images a few times. Nothing else of a run changes: a batch of stored features takes the
place of a batch of stored pictures, drawing one of an image's takes the place of drawing a view, and the
encoders pass by their backbone (`train.models.encoder`).
Shape letters: N images, V views kept of each, F feature dimension.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.augment.views import Views
from train.data.image_cache import ImageCache
from train.evaluation.monitor import EvaluationSet
from train.methods import new_encoder
from train.methods.method import Method
from train.models.encoder import Encoder
from train.models.heads import AnchoredProjector
from train.models.weights import initialise
from train.settings.config import TrainConfig
from train.state.distributed import SINGLE, ProcessGroup
from train.state.randomness import generator_for
from vssl.errors import InputError
from vssl.files import atomic_write
from vssl.model.identity import VERSION

BLOCK = 32  # pictures the backbone sees at once
FEATURES_NAME = "features.npz"
KEPT = ("views", "training", "queries")


def with_features(
    config: TrainConfig,
    weights: Mapping[str, Tensor],
    cache: ImageCache,
    evaluation: EvaluationSet,
    device: torch.device,
    tick: Callable[[int, int], None],
    file: Path,
    group: ProcessGroup = SINGLE,
) -> tuple[ImageCache, EvaluationSet]:
    """Return both with features in the place of pictures: of views, and of the plain images that are watched.

    file: where they are kept, and found again as long as images, views and backbone stay the same.
    Raises InputError for features that cannot be kept (`features_of_views`).
    """
    encoder = frozen_encoder(config, weights)
    key = _key(encoder, config, cache, evaluation)
    found = _read(file, key)
    if found is None:
        views = features_of_views(encoder, config, cache, device, tick).images
        plain = features_of_images(encoder, evaluation, device)
        found = views, plain.train_images, plain.queries
        if group.is_first:
            with atomic_write(file) as out:
                np.savez(out, key=key, views=found[0], training=found[1], queries=found[2])
    views, training, queries = found
    stored = views[evaluation.cache_rows]
    return replace(cache, images=views), replace(
        evaluation, train_images=training, queries=queries, stored=stored
    )


def _key(encoder: Encoder, config: TrainConfig, cache: ImageCache, evaluation: EvaluationSet) -> str:
    """Identify what features are made of: images, how views are drawn, the backbone, this version."""
    drawn = [config.seed, config.size, config.frozen_views, config.mean, config.std, config.network.backbone]
    views = [asdict(config.augment), asdict(config.augment_second)]
    seen = hashlib.sha256(json.dumps([VERSION, cache.digest(), drawn, views]).encode())
    for images in (evaluation.train_images, evaluation.queries):
        seen.update(np.ascontiguousarray(images).data)
    for tensor in encoder.backbone.state_dict().values():
        seen.update(np.ascontiguousarray(tensor.numpy()).data)
    return seen.hexdigest()


def _read(file: Path, key: str) -> tuple[Any, ...] | None:
    """Return the features of a file of this key; None where there is none, or its checksums do not fit."""
    try:
        with np.load(file) as kept:
            return tuple(kept[name] for name in KEPT) if kept["key"] == key else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def frozen_encoder(config: TrainConfig, weights: Mapping[str, Tensor]) -> Encoder:
    """Build the encoder whose backbone stays as it is."""
    encoder = new_encoder(config)
    initialise(encoder, weights, "weights")
    return encoder.eval()


def features_of_views(
    encoder: Encoder,
    config: TrainConfig,
    cache: ImageCache,
    device: torch.device,
    tick: Callable[[int, int], None],
) -> ImageCache:
    """Return the cache with features (N, V, F) of V views in the place of pictures; tick: images done, and all.

    The first half are first views, the others second ones. Raises InputError for features that 16 bits do not hold.
    """
    encoder = encoder.to(device).to(memory_format=torch.channels_last)
    views = (Views(config.augment, config.size), Views(config.augment_second, config.size))
    kept, half = config.frozen_views, config.frozen_views // 2
    features = np.empty((len(cache), 2 * half, encoder.feature_dim), np.float16)
    for start in range(0, len(cache), BLOCK):
        stored = torch.from_numpy(np.ascontiguousarray(cache.images[start : start + BLOCK])).to(device)
        aspects = None if cache.aspects is None else torch.from_numpy(cache.aspects[start : start + BLOCK])
        shape = None if aspects is None else aspects.to(device)
        for view in range(2 * half):
            drawn = generator_for(device, config.seed, "kept views", start * kept + view)
            pictures = views[view // half](stored, drawn, aspects=shape)
            features[start : start + len(stored), view] = _features(encoder, pictures)
        tick(start + len(stored), len(cache))
    if not np.isfinite(features).all():
        raise InputError(
            f"{config.network.backbone}: found features beyond 65504, which are kept in 16 bits; leave out --freeze"
        )
    # What holds them asks for no more of them than to be an array of N.
    images: Any = features
    return replace(cache, images=images)


def features_of_images(encoder: Encoder, evaluation: EvaluationSet, device: torch.device) -> EvaluationSet:
    """Return the images that are watched with features (n, F) in the place of pictures."""

    def plain(images: NDArray[np.uint8]) -> Any:
        blocks = (torch.from_numpy(images[i : i + BLOCK]).to(device) for i in range(0, len(images), BLOCK))
        return np.concatenate([_features(encoder, block) for block in blocks])

    return replace(evaluation, train_images=plain(evaluation.train_images), queries=plain(evaluation.queries))


def begin_with(
    method: Method,
    weights: Mapping[str, Tensor] | None,
    origin: str,
    evaluation: EvaluationSet,
    device: torch.device,
) -> None:
    """Begin with weights, if any, and with the principal directions of a published backbone; the teacher likewise."""
    if weights is None:
        return
    initialise(method.student, weights, origin)
    if isinstance(method.student.projector, AnchoredProjector):
        if evaluation.train_images.ndim > 2:
            method.student.eval()
            evaluation = features_of_images(method.student, evaluation, device)
            method.student.train()
        method.student.projector.begin_at(torch.from_numpy(evaluation.train_images).to(device))
    if method.teacher is not None:
        method.teacher.load_state_dict(method.student.state_dict())


@torch.inference_mode()
def _features(encoder: Encoder, pictures: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = encoder.backbone(encoder.normalise(pictures)).float().cpu().numpy()
    return found
