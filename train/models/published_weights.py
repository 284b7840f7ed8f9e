"""Weights as torchvision and timm publish them -> tensors under this project's names.

They are found under the names their library gives them, with a classifier and, for networks with
positions, for pictures of another side: the classifier is left out, positions and patches are
resampled.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor

from train.models.backbones import Backbone
from train.settings.backbone_names import MISSING_TIMM, installed_timm
from vssl.errors import InputError, MismatchError

OURS = ("backbone.", "projector.", "normalise.")
WRAPPED = ("module.", "backbone.")
"""Prefixes that programs which train such networks put before every name."""


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
