"""The name of a network of torchvision or timm, and its published weights -> an encoder to export.

The weights come from the library's cache or hub, or from a file. The preprocessing is the one that they
were trained with, as the library states it. Shape letters: S side.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from export.sources.encoder_graph import encoder_graph
from export.sources.encoder_source import EncoderSource
from train.models.backbones import Backbone
from train.models.encoder import Encoder
from train.models.published_weights import WeightsInfo, in_order_of, library_info, published_weights, resized
from train.models.weights import initialise, read_weights
from train.settings.backbone_names import OWN, full_name
from train.settings.config import AugmentConfig, NetworkConfig, TrainConfig
from vssl.errors import InputError
from vssl.model.identity import sha256_file


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
