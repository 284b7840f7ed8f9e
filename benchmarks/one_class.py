"""CIFAR-10 -> how well a model of one class alone tells its images from those of the nine others.

Ten runs a method: `vssl train` (recipe `small`) on the 5,000 training images of one class, then the
scores of `vssl anomaly` for all 10,000 test images against those 5,000, by the same functions:
AUROC of the cosine distance of the two nearest (features, and what export serves) and of the likelihood, which
reads the calibrated variances. What is done is kept in OUT.

    python -m benchmarks.one_class CIFAR_FOLDER OUT [--methods vssl byol simclr vje] [--epochs 6] [--classes 0 1 ...]

`untrained` among the methods is the network as it begins.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from export.calibration.head import CalibrationConfig, calibrate
from export.calibration.whitening import fit_mean
from export.served_encoder import head_inputs
from index.evaluation.ood import score
from index.search.exact import ExactIndex
from train.augment.views import Views
from train.data.image_cache import ImageCache, load_images
from train.evaluation.monitor import embed
from train.loop.run import train_images
from train.methods import build_encoder
from train.state.checkpoint import load_checkpoint
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.images.preprocess import Preprocess
from vssl.images.sources import open_source
from vssl.rank_statistics import auroc

METHODS = ("simclr", "byol", "vssl", "vje", "untrained")
SCORES = ("features", "served", "likelihood")
QUICK = CalibrationConfig(images=1000, worse=2)


def class_file(data: str, out: Path, name: str) -> Path:
    """Write the training images of a class, as they are, to OUT/NAME.parquet."""
    path = out / f"{name}.parquet"
    if not path.exists():
        source = open_source(f"cifar10:{data}")
        rows = [row for row, item in enumerate(source.items) if item.label == name]
        images = [{"bytes": source.read(row), "path": source.items[row].id} for row in rows]
        partial = path.with_suffix(".tmp")
        pq.write_table(pa.table({"image": images, "label": [name] * len(rows)}), partial)
        partial.replace(path)
    return path


def train(file: Path, run: Path, method: str, epochs: int) -> float:
    """Train on one class; returns CPU seconds."""
    before = time.process_time()
    train_images(
        f"parquet:{file}",
        run,
        recipe="small",
        settings={"evaluation": {"every": 1000, "images": 100}},
        options={
            "method": "vssl" if method == "untrained" else method,
            "epochs": 0 if method == "untrained" else epochs,
        },
        threads=1,
        overwrite=True,
    )
    return time.process_time() - before


def judge(
    run: Path, normal: NDArray[np.uint8], test: NDArray[np.uint8], foreign: NDArray[np.bool_]
) -> dict[str, float]:
    """AUROC of each score over test images (N, S, S, 3), `foreign` (N,) being those of other classes."""
    checkpoint, device = load_checkpoint(run), torch.device("cpu")
    encoder = build_encoder(checkpoint)
    known, asked = embed(encoder, normal, device), embed(encoder, test, device)
    served = fit_mean(encoder, normal, "projector", encoder.size)
    views = Views(checkpoint.config.augment, checkpoint.config.size)
    variance, *_ = calibrate(encoder, views, normal, served, encoder.size, QUICK)

    def gaussians(output: Any, images: NDArray[np.uint8]) -> GaussianEmbedding:
        with torch.inference_mode():
            mean = served(output)
            spread = variance(head_inputs(output.features, torch.from_numpy(images)), mean)
        return GaussianEmbedding(mean.numpy(), spread.numpy()).normalised()

    def plain(features: torch.Tensor) -> GaussianEmbedding:
        return GaussianEmbedding(features.numpy(), np.ones_like(features.numpy())).normalised()

    none = np.zeros(len(test))
    by_features = score(ExactIndex.build("cosine", plain(known.features)), plain(asked.features), none)
    by_served = score(ExactIndex.build("cosine", gaussians(known, normal)), gaussians(asked, test), none)
    found = dict(zip(SCORES, (by_features.knn, by_served.knn, by_served.likelihood), strict=True))
    return {name: auroc(value, foreign) for name, value in found.items()}


def one(data: str, out: Path, method: str, name: str, epochs: int, test: ImageCache) -> None:
    """Train and judge one method on one class, and keep the row."""
    row = out / f"{method}-{name}.json"
    if row.exists():
        return
    file, run = class_file(data, out, name), out / "run"
    seconds = train(file, run, method, epochs)
    preprocess = load_checkpoint(run).preprocess
    normal = load_images(open_source(f"parquet:{file}"), preprocess)
    foreign = np.array([str(label) != name for label in test.labels])
    row.write_text(json.dumps(judge(run, normal.images, test.images, foreign) | {"seconds": seconds}) + "\n")


def table(out: Path, methods: list[str], names: list[str]) -> str:
    """Return a Markdown table of what is done: a row a method and score, a column a class."""
    lines = [f"| method, score | {' | '.join(names)} | mean | CPU s a run |", "|---" * (len(names) + 3) + "|"]
    for method in methods:
        paths = [out / f"{method}-{name}.json" for name in names]
        if not all(path.exists() for path in paths):
            continue
        rows = [json.loads(path.read_text()) for path in paths]
        seconds = np.mean([row["seconds"] for row in rows])
        for kind in SCORES:
            values = [100 * row[kind] for row in rows]
            cells = " | ".join(f"{value:.1f}" for value in values)
            lines.append(f"| {method}, {kind} | {cells} | {np.mean(values):.1f} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, class by class, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", help="folder with CIFAR-10")
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--classes", nargs="+", type=int, default=list(range(10)))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    preprocess = Preprocess(size=32, resize=32)
    test = load_images(open_source(f"cifar10:{arguments.data}:test"), preprocess)
    every = sorted({str(label) for label in test.labels})
    names = [every[number] for number in arguments.classes]
    for name in names:
        for method in arguments.methods:
            one(arguments.data, arguments.out, method, name, arguments.epochs, test)
    print(table(arguments.out, arguments.methods, names))


if __name__ == "__main__":
    main()
