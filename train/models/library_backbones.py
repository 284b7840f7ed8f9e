"""torchvision's and timm's networks -> backbones: no classifier, no randomness of their own, a stem that fits.

A network that adds positions to its patches is built for the side of the pictures it will see.
`stem` means the same for all families, the stride of the whole stem: `large` is the network's own,
`medium` half of it and `small` a quarter, for pictures that are a half or a quarter of what the
network was made for. Shape letters: B batch, S side, F feature dimension.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from train.settings.backbone_names import MISSING_TIMM, installed_timm
from vssl.errors import InputError

SHRINK = {"large": 1, "medium": 2, "small": 4}
"""What the stride of a network's own stem is divided by."""

USUAL_SIDE = 224


class Outside(NamedTuple):
    """A network (B, 3, S, S) -> (B, F).

    classifiers: names under which its library keeps the classifier that was taken off;
    fixed_side: it adds positions, so that it is one for the side it was built for.
    """

    model: nn.Module
    classifiers: tuple[str, ...]
    fixed_side: bool


def build_outside(name: str, stem: str, side: int = USUAL_SIDE) -> Outside:
    """Build `torchvision/NAME` or `timm/NAME`, untrained, for pictures of a side.

    Raises InputError when the stem cannot be changed or the side is none that it can take.
    """
    library, _, bare = name.partition("/")
    with warnings.catch_warnings():
        # Some networks warn about their own starting weights.
        warnings.simplefilter("ignore")
        built = (_torchvision if library == "torchvision" else _timm)(name, bare, SHRINK[stem], side)
    if SHRINK[stem] > 1:
        _shrink_stem(built.model, name, SHRINK[stem])
    for module in built.model.modules():
        # Views are the only noise of a run: what is drawn here would depend on when it was resumed.
        if isinstance(module, nn.Dropout) or type(module).__name__ == "StochasticDepth":
            cast(nn.Dropout, module).p = 0.0
    return built


def feature_dim(name: str, stem: str, side: int) -> int:
    """Return F of a network for pictures of a side, without computing.

    Raises InputError when it cannot take pictures of that side.
    """
    try:
        with torch.device("meta"), torch.no_grad():
            model = build_outside(name, stem, side).model.eval()
            found: Tensor = model(torch.zeros(2, 3, side, side))
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"network.backbone: {name} with the stem {stem!r} takes no pictures of {side} px ({reason}); choose "
            "another size (a multiple of its patches), a smaller network.stem, or another network"
        ) from error
    if found.ndim != 2:
        raise InputError(
            f"network.backbone: {name} gives {tuple(found.shape)} for two pictures, expected one vector each; "
            "choose another network"
        )
    return found.shape[1]


def _torchvision(name: str, bare: str, shrink: int, side: int) -> Outside:
    from torchvision import models

    model: Any = models.get_model(bare, weights=None)
    fixed_side = isinstance(model, models.VisionTransformer)
    if fixed_side:
        first = model.encoder.layers[0]
        model = models.VisionTransformer(
            image_size=side,
            patch_size=model.patch_size // shrink,
            num_layers=len(model.encoder.layers),
            num_heads=first.num_heads,
            hidden_dim=model.hidden_dim,
            mlp_dim=model.mlp_dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
    classifier = [n for n, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, child = classifier.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
    return Outside(model, (classifier,), fixed_side)


def _timm(name: str, bare: str, shrink: int, side: int) -> Outside:
    """Build one of timm's; raises ValueError for a side that its patches do not cover."""
    timm = installed_timm()
    if timm is None:
        raise InputError(f"network.backbone: {name}: {MISSING_TIMM}")
    model = timm.create_model(bare, pretrained=False, num_classes=0)
    fixed_side = hasattr(model, "set_input_size")
    if fixed_side:
        patches = {}
        size = getattr(getattr(model, "patch_embed", None), "patch_size", None)
        if size is not None:
            patch = max(1, size[0] // shrink)
            if side % patch:  # most would pass over what lies right of and below the last whole patch
                raise ValueError(f"{side} is no multiple of its patches of {patch}")
            patches = {"patch_size": patch} if shrink > 1 else {}
        model = timm.create_model(bare, pretrained=False, num_classes=0, img_size=side, **patches)
    named = model.pretrained_cfg.get("classifier") or ()
    return Outside(model, (named,) if isinstance(named, str) else tuple(named), fixed_side)


def _shrink_stem(model: nn.Module, name: str, shrink: int) -> None:
    """Replace the first convolution; networks of patches were built with smaller ones, others keep theirs."""
    first, pool = getattr(model, "conv1", None), getattr(model, "maxpool", None)
    if pool is not None and first is not None:  # residual networks
        if not isinstance(first, nn.Conv2d):
            raise InputError(f"network.stem: {name} has a stem of its own kind; use the stem large")
        stride = 2 if shrink == 2 else 1
        model.conv1 = nn.Conv2d(3, first.out_channels, 3, stride, 1, bias=first.bias is not None)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
        return
    place = {"ConvNeXt": "features.0.0" if name.startswith("torchvision/") else "stem.0"}.get(
        type(model).__name__
    )
    if place is not None:
        old = cast(nn.Conv2d, model.get_submodule(place))
        kernel, stride, padding = (2, 2, 0) if shrink == 2 else (3, 1, 1)
        new = nn.Conv2d(3, old.out_channels, kernel, stride, padding)
        nn.init.trunc_normal_(new.weight, std=0.02)
        nn.init.zeros_(cast(Tensor, new.bias))
        parent, _, child = place.rpartition(".")
        setattr(model.get_submodule(parent), child, new)
