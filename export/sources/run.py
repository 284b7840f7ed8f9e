"""A checkpoint of `vssl train` -> the encoder that export calibrates."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from export.sources.encoder_graph import encoder_graph
from export.sources.encoder_source import PRINCIPAL, EncoderSource
from train.methods import build_encoder
from train.models.published_weights import library_info
from train.settings.backbone_names import OWN
from train.settings.config import TrainConfig
from train.state.checkpoint import Checkpoint


def run_encoder(checkpoint: Checkpoint, branch: str = "student") -> EncoderSource:
    """Build the student or the teacher of a checkpoint. Raises InputError for another branch."""
    config = checkpoint.config
    encoder = build_encoder(checkpoint, branch)
    source = str(checkpoint.summary["source"])
    return EncoderSource(
        encode=encoder,
        make_graph=partial(encoder_graph, encoder, config.size),
        name=config.network.backbone,
        method=config.method,
        preprocess=checkpoint.preprocess,
        pixel_mean=config.mean,
        pixel_std=config.std,
        augment=config.augment,
        cache_size=config.cache_size,
        images=source,
        branch=branch,
        training={**checkpoint.summary, "source": Path(source).name},  # not the whole path
        weights=_weights(config),
        supervision=_supervision(config) if config.is_published else "none",
        is_projector_trained=checkpoint.step > 0,
        dim=None if checkpoint.step > 0 else PRINCIPAL,
        # Half whitening suits encoders of minutes; it costs a published one much (docs/measurements/encoders.md).
        whitening=0.5 if checkpoint.step > 0 and not config.is_published else 0.0,
    )


def _weights(config: TrainConfig) -> str:
    """Return who made the weights."""
    if config.freeze:
        return f"heads trained by vssl on {config.network.backbone}"
    return f"fine-tuned by vssl from {config.network.backbone}" if config.finetune else "trained by vssl"


def _supervision(config: TrainConfig) -> str:
    """Return whether labels made the weights of a published backbone, as far as its library says."""
    name = config.network.backbone
    return "unknown" if name in OWN else library_info(name).supervision
