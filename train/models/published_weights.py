"""Weights as torchvision and timm publish them -> tensors under this project's names.
What they expect of a picture is what their library says.

They are found under the names their library gives them, with a classifier and, for networks with
positions, for pictures of another side: the classifier is left out, positions and patches are
resampled.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from train.models.backbones import Backbone
from train.models.encoder import Encoder
from train.settings.backbone_names import MISSING_TIMM, installed_timm
from vssl.errors import InputError, MismatchError
from vssl.images.preprocess import Preprocess

PRETRAINED = Path("pretrained")
"""Given as `init`, the weights that the network's library publishes."""
OURS = ("backbone.", "projector.", "normalise.")
WRAPPED = ("module.", "backbone.")
"""Prefixes that programs which train such networks put before every name."""
WITHOUT_LABELS = ("dino", "mae", "ijepa", "clip", "siglip", "swav", "simclr", "moco")
"""Words in a tag of timm's that say: trained without class labels."""


def published_weights(name: str) -> dict[str, Tensor]:
    """Return the pretrained weights of a network, as its library names them.

    torchvision's newest, timm's of the tag that the name has or of its first one. They come from
    the library's cache, and are fetched where they are not in it. Raises InputError when the
    network has none or they cannot be fetched here.
    """
    library, _, bare = name.partition("/")
    if library == "torchvision":
        return _from_torchvision(name, bare)
    if library == "timm":
        return _from_timm(name, bare)
    raise InputError(
        f"--init pretrained: {name} is a network of this project, for which there are none; set "
        f"network.backbone to torchvision/resnet18 or another of theirs, or give --init FILE"
    )


def under_our_names(backbone: Backbone, given: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Return tensors of a file under the names of an encoder with this backbone.

    Those that have such names already, and those for one of this project's own networks, are
    returned as they are. Raises MismatchError when positions or patches cannot be resampled.
    """
    if backbone.model is None or any(name.startswith(("backbone.model.", *OURS[1:])) for name in given):
        return dict(given)
    found = dict(given)
    for prefix in WRAPPED:
        inside = {n.removeprefix(prefix): v for n, v in found.items() if n.startswith(prefix)}
        found = inside or found
    try:
        found = _resampled(backbone, found)
    except (RuntimeError, ValueError, KeyError, AttributeError, AssertionError) as error:
        raise MismatchError(
            f"--init {origin}: positions or patches of another size cannot be carried over ({error}); give "
            f"weights of {backbone.config.backbone}"
        ) from error
    heads = tuple(f"{name}." for name in backbone.classifiers)
    return {f"backbone.model.{name}": value for name, value in found.items() if not name.startswith(heads)}


def _resampled(backbone: Backbone, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with positions for the backbone's side; timm's also from other programs' names."""
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    model = backbone.model
    if isinstance(model, VisionTransformer):
        return dict(interpolate_embeddings(model.image_size, model.patch_size, OrderedDict(found), "bicubic"))
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:  # timm's name for it; torchvision has none
        return found
    converted: dict[str, Tensor] = dict(convert(found, model))
    return converted


def _from_torchvision(name: str, bare: str) -> dict[str, Tensor]:
    from torchvision import models

    weights = models.get_model_weights(bare).DEFAULT
    try:
        found: dict[str, Tensor] = models.get_model(bare, weights=weights, progress=False).state_dict()
    except (OSError, RuntimeError) as error:
        raise InputError(_cannot_fetch(name, weights.url, error, weights.url.rpartition("/")[2])) from error
    return found


def _from_timm(name: str, bare: str) -> dict[str, Tensor]:
    timm = installed_timm()
    if timm is None:
        raise InputError(f"--init pretrained: {name}: {MISSING_TIMM}")
    known = timm.get_pretrained_cfg(bare)
    if known is None or not known.has_weights:
        raise InputError(
            f"--init pretrained: timm has no weights for {name}; give --init FILE, or leave it out"
        )
    try:
        found: dict[str, Tensor] = timm.create_model(bare, pretrained=True).state_dict()
    # Its downloaders raise errors of several libraries.
    except Exception as error:
        place = f"https://huggingface.co/{known.hf_hub_id}" if known.hf_hub_id else known.url
        raise InputError(_cannot_fetch(name, place, error, "model.safetensors")) from error
    return found


def _cannot_fetch(name: str, place: str | None, error: Exception, file: str) -> str:
    reason = str(error).strip().split("\n")[0]
    return (
        f"--init pretrained: the weights of {name} cannot be fetched from {place} "
        f"({type(error).__name__}: {reason}); fetch them on a machine that can, bring the file here and "
        f"give it: --init {file}"
    )


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
    if not own or len(theirs) < len(own) or all(name.removeprefix(prefix) in given for name in own):
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
