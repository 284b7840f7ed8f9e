"""Settings survive the way through plain values, and wrong ones are named."""

from __future__ import annotations

import dataclasses
import json

import pytest

from train.settings.config import AugmentConfig, NetworkConfig, TrainConfig
from train.settings.recipe import load_recipe, recipe_names
from vssl.errors import InputError


def test_round_trip_through_json() -> None:
    config = TrainConfig(
        augment=AugmentConfig(rotate=12.5, zoom=(0.5, 2.0)),
        network=NetworkConfig(dim=7),
        options={"pairs": "all", "likelihood_sign": -1},
    )
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_whole_numbers_stand_for_floats() -> None:
    assert TrainConfig.from_dict({"augment": {"rotate": 40}}).augment.rotate == 40.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "unknown setting epoch"),
        ({"augment": {"rotation": 3}}, "unknown setting augment.rotation"),
        ({"epochs": "many"}, "epochs: found 'many', expected int"),
        ({"epochs": True}, "expected int"),
        ({"epochs": -1}, "epochs: found -1"),
        ({"batch_size": 1}, "batch_size: found 1, expected 2"),
        ({"size": 32, "cache_size": 16}, "cache_size: found 16"),
        ({"augment": {"crop_scale": [0.5]}}, "expected 2 numbers"),
        ({"augment": {"crop_scale": [0.9, 0.5]}}, "0 < low <= high"),
        ({"augment": {"hue": 0.6}}, "augment.hue"),
        ({"augment": 3}, "expected a table"),
        ({"network": {"stem": "huge"}}, "expected one of small, medium, large"),
        ({"network": {"width": 7}}, "network.width"),
        ({"optimiser": {"name": "adagrad"}}, "lars, sgd, adamw"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        TrainConfig.from_dict(values)


def test_a_config_cannot_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().epochs = 3  # type: ignore[misc]


def test_every_recipe_names_settings_that_exist() -> None:
    assert {"small", "folder", "digits", "cifar10"} <= set(recipe_names())
    for name in recipe_names():
        values = load_recipe(name)
        values.pop("methods", None)
        for key in [k for k, v in values.items() if v == "auto"]:
            del values[key]
        TrainConfig.from_dict(values)
