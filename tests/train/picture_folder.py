"""Folders of small pictures in classes that a network can tell apart, for tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TINY: dict[str, Any] = {
    "size": 16,
    "cache_size": 16,
    "batch_size": 16,
    "epochs": 2,
    "precision": "fp32",
    "network": {
        "backbone": "resnet8", "width": 8, "stem": "medium", "dim": 8,
        "projector_hidden": 16, "predictor_hidden": 16, "denoiser_hidden": 16,
    },
    "optimiser": {"name": "sgd", "lr": 0.2, "warmup_epochs": 0.5},
    "evaluation": {"every": 1, "validation": 0.3},
}  # fmt: skip
"""Settings over the recipe `small` with which an epoch takes a fraction of a second."""


def write_pictures(folder: Path, per_class: int = 24, side: int = 20) -> Path:
    """Write three classes (stripes across, stripes down, rings) of grey PNG files."""
    random = np.random.default_rng(11)
    y, x = np.mgrid[0:side, 0:side] / side
    for name, wave in (("across", y), ("down", x), ("rings", np.hypot(x - 0.5, y - 0.5))):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            phase, frequency = random.uniform(0, 6.28), random.uniform(14, 22)
            grey = 127 + 100 * np.sin(phase + frequency * wave) + random.normal(0, 12, wave.shape)
            Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder
