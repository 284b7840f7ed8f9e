"""Every recipe plans a valid run for every method, with the settings that are published for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from train.loop.optimisers import build_optimiser
from train.loop.step import length_of
from train.methods import METHODS, new_method
from train.settings.config import TrainConfig
from train.settings.recipe import plan, recipe_names
from vssl.images.items import ImageSource
from vssl.images.sources import open_source

PUBLISHED = ("cifar10", "cifar100", "imagenet100", "stl10")

# optimiser, lr, weight decay, classifier's lr, views, projector's hidden and output widths, predictor's hidden width
CIFAR: dict[str, tuple[str, float, float, float, str, int, int, int | None]] = {
    "vssl": ("lars", 1.0, 1e-5, 0.1, "asymmetric", 4096, 256, 4096),
    "vssl-gaussian": ("lars", 1.0, 1e-5, 0.1, "asymmetric", 4096, 256, 4096),
    "vje": ("sgd", 0.5, 1e-5, 0.1, "weak", 2048, 256, None),
    "barlow-twins": ("lars", 0.3, 1e-4, 0.1, "asymmetric", 2048, 2048, None),
    "byol": ("lars", 1.0, 1e-5, 0.1, "asymmetric", 4096, 256, 4096),
    "deepcluster-v2": ("lars", 0.6, 1e-6, 0.1, "symmetric", 2048, 128, None),
    "dino": ("lars", 0.3, 1e-6, 0.1, "asymmetric", 2048, 256, None),
    "moco-v2plus": ("sgd", 0.3, 1e-4, 0.3, "weak", 2048, 256, None),
    "moco-v3": ("lars", 0.3, 1e-6, 0.3, "asymmetric", 4096, 256, 4096),
    "nnclr": ("lars", 0.4, 1e-5, 0.1, "asymmetric", 2048, 256, 4096),
    "ressl": ("sgd", 0.05, 1e-4, 0.1, "ressl", 4096, 256, None),
    "simclr": ("lars", 0.4, 1e-4, 0.1, "symmetric", 2048, 256, None),
    "simsiam": ("sgd", 0.5, 1e-5, 0.1, "weak", 2048, 2048, 512),
    "swav": ("lars", 0.6, 1e-6, 0.1, "symmetric", 2048, 128, None),
    "vicreg": ("lars", 0.3, 1e-4, 0.1, "vicreg", 2048, 2048, None),
}
# lr, weight decay, views, hidden, output, predictor: where ImageNet-100 differs
IMAGENET: dict[str, dict[str, Any]] = {
    "vssl": {"lr": 0.5, "decay": 1e-6, "predictor": 8192},
    "vssl-gaussian": {"lr": 0.5, "decay": 1e-6, "predictor": 8192},
    "vje": {"views": "asymmetric"},
    "byol": {"lr": 0.5, "decay": 1e-6, "predictor": 8192},
    "ressl": {"lr": 0.3},
    "simclr": {"lr": 0.3, "hidden": 4096, "out": 512},
    "simsiam": {"views": "asymmetric"},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "barlow-twins": {"redundancy": 0.0051, "scale": 0.1},
    "deepcluster-v2": {"prototypes": 3000, "heads": 3, "temperature": 0.1, "rounds": 10},
    "dino": {"prototypes": 4096, "student_temperature": 0.1, "teacher_temperature": 0.07, "frozen_steps": 195},
    "moco-v2plus": {"queue": 32768, "temperature": 0.2},
    "moco-v3": {"temperature": 0.2},
    "nnclr": {"queue": 65536, "temperature": 0.2},
    "ressl": {"queue": 65536, "student_temperature": 0.1, "teacher_temperature": 0.04},
    "simclr": {"temperature": 0.2},
    "swav": {"prototypes": 3000, "queue": 3840, "temperature": 0.1, "smoothness": 0.05, "rounds": 3,
             "frozen_steps": 390, "queue_from": 9750},
    "vicreg": {"invariance": 25.0, "variance": 25.0, "covariance": 1.0},
}  # fmt: skip
MOMENTUM = {"dino": (0.9995, 1.0), "moco-v2plus": (0.99, 0.999)}

# jitter strengths, then chance of blur and of solarisation per view: CIFAR's and ImageNet-100's
VIEWS: dict[str, tuple[tuple[float, ...], dict[str, tuple[float, float]], tuple[float, float]]] = {
    "asymmetric": ((0.4, 0.4, 0.2, 0.1), {"cifar": (0.0, 0.0), "imagenet": (1.0, 0.1)}, (0.0, 0.2)),
    "symmetric": ((0.8, 0.8, 0.8, 0.2), {"cifar": (0.5, 0.5), "imagenet": (0.5, 0.5)}, (0.0, 0.0)),
    "weak": ((0.4, 0.4, 0.4, 0.1), {"cifar": (0.5, 0.5), "imagenet": (0.5, 0.5)}, (0.0, 0.0)),
    "ressl": ((0.4, 0.4, 0.2, 0.1), {"cifar": (0.5, 0.0), "imagenet": (0.5, 0.0)}, (0.0, 0.0)),
    "vicreg": ((0.4, 0.4, 0.2, 0.1), {"cifar": (0.0, 0.0), "imagenet": (0.5, 0.5)}, (0.1, 0.1)),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(16):
        Image.fromarray(np.full((40, 40, 3), number, np.uint8)).save(folder / f"{number}.png")
    return open_source(folder)


def planned(source: ImageSource, recipe: str, method: str) -> TrainConfig:
    return plan(source, recipe, None, {"method": method})


def test_there_is_a_row_for_every_method() -> None:
    assert set(CIFAR) == set(METHODS)
    assert set(recipe_names()) >= {*PUBLISHED, "cifar10-minutes", "small", "digits", "folder"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_plans_every_method(source: ImageSource, recipe: str, method: str) -> None:
    config = planned(source, recipe, method)
    assert config.method == method
    assert TrainConfig.from_dict(config.to_dict()) == config
    with torch.device("meta"):  # builds the networks and reads the options, without memory
        built = new_method(config)
    steady = built.heads["predictor"] if config.optimiser.constant_predictor else None
    assert build_optimiser([built], config.optimiser, steady).param_groups


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_keeps_the_two_that_run_away_in_bounds(source: ImageSource, recipe: str) -> None:
    assert planned(source, recipe, "vje").options["normalise"] is True
    assert planned(source, recipe, "vssl-gaussian").options["bounded"] is True


@pytest.mark.parametrize("method", CIFAR)
@pytest.mark.parametrize("recipe", PUBLISHED)
def test_the_settings_are_the_published_ones(source: ImageSource, recipe: str, method: str) -> None:
    config = planned(source, recipe, method)
    family = "cifar" if recipe.startswith("cifar") else "imagenet"
    name, lr, decay, classifier, views, hidden, out, predictor = CIFAR[method]
    differs = IMAGENET.get(method, {}) if family == "imagenet" else {}
    optimiser, network = config.optimiser, config.network
    assert (optimiser.name, optimiser.momentum) == (name, 0.9)
    assert (optimiser.lr, optimiser.weight_decay) == (differs.get("lr", lr), differs.get("decay", decay))
    assert config.evaluation.classifier_lr == classifier
    if method == "deepcluster-v2":
        assert (optimiser.warmup_epochs, optimiser.warmup_lr, optimiser.final_lr) == (11.0, 0.0, 6e-4)
    else:
        assert (optimiser.warmup_epochs, optimiser.warmup_lr, optimiser.final_lr) == (10.0, 3e-5, 0.0)
    assert optimiser.constant_predictor == (method == "simsiam")
    assert network.projector_hidden == differs.get("hidden", hidden)
    assert network.dim == differs.get("out", out)
    if predictor is not None:
        assert network.predictor_hidden == differs.get("predictor", predictor)
    assert (config.batch_size, network.backbone, network.width) == (256, "resnet18", 64)
    assert config.epochs == (1000 if family == "cifar" else 400)
    assert network.stem == ("small" if family == "cifar" else "large")
    assert config.teacher_momentum == MOMENTUM.get(method, (0.99, 1.0))
    _has_views(config, differs.get("views", views), family)


def _has_views(config: TrainConfig, views: str, family: str) -> None:
    jitter, blur, solarise = VIEWS[views]
    for place, augment in enumerate((config.augment, config.augment_second)):
        plain = views == "ressl" and place == 1
        assert augment.crop_scale == ((0.2, 1.0) if views == "vicreg" else (0.08, 1.0))
        assert (augment.jitter, augment.grey) == ((0.0, 0.0) if plain else (0.8, 0.2))
        assert (augment.brightness, augment.contrast, augment.saturation, augment.hue) == jitter
        assert augment.blur == blur[family][place]
        assert augment.solarise == solarise[place]
        assert (augment.flip, augment.interpolation, augment.blur_sigma) == (0.5, "bicubic", (0.1, 2.0))


@pytest.mark.parametrize("method", OPTIONS)
def test_the_options_are_the_published_ones(source: ImageSource, method: str) -> None:
    assert planned(source, "cifar10", method).options == OPTIONS[method]
    large = planned(source, "imagenet100", method).options
    epoch = {"frozen_steps", "queue_from", "warm_steps", "warm_every"}
    same = {name: value for name, value in OPTIONS[method].items() if name not in epoch}
    if method == "moco-v2plus":
        same["queue"] = 65536
    if method == "dino":
        same["warm_temperature"] = 0.04
        assert (large["warm_steps"], large["warm_every"]) == (50 * 494, 494)
    assert {name: value for name, value in large.items() if name not in epoch} == same
    for name in epoch & set(OPTIONS[method]):  # counted in steps: 195 an epoch there, 494 here
        assert large[name] / 494 == OPTIONS[method][name] / 195


@pytest.mark.parametrize(
    ("recipe", "images"),
    [("cifar10", 50_000), ("cifar100", 50_000), ("imagenet100", 126_689), ("stl10", 100_000)],
)
def test_nothing_is_held_out_and_steps_are_counted_over_all_images(
    source: ImageSource, recipe: str, images: int
) -> None:
    epoch_options = {
        "dino": {"frozen_steps": 1, "warm_steps": 50, "warm_every": 1},
        "swav": {"frozen_steps": 2, "queue_from": 50},
        "vje": {"ramp_steps": 10},
    }
    for method in METHODS:
        config = planned(source, recipe, method)
        assert config.evaluation.validation == 0.0
        epoch = length_of(config, images).steps_per_epoch
        for name, epochs in epoch_options.get(method, {}).items():
            if name in config.options:
                assert config.options[name] == epochs * epoch, (method, name)


@pytest.mark.parametrize(
    ("recipe", "size", "mean", "std"),
    [
        ("cifar10", 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ("cifar100", 32, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        ("stl10", 96, (0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)),
        ("imagenet100", 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_each_data_set_has_its_size_and_statistics(
    source: ImageSource, recipe: str, size: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    config = planned(source, recipe, "vssl")
    assert (config.size, config.mean, config.std) == (size, mean, std)


def test_a_person_s_settings_win_over_the_method_s(source: ImageSource) -> None:
    config = plan(source, "cifar10", {"optimiser": {"lr": 0.7}}, {"method": "simsiam", "epochs": 3})
    assert (config.optimiser.lr, config.optimiser.name, config.epochs) == (0.7, "sgd", 3)


def test_the_recipe_for_minutes_is_that_of_the_table_made_short(source: ImageSource) -> None:
    short, long = planned(source, "cifar10-minutes", "vssl"), planned(source, "cifar10", "vssl")
    assert (short.network, short.optimiser.lr) == (long.network, long.optimiser.lr)
    assert short.evaluation.validation == 0.0
    assert short.compile
    assert short.options == {"pairs": "all"}
    assert 1 - short.teacher_momentum[0] == pytest.approx(2.5 * (1 - long.teacher_momentum[0]))
