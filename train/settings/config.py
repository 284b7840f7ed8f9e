"""Plain values (TOML, JSON) <-> TrainConfig: everything that decides a training run.

One frozen value, written into the checkpoint; the run is a function of it, the images and the
machine's arithmetic. Lengths are in pixels or, where said, in shares of a side; learning rates
are those at a batch of 256 images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from train.settings.backbone_names import full_name
from vssl.errors import InputError

T = TypeVar("T")
Pair = tuple[float, float]
Triple = tuple[float, float, float]
Option = str | int | float | bool

MIN_IMAGES = 8
"""Fewer cannot be trained on: batch norm needs others to compare with."""


@dataclass(frozen=True)
class AugmentConfig:
    """How one view is drawn from an image; `train.augment.views` applies it.

    crop_scale, crop_ratio: area share and aspect ratio of the random resized crop;
        interpolation: bilinear or bicubic, anti-aliased.
    flip, jitter, grey, blur, solarise: chances per image.
    brightness, contrast, saturation, hue: jitter strengths, as torchvision's ColorJitter.
    blur_sigma: range of the Gaussian blur, pixels of the view.
    rotate: largest turn, degrees; shift: largest displacement, share of the side; zoom: range
        of magnification. All three are one bilinear warp after the crop; the background, the
        median of the border, fills what comes from outside.
    noise: largest standard deviation of additive noise, in grey levels (0..255); each image
        draws its own level below it.
    """

    crop_scale: Pair = (0.08, 1.0)
    crop_ratio: Pair = (0.75, 4 / 3)
    interpolation: str = "bicubic"
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey: float = 0.2
    blur: float = 0.0
    blur_sigma: Pair = (0.1, 2.0)
    solarise: float = 0.0
    rotate: float = 0.0
    shift: float = 0.0
    zoom: Pair = (1.0, 1.0)
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grey", "blur", "solarise"):
            _within(f"augment.{name}", getattr(self, name), 0.0, 1.0)
        for name in ("brightness", "contrast", "saturation", "rotate", "shift", "noise"):
            _within(f"augment.{name}", getattr(self, name), 0.0, float("inf"))
        _within("augment.hue", self.hue, 0.0, 0.5)
        for name in ("crop_scale", "crop_ratio", "blur_sigma", "zoom"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise InputError(f"augment.{name}: found {(low, high)}, expected 0 < low <= high")
        _within("augment.crop_scale", self.crop_scale[1], 0.0, 1.0)
        _one_of("augment.interpolation", self.interpolation, ("bilinear", "bicubic"))


@dataclass(frozen=True)
class NetworkConfig:
    """The backbone and the widths of the heads.

    backbone: resnet18, resnet10 (one block a stage) or resnet8 (one block, three stages);
        torchvision/NAME, timm/NAME, or NAME alone for either (`train.settings.backbone_names`).
    width: channels of the first stage, 8 or more, doubled by each further stage; of the first three only.
    stem: `small` (3x3, stride 1, padding 2: images up to about 32 px), `medium` (3x3, stride 2)
        or `large` (7x7, stride 2, then max pooling). Of other networks: `large` is their own,
        the others have a quarter and half of its stride (`train.models.library_backbones`).
    dim: D, the embedding dimension; *_hidden: hidden widths of the two-layer heads.
    """

    backbone: str = "resnet18"
    width: int = 64
    stem: str = "small"
    dim: int = 256
    projector_hidden: int = 4096
    predictor_hidden: int = 4096
    denoiser_hidden: int = 4096

    def __post_init__(self) -> None:
        object.__setattr__(self, "backbone", full_name(self.backbone))
        _one_of("network.stem", self.stem, ("small", "medium", "large"))
        _within("network.width", self.width, 8, 65536)  # below, torch aborts on some CPUs
        for name in ("dim", "projector_hidden", "predictor_hidden", "denoiser_hidden"):
            _within(f"network.{name}", getattr(self, name), 1, 65536)


@dataclass(frozen=True)
class OptimiserConfig:
    """How the student learns.

    name: lars, sgd or adamw; lr: learning rate at a batch of 256, scaled linearly with the
    batch; warmup_epochs of linear warm-up from warmup_lr, then cosine to final_lr.
    clip_norm: largest gradient norm, 0 for none; accumulate: batches per optimiser step.
    constant_predictor: let the predictor learn at lr throughout, as SimSiam does.
    backbone_lr: share of the rate that the backbone learns at; a published one forgets at the full rate.
    """

    name: str = "lars"
    lr: float = 1.0
    weight_decay: float = 1e-5
    momentum: float = 0.9
    warmup_epochs: float = 10.0
    warmup_lr: float = 3e-5
    final_lr: float = 0.0
    clip_norm: float = 0.0
    accumulate: int = 1
    constant_predictor: bool = False
    backbone_lr: float = 1.0

    def __post_init__(self) -> None:
        _one_of("optimiser.name", self.name, ("lars", "sgd", "adamw"))
        for name in ("lr", "weight_decay", "momentum", "warmup_epochs", "warmup_lr", "final_lr", "clip_norm"):
            _within(f"optimiser.{name}", getattr(self, name), 0.0, float("inf"))
        _within("optimiser.accumulate", self.accumulate, 1, 4096)


@dataclass(frozen=True)
class EvaluationConfig:
    """What is watched while training.

    every: epochs between evaluations; validation: share of the images held out for it, chosen
    by a hash of the id; images: at most so many held-out images and so many training images
    are embedded; classifier_lr: of the online linear classifier, at a batch of 256.
    """

    every: int = 1
    validation: float = 0.1
    images: int = 2000
    neighbours: int = 20
    temperature: float = 0.07
    classifier_lr: float = 0.1

    def __post_init__(self) -> None:
        _within("evaluation.every", self.every, 1, 10**6)
        _within("evaluation.validation", self.validation, 0.0, 0.5)
        _within("evaluation.images", self.images, 2, 10**7)
        _within("evaluation.neighbours", self.neighbours, 1, 10**6)
        _within("evaluation.temperature", self.temperature, 1e-6, float("inf"))
        _within("evaluation.classifier_lr", self.classifier_lr, 0.0, float("inf"))


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    size: side of the square the network sees; cache_size: side of the decoded images that
        views are cropped from, at least `size`; interpolation: of the decoding resize.
    mean, std: of the pixels in 0..1, per channel; the network's first layer applies them.
    augment, augment_second: how the first and the second view are drawn.
    teacher_momentum: share of the teacher kept at each step, at the start and at the end.
    options: the method's own switches; see the method's file.
    freeze: leave the backbone as it is and train the heads on features of `frozen_views` views of each image,
        half of them first and half second views, that are made once (`train.loop.frozen`).
    finetune: train a published backbone on from its weights: its norms keep their statistics, the projector begins at
        the principal directions of its features, and the state with the best view recall is kept.
    precision: fp32, bf16, or auto (bf16 where the device computes it natively).
    compile: let torch.compile translate the views, and encoders, heads and loss as one graph, which takes
        a minute or more at the start and spares a GPU's host most of its work; not with several processes.
    cuda_graphs: replay what was translated on a GPU as CUDA graphs, so that small networks do not wait
        for their kernels to be launched; with compile only, from torch 2.13 on, and with accumulate = 1.
    """

    method: str = "vssl"
    recipe: str = "small"
    seed: int = 5
    epochs: int = 100
    batch_size: int = 256
    size: int = 32
    cache_size: int = 32
    interpolation: str = "bicubic"
    mean: Triple = (0.5, 0.5, 0.5)
    std: Triple = (0.25, 0.25, 0.25)
    teacher_momentum: Pair = (0.99, 1.0)
    freeze: bool = False
    finetune: bool = False
    frozen_views: int = 8
    precision: str = "auto"
    compile: bool = False
    cuda_graphs: bool = False
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    augment_second: AugmentConfig = field(default_factory=AugmentConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    options: dict[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _within("seed", self.seed, 0, 2**31 - 1)
        _within("epochs", self.epochs, 0, 10**7)
        _within("batch_size", self.batch_size, 2, 10**6)
        _within("size", self.size, 8, 1024)
        _within("frozen_views", self.frozen_views, 2, 1024)
        if self.freeze and self.finetune:
            raise InputError(
                "finetune: found true together with freeze, which leaves the backbone as it is; choose one"
            )
        if self.freeze and self.compile:
            raise InputError(
                "compile: found true together with freeze, which leaves little to translate; leave it out"
            )
        _within("cache_size", self.cache_size, self.size, 2048)
        _one_of("interpolation", self.interpolation, ("bilinear", "bicubic", "lanczos", "box"))
        _one_of("precision", self.precision, ("auto", "fp32", "bf16"))
        for value in self.std:
            _within("std", value, 1e-6, float("inf"))
        for value in self.teacher_momentum:
            _within("teacher_momentum", value, 0.0, 1.0)

    @property
    def is_published(self) -> bool:
        """Whether the run begins with weights made elsewhere, and must not end worse than them."""
        return self.freeze or self.finetune

    def to_dict(self) -> dict[str, Any]:
        """Return plain values (tuples as lists) for JSON, TOML and the checkpoint."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Build from plain values; unknown names and wrong types raise InputError."""
        return build(cls, values)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"{name}: found {value}, expected {low:g} to {high:g}")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name}: found {value!r}, expected one of {', '.join(allowed)}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def build(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Return a settings class of plain values, which stand under the name `where`.

    Raises InputError for a name that the class does not know and a value of another type.
    """
    known = get_type_hints(cls)
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise InputError(f"unknown setting {where}{unknown[0]}: expected one of {', '.join(names) or 'none'}")
    return cls(**{name: _value(known[name], value, f"{where}{name}") for name, value in values.items()})


def _value(kind: Any, value: Any, name: str) -> Any:
    """Check one value against its declared type; whole numbers pass as floats."""
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise InputError(f"{name}: found {value!r}, expected a table of settings")
        return build(kind, value, f"{name}.")
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if not isinstance(value, list | tuple) or len(value) != len(kinds):
            raise InputError(f"{name}: found {value!r}, expected {len(kinds)} numbers")
        return tuple(_value(k, v, name) for k, v in zip(kinds, value, strict=True))
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise InputError(f"{name}: found {value!r}, expected a table of settings")
        return dict(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise InputError(f"{name}: found {value!r}, expected {kind.__name__}")
    return value
