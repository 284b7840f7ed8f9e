"""A real, tiny, untrained run on disk: image folder and checkpoint, for tests of what follows training."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from tests.support.tiny_model import picture
from train.methods import new_method
from train.settings.config import NetworkConfig, TrainConfig
from train.state.checkpoint import CHECKPOINT_NAME, Checkpoint, save_checkpoint
from vssl.images.preprocess import Preprocess


def image_folder(folder: Path, count: int = 80) -> Path:
    """Write `count` pictures into two class folders."""
    for number in range(count):
        path = folder / ("even", "odd")[number % 2] / f"picture_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(path)
    return folder


def tiny_run(folder: Path, images: Path, method: str = "vssl") -> Path:
    """Write a run folder with a random encoder of width 8 at 16 px."""
    torch.manual_seed(1)
    config = TrainConfig(
        method=method,
        size=16,
        cache_size=20,
        network=NetworkConfig("resnet8", 8, "small", 12, 32, 32, 32),
    )
    built = new_method(config)
    folder.mkdir(parents=True)
    save_checkpoint(
        folder / CHECKPOINT_NAME,
        Checkpoint(
            config=config,
            preprocess=Preprocess(size=16, resize=16),
            student=built.student.state_dict(),
            teacher=built.teacher.state_dict() if built.teacher is not None else None,
            heads={},
            step=1,
            epoch=0,
            summary={"source": str(images), "images": 80, "epochs": 0},
        ),
    )
    return folder
