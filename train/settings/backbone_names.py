"""A backbone's name, as a person writes it -> the one name of one network.

    resnet18, resnet10, resnet8     this project's own, any width from 8
    torchvision/NAME                torchvision's, as torchvision.models.NAME
    timm/NAME                       timm's, with the tag of its weights if that is given (NAME.TAG)
    NAME                            any other: torchvision's if it has one of this name, else timm's

The full name is what a run's settings, its checkpoint and the model card say, so that a name
without its library means the same on a machine where another version of one is installed.
"""

from __future__ import annotations

import difflib
from types import ModuleType

from vssl.errors import InputError

OWN = ("resnet18", "resnet10", "resnet8")
"""Residual networks of `train.models.backbones`."""

FAMILIES = (
    "resnet", "resnext", "wide_resnet", "regnet", "convnext", "vit", "swin", "efficientnet",
    "mobilenet", "densenet", "shufflenet", "mnasnet",
)  # fmt: skip
"""torchvision's families whose features are one pooled vector; the others are had from timm."""

MISSING_TIMM = "timm is not installed; install it with: pip install 'vssl[backbones]'"
NEAR = 4  # names suggested in an error


def full_name(name: str) -> str:
    """Return the full name of a backbone; a full name returns itself.

    Raises InputError for an unknown name, with near ones, or when it needs timm and that
    is not installed.
    """
    if name in OWN:
        return name
    library, _, bare = name.rpartition("/")
    if library not in ("", "torchvision", "timm"):
        raise InputError(
            f"network.backbone: found {name!r}, expected one of {', '.join(OWN)}, torchvision/NAME or timm/NAME"
        )
    if library != "timm" and bare in torchvision_names():
        return f"torchvision/{bare}"
    timm = installed_timm()
    if library != "torchvision" and timm is not None and timm.is_model(bare):
        known = timm.list_pretrained(f"{bare.split('.')[0]}.*") if "." in bare else [bare]
        if bare in known:
            return f"timm/{bare}"
        raise InputError(
            f"network.backbone: found {name!r}, but timm has no weights {bare!r}; its own of this network: "
            f"{', '.join(known) or 'none'}"
        )
    raise InputError(_unknown(name, library, bare, timm))


def torchvision_names() -> list[str]:
    """Return the names of torchvision's networks that can be a backbone."""
    from torchvision import models

    return [name for name in models.list_models(module=models) if name.startswith(FAMILIES)]


def installed_timm() -> ModuleType | None:
    """Return timm, or None where it is not installed."""
    try:
        import timm
    except ModuleNotFoundError:
        return None
    module: ModuleType = timm
    return module


def _unknown(name: str, library: str, bare: str, timm: ModuleType | None) -> str:
    candidates = {} if library == "timm" else {n: f"torchvision/{n}" for n in torchvision_names()}
    if not library:
        candidates |= {n: n for n in OWN}
    if library != "torchvision" and timm is not None:
        candidates = {n: f"timm/{n}" for n in timm.list_models()} | candidates
    near = [candidates[n] for n in difflib.get_close_matches(bare.split(".")[0], candidates, NEAR)]
    text = f"network.backbone: found {name!r}, which is no network known here; "
    if near:
        text += f"near it: {', '.join(near)}"
    elif library == "torchvision":
        text += f"expected one of torchvision's families {', '.join(FAMILIES)}; timm has more: timm/{bare}"
    else:
        text += f"expected one of {', '.join(OWN)}, torchvision/NAME or timm/NAME"
    if library != "torchvision" and timm is None:
        text += f". If it is one of timm's: {MISSING_TIMM}"
    return text
