"""ModelCard: what a model is, as one JSON entry that travels inside the ONNX file.

The card is written by export and read by everything downstream; the model id is not in it
(it is the sha256 of the file that holds the card).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from vssl.errors import FormatError
from vssl.images.preprocess import Preprocess

CARD_FORMAT = 1
CARD_KEY = "vssl.card"
GOLDEN_KEY = "vssl.golden"
UNCERTAINTY = "expected cosine spread: 1 - 1/sqrt(1 + t), t = variance across the mean / |mean|^2"
SPACES = ("features", "projector")
CALIBRATIONS = ("none", "scale", "fitted-head", "monte-carlo")


@dataclass(frozen=True)
class Calibration:
    """How the served variance was fitted, and how well it fits held-out images.

    kind: `none` (not a calibrated variance: `vssl serve` warns), `scale`, `fitted-head` or
        `monte-carlo`.
    images, views: how many of each the fit saw.
    ratio: predicted variance over the variance of real views, each summed over held-out images;
        1 is calibrated.
    rank_correlation: Spearman correlation of the two across held-out images.
    """

    kind: str = "none"
    images: int = 0
    views: int = 0
    ratio: float | None = None
    rank_correlation: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in CALIBRATIONS:
            raise FormatError(f"calibration.kind: found {self.kind!r}, expected one of {CALIBRATIONS}")


@dataclass(frozen=True)
class ModelCard:
    """Everything a reader of the model needs to use it rightly.

    name: what the model is called in lists; method: how it was trained; backbone: its
    network; space: which output is served as `mean` (`features` or `projector`); branch:
    `student` or `teacher`; centred: whether the calibration images' mean embedding is taken off
    every mean; whitening: how far their spread is evened out over directions, 0 to 1; dim: D;
    feature_dim: F; training: a flat summary (epochs, images, seed, ...); measured: what the file
    itself reached on labelled images that export was given (source, images, knn_top1, r_auroc),
    empty without; precision: fp32, fp16 or int8; licence: of the weights.
    """

    name: str
    method: str
    backbone: str
    space: str
    dim: int
    feature_dim: int
    preprocess: Preprocess
    branch: str = "student"
    centred: bool = False
    whitening: float = 0.0
    calibration: Calibration = field(default_factory=Calibration)
    training: dict[str, str | int | float | bool | None] = field(default_factory=dict)
    measured: dict[str, str | int | float | None] = field(default_factory=dict)
    precision: str = "fp32"
    licence: str = "unspecified"
    created: str = ""
    vssl_version: str = ""
    uncertainty: str = UNCERTAINTY
    format: int = CARD_FORMAT

    def __post_init__(self) -> None:
        if self.format != CARD_FORMAT:
            raise FormatError(
                f"model card: found format {self.format!r}, expected {CARD_FORMAT}; "
                "export the model again with this version: vssl export RUN model.onnx"
            )
        if self.space not in SPACES:
            raise FormatError(f"model card: found space {self.space!r}, expected one of {SPACES}")
        for name in ("dim", "feature_dim"):
            found = getattr(self, name)
            if type(found) is not int or found < 1:
                raise FormatError(f"model card: found {name} {found!r}, expected a positive integer")

    def to_json(self) -> str:
        """Return the card as JSON with sorted keys, the same text for the same card."""
        return json.dumps(asdict(self), sort_keys=True)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `GET /model` answers them."""
        return asdict(self)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Parse `to_json`'s form. Raises FormatError for anything else."""
        try:
            values = json.loads(text)
            values["preprocess"] = Preprocess.from_dict(values["preprocess"])
            values["calibration"] = Calibration(**values["calibration"])
            unknown = set(values) - {f.name for f in fields(cls)}
            if unknown:
                raise FormatError(f"model card: unknown entries {sorted(unknown)}")
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError(
                f"model card: not readable ({type(error).__name__}: {error}); "
                "export the model again: vssl export RUN model.onnx"
            ) from error
