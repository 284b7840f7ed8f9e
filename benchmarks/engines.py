"""One model, one thread, every engine and precision: CPU time an image, and how far the numbers move.

    python benchmarks/engines.py [--model model.onnx] [--images SPEC] [--rounds 5]

ResNet-18 with random weights at 224 px without --model, ramps with noise without --images. The engines
take turns, a few batches each a round, so that what else the machine does meets all of them; printed is
each one's median round. Errors are against onnxruntime in fp32: of mean and features relative to their
largest magnitude, of the variance as the difference of its logarithm.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import numpy as np  # noqa: E402

from benchmarks.serving import models  # noqa: E402
from benchmarks.serving.process import machine  # noqa: E402
from serve.inference.engine import Engine  # noqa: E402
from vssl.images.preprocess import Pixels, load_image  # noqa: E402
from vssl.images.sources import open_source  # noqa: E402
from vssl.model.golden import golden_images  # noqa: E402


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--images", help="a source of images, as vssl extract takes it")
    parser.add_argument("--count", type=int, default=256, help="images that the errors are measured on")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vssl-bench-") as scratch:
        model = options.model or models.resnet18(Path(scratch) / "resnet18.onnx")
        reference = Engine.open(model, device="cpu", threads=1)
        images = pictures(options.images, reference, options.count)
        small = models.int8(model, Path(scratch) / "int8.onnx", images[:64])
        engines = {
            "onnxruntime, fp32": reference,
            "onnxruntime, int8": Engine.open(small, device="cpu", threads=1, check=False),
            "openvino, fp32": Engine.open(model, threads=1, engine="openvino"),
            "openvino, int8": Engine.open(small, threads=1, engine="openvino", check=False),
            "openvino, bf16": Engine.open(model, threads=1, engine="openvino", precision="bf16"),
        }
        batch = np.concatenate([images] * -(-options.batch // len(images)))[: options.batch]
        rounds: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(options.rounds + 1):  # the first one warms
            for name, engine in engines.items():
                rounds[name].append(cpu_ms(engine, batch))
        print(
            "| engine | CPU-ms / image | x fp32 | mean | features | log variance, worst | log variance, rms |"
        )
        print("|---|---|---|---|---|---|---|")
        base = statistics.median(rounds["onnxruntime, fp32"][1:])
        for name, engine in engines.items():
            found = statistics.median(rounds[name][1:])
            cells = " | ".join(f"{e:.1e}" for e in errors(reference, engine, images))
            print(f"| {name} | {found:.3f} | {found / base:.2f} | {cells} |")
        card = reference.card
        print(
            f"\n{card.name} ({card.backbone}) at {card.preprocess.size} px, batches of {options.batch}, one thread"
        )
    print(machine())


def pictures(spec: str | None, engine: Engine, count: int) -> Pixels:
    """Return the images (N, S, S, 3) of a source, evenly spread over it, or ramps with noise."""
    recipe = engine.card.preprocess
    if spec is None:
        return golden_images(recipe.size, count)
    source = open_source(spec)
    rows = np.linspace(0, len(source.items) - 1, min(count, len(source.items))).astype(int)
    return np.stack([load_image(source.read(int(row)), recipe) for row in rows])


def cpu_ms(engine: Engine, batch: Pixels, seconds: float = 0.5) -> float:
    """Return CPU-ms an image over about that many seconds of CPU, three batches at least."""
    begun, done = time.process_time(), 0
    while done < 3 * len(batch) or time.process_time() - begun < seconds:
        engine.run(batch)
        done += len(batch)
    return 1000 * (time.process_time() - begun) / done


def errors(reference: Engine, engine: Engine, images: Pixels) -> tuple[float, float, float, float]:
    """Return the largest errors of mean, features and log variance, and the latter's root mean square."""
    mean, variance, features = reference.run(images)
    found, spread, theirs = engine.run(images)
    moved = np.log(spread) - np.log(variance)
    return (
        float(np.abs(found - mean).max() / np.abs(mean).max()),
        float(np.abs(theirs - features).max() / np.abs(features).max()),
        float(np.abs(moved).max()),
        float(np.sqrt((moved**2).mean())),
    )


if __name__ == "__main__":
    main()
