"""The work of a server without any server: decode and embed in this process, batches of 32 or one at a time."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.serving import peers
from serve.inference.engine import Engine
from vssl.images.preprocess import load_image

BATCH = 32


class InProcess:
    """Batches of 32 through Pillow and onnxruntime (`plain`), or through vssl's own decoder and engine."""

    def __init__(self, model: Path, images: list[bytes], *, plain: bool) -> None:
        self._engine, self._session = Engine.open(model), peers.session(str(model))
        self._images, self._plain = images, plain
        self._done = 0

    def run(self, seconds: float) -> tuple[float, float]:
        """Work for so long, whole batches; return CPU-ms an image and images a second."""
        begun, cpu, done = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - begun < seconds:
            self._batch()
            done += BATCH
        wall, spent = time.perf_counter() - begun, time.process_time() - cpu
        return 1000 * spent / done, done / wall

    def _batch(self) -> None:
        recipe = self._engine.card.preprocess
        batch = [self._images[(self._done + j) % len(self._images)] for j in range(BATCH)]
        self._done += BATCH
        if self._plain:
            stack = np.stack([peers.pixels(Image.open(io.BytesIO(d)), recipe.size) for d in batch])
            self._session.run(peers.OUTPUTS, {"images": stack})
        else:
            self._engine.infer(np.stack([load_image(d, recipe) for d in batch]))


class OneAtATime:
    """Single images through vssl's own decoder and engine: what a lone request's latency is compared with."""

    def __init__(self, model: Path, images: list[bytes]) -> None:
        self._engine, self._images = Engine.open(model), images
        self._engine.embed(images[:8])
        self._done = 0

    def run(self, seconds: float) -> tuple[float, list[float]]:
        """Work for so long; return CPU-ms an image, and the latencies in seconds."""
        latencies: list[float] = []
        begun, cpu = time.perf_counter(), time.process_time()
        while (now := time.perf_counter()) - begun < seconds:
            self._engine.embed([self._images[self._done % len(self._images)]])
            self._done += 1
            latencies.append(time.perf_counter() - now)
        return 1000 * (time.process_time() - cpu) / len(latencies), latencies
