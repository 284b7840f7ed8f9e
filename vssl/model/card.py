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
PREDICTED_UNCERTAINTY = (
    "predicted by a head of its own: its rank, among held-out images, of how likely the nearest one is wrong"
)
SPACES = ("features", "projector")
CALIBRATIONS = ("none", "absent", "scale", "fitted-head", "monte-carlo")
SUPERVISION = ("none", "labels", "unknown")
RATIO_LIMITS = (0.8, 1.25)
LEAST_CORRELATION = 0.2
FEWEST_CHECKED = 64
"""Held-out ratio and rank correlation that pass, and the images below which neither is measured."""


@dataclass(frozen=True)
class Calibration:
    """How the served variance was fitted, and how well it fits held-out images.

    kind: `none` (not a calibrated variance: `vssl serve` warns), `absent` (means from elsewhere, without
        any variance), `scale`, `fitted-head` or `monte-carlo`.
    images, views: how many of each the fit saw.
    ratio: predicted variance over the variance of real views, each summed over held-out images;
        1 is calibrated. ratio_low, ratio_high: its 95 % interval over those images.
    rank_correlation: Spearman correlation of the two across held-out images.
    """

    kind: str = "none"
    images: int = 0
    views: int = 0
    ratio: float | None = None
    rank_correlation: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in CALIBRATIONS:
            raise FormatError(f"calibration.kind: found {self.kind!r}, expected one of {CALIBRATIONS}")

    def warnings(self) -> list[str]:
        """Return what is wrong with this calibration, each with what to do; empty when it can be trusted.

        `vssl export`, `vssl inspect` and `vssl serve` say the same.
        """
        again = "export again with more images: --calibration IMAGES --calibration-images N"
        if self.kind == "none":
            return [f"the variance is not calibrated, so distances that use it mean nothing; {again}"]
        if self.ratio is None:
            return [
                f"the variance was fitted on {self.images} images, too few to check it on others "
                f"(at least {FEWEST_CHECKED}); {again}"
            ]
        found = []
        if not RATIO_LIMITS[0] <= self.ratio <= RATIO_LIMITS[1]:
            interval = ""
            if self.ratio_low is not None and self.ratio_high is not None:
                interval = f" ({self.ratio_low:.2f} to {self.ratio_high:.2f})"
            found.append(
                f"the predicted variance is {self.ratio:.2f}{interval} times the measured one on held-out images, "
                f"expected {RATIO_LIMITS[0]:g} to {RATIO_LIMITS[1]:g}; {again}"
            )
        if self.rank_correlation is not None and self.rank_correlation < LEAST_CORRELATION:
            found.append(
                f"the predicted variance hardly ranks held-out images as their views do (rank correlation "
                f"{self.rank_correlation:.2f}, expected at least {LEAST_CORRELATION:g}); {again}"
            )
        return found


@dataclass(frozen=True)
class UncertaintyFit:
    """How the model's own `uncertainty` output was fitted, without labels.

    images: it was fitted on; rank_correlation: Spearman correlation, across held-out images, of the
    output with what it predicts (distance to neighbours and disagreement of clusters); cropped, damaged:
    share of held-out images whose cropped and otherwise damaged form is less sure than the image itself.
    """

    images: int
    rank_correlation: float | None = None
    cropped: float | None = None
    damaged: float | None = None


@dataclass(frozen=True)
class ModelCard:
    """Everything a reader of the model needs to use it rightly.

    name: what the model is called in lists; method: how it was trained; backbone: its
    network; space: which output is served as `mean` (`features` or `projector`); branch:
    `student` or `teacher`; centred: whether the calibration images' mean embedding is taken off
    every mean; whitening: how far their spread is evened out over directions, 0 to 1; dim: D;
    feature_dim: F; training: a flat summary (epochs, images, seed, ...); measured: what the file
    itself reached on labelled images that export was given (source, images, knn_top1, r_auroc),
    empty without; precision: fp32, fp16 or int8; licence: of the weights; weights: where they come
    from; supervision: whether they were trained with labels (`labels`), without (`none`) or `unknown`;
    pixel_mean, pixel_std: the normalisation in the graph, of channels in 0..1; uncertainty_fit: how the
    output `uncertainty` was fitted, None for a model whose uncertainty is derived from mean and variance.
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
    weights: str = ""
    supervision: str = "unknown"
    pixel_mean: tuple[float, ...] = ()
    pixel_std: tuple[float, ...] = ()
    uncertainty_fit: UncertaintyFit | None = None
    format: int = CARD_FORMAT

    def __post_init__(self) -> None:
        if self.format != CARD_FORMAT:
            raise FormatError(
                f"model card: found format {self.format!r}, expected {CARD_FORMAT}; "
                "export the model again with this version: vssl export RUN model.onnx"
            )
        for name, known in (("space", SPACES), ("supervision", SUPERVISION)):
            if getattr(self, name) not in known:
                raise FormatError(
                    f"model card: found {name} {getattr(self, name)!r}, expected one of {known}"
                )
        for name in ("dim", "feature_dim"):
            found = getattr(self, name)
            if type(found) is not int or found < 1:
                raise FormatError(f"model card: found {name} {found!r}, expected a positive integer")

    @property
    def has_variance(self) -> bool:
        """Whether there are variances; only means from elsewhere (vssl.embeddings.arrays) have none."""
        return self.calibration.kind != "absent"

    @property
    def from_elsewhere(self) -> bool:
        """Whether it stands for embeddings of a tool that left no card (vssl.embeddings.arrays)."""
        return self.method == "elsewhere"

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """The graph's outputs in order, each with its shape per image: () is one number."""
        shapes: dict[str, tuple[int, ...]] = {
            "mean": (self.dim,),
            "variance": (self.dim,),
            "features": (self.feature_dim,),
        }
        return shapes if self.uncertainty_fit is None else {**shapes, "uncertainty": ()}

    def to_json(self) -> str:
        """Return the card as JSON with sorted keys, the same text for the same card."""
        return json.dumps(asdict(self), sort_keys=True)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `GET /model` answers them."""
        return asdict(self) | {"pixel_mean": list(self.pixel_mean), "pixel_std": list(self.pixel_std)}

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Parse `to_json`'s form. Raises FormatError for anything else."""
        try:
            values = json.loads(text)
            values["preprocess"] = Preprocess.from_dict(values["preprocess"])
            values["calibration"] = Calibration(**values["calibration"])
            if values.get("uncertainty_fit") is not None:
                values["uncertainty_fit"] = UncertaintyFit(**values["uncertainty_fit"])
            for name in ("pixel_mean", "pixel_std"):
                values[name] = tuple(values.get(name, ()))
            unknown = set(values) - {f.name for f in fields(cls)}
            if unknown:
                raise FormatError(f"model card: unknown entries {sorted(unknown)}")
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError(
                f"model card: not readable ({type(error).__name__}: {error}); "
                "export the model again: vssl export RUN model.onnx"
            ) from error
