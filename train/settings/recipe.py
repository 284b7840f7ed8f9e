"""A recipe's name, a TOML file and options -> the TrainConfig of a run over given images.

Recipes are the TOML files of train/settings/recipes; a setting may be "auto" and is then derived from
the images. Later sources win: recipe, --config file, command-line options. `[augment_second]`
holds only what differs from `[augment]`, `[methods.NAME]` what suits one method.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from train.settings.config import MIN_IMAGES, TrainConfig
from vssl.errors import ImageError, InputError
from vssl.files import read_text
from vssl.images.decode import decode
from vssl.images.items import ImageSource

PROBED = 48
"""Images whose sizes are looked at to derive the input's."""

MANY_IMAGES = 4000
"""From so many images on a folder of photos is seen at 64 px instead of 32."""

IMAGES_SEEN = 200_000
"""Views' worth of training that `epochs = "auto"` aims for."""


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in files("train.settings").joinpath("recipes").iterdir()
        if entry.name.endswith(".toml")
    )


def load_recipe(name: str) -> dict[str, Any]:
    """Return a recipe's settings, over those of its `base` if it names one.

    Raises InputError for an unknown name.
    """
    if name not in recipe_names():
        raise InputError(f"recipe: found {name!r}, expected one of {', '.join(recipe_names())}")
    text = files("train.settings").joinpath("recipes", f"{name}.toml").read_text(encoding="utf-8")
    values = tomllib.loads(text)
    base = values.pop("base", None)
    return values if base is None else merge(load_recipe(base), values)


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a TOML file. Raises InputError when it cannot be read."""
    text = read_text(path, "the settings")
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error


def plan(
    source: ImageSource,
    recipe: str,
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """Merge recipe, settings and options, derive what is "auto", and check the result."""
    values = merge(merge(load_recipe(recipe), settings or {}), options or {})
    method = values.get("method", "vssl")
    by_method = values.pop("methods", {})
    values = merge(values, by_method.get(method, {}))  # a recipe may suit itself to the method
    values = merge(merge(values, settings or {}), options or {})
    values.pop("methods", None)
    values["recipe"] = recipe
    values["augment_second"] = merge(values.get("augment", {}), values.get("augment_second", {}))
    return TrainConfig.from_dict(derive(values, source))


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return base with the settings of `over`, tables merged key by key."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def derive(values: Mapping[str, Any], source: ImageSource) -> dict[str, Any]:
    """Replace "auto" for size, cache_size, batch_size and epochs by what suits the images."""
    derived = dict(values)
    count = len(source.items)
    if derived.get("size") == "auto":
        side = typical_side(source)
        # A few thousand pictures at most do not teach a larger input in the time people give them.
        large = side > 48 and count >= MANY_IMAGES
        derived["size"] = 16 if side <= 20 else 64 if large else 32
    if derived.get("cache_size") == "auto":
        # Views are cropped from a larger picture where there is one, so that small crops stay sharp.
        size = int(derived["size"])
        derived["cache_size"] = size if typical_side(source) < 1.5 * size else size * 3 // 2
    if derived.get("batch_size") == "auto":
        # At least eight steps an epoch on small sets, and never more than 256.
        power = int(np.log2(max(count / 8, MIN_IMAGES)))
        derived["batch_size"] = min(256, 2**power)
    if derived.get("epochs") == "auto":
        derived["epochs"] = int(np.clip(round(IMAGES_SEEN / max(count, 1)), 10, 400))
    return derived


def typical_side(source: ImageSource) -> float:
    """Return the median shorter side, in pixels, of a spread of images that can be decoded.

    Raises InputError when none of them can.
    """
    rows = np.unique(np.linspace(0, len(source.items) - 1, PROBED).round().astype(int))
    sides, reason = [], ""
    for row in rows:
        try:
            sides.append(min(decode(source.read(int(row))).size))
        except ImageError as error:
            reason = str(error)
    if not sides:
        raise InputError(
            f"none of {len(rows)} images looked at can be read (the last: {reason}); "
            "expected a folder of pictures"
        )
    return float(np.median(sides))
