"""A checkpoint of `vssl train` -> the encoder that export calibrates."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from export.sources.encoder_graph import encoder_graph
from export.sources.encoder_source import EncoderSource
from train.methods import build_encoder
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
        weights="trained by vssl",
        supervision="none",
        is_projector_trained=checkpoint.step > 0,
    )
