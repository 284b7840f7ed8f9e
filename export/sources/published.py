"""The name of a network of torchvision or timm, and its published weights -> an encoder to export.

The weights come from the library's cache or hub, or from a file. The preprocessing is the one that they
were trained with, as the library states it. Shape letters: S side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from export.sources.encoder_graph import encoder_graph
from export.sources.encoder_source import EncoderSource
from train.models.backbones import Backbone
from train.models.encoder import Encoder
from train.models.published_weights import published_weights
from train.models.weights import initialise, read_weights
from train.settings.backbone_names import OWN, full_name, installed_timm
from train.settings.config import AugmentConfig, NetworkConfig, TrainConfig
from vssl.errors import InputError
from vssl.images.preprocess import Preprocess
from vssl.model.identity import sha256_file

WITHOUT_LABELS = ("dino", "mae", "ijepa", "clip", "siglip", "swav", "simclr", "moco")
"""Words in a tag of timm's that say: trained without class labels."""


@dataclass(frozen=True)
class WeightsInfo:
    """What weights expect of a picture, and what is known of them.

    pixel_mean, pixel_std: of channels in 0..1; supervision, licence: for the card.
    """

    preprocess: Preprocess
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    supervision: str = "unknown"
    licence: str = "unspecified"


class _AsIs(nn.Module):
    """Features -> the same: a published encoder has no projector."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, F)."""
        return features


def published_encoder(
    name: str, weights: Path | None = None, *, size: int | None = None, info: WeightsInfo | None = None
) -> EncoderSource:
    """Build a network of torchvision or timm with its weights.

    weights: a file of them, None for what the library publishes; size: side S, None for that of the weights;
    info: what the weights expect, None for what the library says of its own. Raises InputError for
    an unknown name or weights that cannot be fetched, MismatchError for weights of another network.
    """
    full = full_name(name)
    if full in OWN:
        raise InputError(
            f"{name} is a network of this project, for which nothing is published; train it: vssl train IMAGES"
        )
    info = info or library_info(full)
    if size is not None:
        info = replace(info, preprocess=resized(info.preprocess, size))
    config = TrainConfig(
        network=replace(NetworkConfig(), backbone=full, stem="large"),
        size=info.preprocess.size,
        cache_size=info.preprocess.size,
        mean=info.pixel_mean,
        std=info.pixel_std,
    )
    encoder = Encoder(config, _AsIs(), Backbone(config.network))
    if weights is None:
        tensors, origin = published_weights(full), f"{full}, as its library publishes it"
        licence, supervision = info.licence, info.supervision
    else:
        tensors = in_order_of(encoder, read_weights(weights))
        origin = f"{weights.name} (sha256 {sha256_file(weights)[:12]})"
        licence, supervision = "unspecified", info.supervision
    initialise(encoder, tensors, str(weights or full))
    encoder.eval()
    return EncoderSource(
        encode=encoder,
        make_graph=partial(encoder_graph, encoder, info.preprocess.size),
        name=full,
        method="published",
        preprocess=info.preprocess,
        pixel_mean=info.pixel_mean,
        pixel_std=info.pixel_std,
        augment=AugmentConfig(),
        cache_size=info.preprocess.size,
        weights=origin,
        supervision=supervision,
        licence=licence,
    )


def resized(preprocess: Preprocess, size: int) -> Preprocess:
    """Return the preprocessing for another side S, the crop's share kept."""
    return replace(preprocess, size=size, resize=max(size, round(preprocess.resize * size / preprocess.size)))


def in_order_of(encoder: Encoder, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the network's names where the file has the same ones under other names.

    The same means: in the same order, each with the same last word of its name and the same shape, a
    classifier at the end aside. Anything else is returned as it is.
    """
    prefix = "backbone.model."
    own = {n: v for n, v in encoder.state_dict().items() if n.startswith(prefix)}
    theirs = list(given.items())[: len(own)]
    if len(theirs) < len(own) or any(name.removeprefix(prefix) in given for name in own):
        return given
    pairs = list(zip(own.items(), theirs, strict=True))
    same = all(
        a.rpartition(".")[2] == b.rpartition(".")[2] and x.shape == y.shape for (a, x), (b, y) in pairs
    )
    return {a: y for (a, _), (_, y) in pairs} if same else given


def library_info(full: str) -> WeightsInfo:
    """Return what a library says that the published weights of a network expect."""
    library, _, bare = full.partition("/")
    return _torchvision_info(bare) if library == "torchvision" else _timm_info(full, bare)


def _torchvision_info(bare: str) -> WeightsInfo:
    from torchvision import models

    weights = models.get_model_weights(bare).DEFAULT
    transforms: Any = weights.transforms()
    (size,), (resize,) = transforms.crop_size, transforms.resize_size
    preprocess = Preprocess(size=size, resize=resize, interpolation=transforms.interpolation.value)
    return WeightsInfo(preprocess, tuple(transforms.mean), tuple(transforms.std), "labels")


def _timm_info(full: str, bare: str) -> WeightsInfo:
    timm = installed_timm()
    known = None if timm is None else timm.get_pretrained_cfg(bare)
    if known is None:
        raise InputError(f"{full}: timm states no preprocessing for it; give --size, --mean and --std")
    size = known.input_size[1]
    is_stretched = known.crop_mode == "squash"
    preprocess = Preprocess(
        size=size,
        resize=size if is_stretched else max(size, int(size / known.crop_pct)),
        fit="stretch" if is_stretched else "crop",
        interpolation=known.interpolation if known.interpolation in ("bilinear", "bicubic") else "bicubic",
    )
    tag = str(known.tag or "")
    supervision = "none" if any(word in tag for word in WITHOUT_LABELS) else "labels" if tag else "unknown"
    licence = str(getattr(known, "license", None) or "unspecified")
    return WeightsInfo(preprocess, tuple(known.mean), tuple(known.std), supervision, licence)
