"""An encoder from anywhere, and what the model card says about where it comes from.

Shape letters: B batch, S side, F feature dimension, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import onnx

from export.served_encoder import Encode
from train.settings.config import AugmentConfig
from vssl.images.preprocess import Preprocess

PRINCIPAL = 128
"""Directions served of an encoder from elsewhere: docs/measurements/encoders.md."""


@dataclass(frozen=True, eq=False)
class EncoderSource:
    """What is exported, before anything is fitted.

    encode: the encoder as its own framework runs it, which the written file is compared with.
    make_graph: writes the same as ONNX, uint8 `images` in, `features` and `projected` out (`graph`).
    preprocess, pixel_mean, pixel_std: of the weights. augment, cache_size: views that calibrate the
    variance, and the side of the stored pictures they are cropped from. images: the spec of the images
    it was trained on, None when others must be named. name, method, branch, training, weights,
    supervision, licence: for the card (`vssl.model.card.ModelCard`).
    is_projector_trained: whether there is a projector whose mean may be served; whitening, dim: of the mean, unless
    given (`export.package.ExportOptions`).
    """

    encode: Encode
    make_graph: Callable[[], onnx.ModelProto]
    name: str
    method: str
    preprocess: Preprocess
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    augment: AugmentConfig
    cache_size: int
    images: str | None = None
    branch: str = "student"
    training: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    weights: str = ""
    supervision: str = "unknown"
    licence: str = "unspecified"
    is_projector_trained: bool = False
    whitening: float = 0.0
    dim: int | None = PRINCIPAL

    @cached_property
    def graph(self) -> onnx.ModelProto:
        """The encoder's part of the served graph, made once; calibration runs it too."""
        return self.make_graph()
