"""An encoder and images -> what a view or worse form costs in calibration over a picture of `vssl extract`.

    python -m benchmarks.calibration_cost NETWORK WEIGHTS IMAGES MODEL [--pictures 48] [--rounds 3]

MODEL is what `vssl export NETWORK` made. Both read, decode and embed in one process, in turn, and are timed in CPU
seconds, which other work on the machine disturbs least. Calibration embeds each picture, 8 views of it and 6 worse
forms.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from export.calibration.head import CalibrationConfig
from export.calibration.view_statistics import view_statistics
from export.served_encoder import ServedMean
from export.sources.encoder_graph import OnnxEncoder
from export.sources.published import published_encoder
from serve.inference.engine import Engine
from train.augment.views import Views
from train.data.image_cache import load_images
from vssl.images.sources import open_source

BATCH = 16


def main() -> None:
    """Time both in turn and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network")
    parser.add_argument("weights", type=Path)
    parser.add_argument("images")
    parser.add_argument("model", type=Path)
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    source, engine = published_encoder(given.network, given.weights), Engine.open(given.model)
    encoder, config, images = OnnxEncoder(source.graph), CalibrationConfig(), open_source(given.images)
    views, served, side = (
        Views(source.augment, source.preprocess.size),
        ServedMean("features"),
        source.preprocess.size,
    )
    chosen = np.random.default_rng(0).permutation(len(images.items))[: given.pictures]

    def calibrate() -> None:
        pictures = load_images(images, source.preprocess, rows=sorted(chosen[:BATCH].tolist())).images
        view_statistics(
            encoder, views, pictures, served, count=config.views, worse=config.worse, seed=0, size=side
        )

    def extract() -> None:
        for part in np.split(chosen, range(BATCH, len(chosen), BATCH)):
            engine.embed_pixels(
                list(load_images(images, engine.card.preprocess, rows=sorted(part.tolist())).images)
            )

    forms = BATCH * (1 + config.views + config.worse)
    found = [(spent(calibrate) / forms, spent(extract) / len(chosen)) for _ in range(given.rounds + 1)][1:]
    form, picture = (1e3 * float(np.median(column)) for column in zip(*found, strict=True))
    print(
        f"CPU ms: calibration {form:.1f} a form, extraction {picture:.1f} a picture, ratio {form / picture:.2f}"
    )


def spent(work: Callable[[], None]) -> float:
    """Return the CPU seconds of a call."""
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
