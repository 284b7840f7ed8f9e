"""CIFAR-10 -> one table of every method: the same recipe, encoder and number of images seen.

Each run is one of `vssl train`; what is measured of it is what `vssl probe` and `vssl export`
measure, by the same functions, on images decoded once for all. What is done is kept in OUT, so
that a stopped benchmark goes on where it was.

    python -m benchmarks.methods CIFAR_FOLDER OUT [--epochs 5] [--runs vssl/1 byol/1 ...] [--stage train]

`--runs` takes METHOD/SEED, `untrained/1` among them. `--stage` does one part only: `train`
(vssl train), `measure` (of runs already trained) or `table`. The table says for each
run: k-NN accuracy (k = 20, T = 0.07, cosine, features; 50,000 against 10,000 images) and linear
accuracy with its 95 % interval, k-NN accuracy of the mean that export serves (projector, half
whitened), effective rank of the features (of F), R-AUROC of the calibrated one-pass uncertainty on
the test images (is their nearest neighbour among them of their class), and CPU seconds of training.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.calibration.head import calibrate
from export.calibration.whitening import fit_mean
from export.served_encoder import head_inputs
from index.metrics.bootstrap import interval
from index.metrics.uncertainty import r_auroc
from train.augment.views import Views
from train.data.image_cache import load_images
from train.evaluation.collapse import effective_rank
from train.evaluation.knn import knn_predict
from train.evaluation.linear import linear_predict
from train.evaluation.monitor import embed
from train.evaluation.probe import wilson
from train.evaluation.uncertainty import nearest_is_wrong
from train.methods import METHODS, build_encoder
from train.state.checkpoint import load_checkpoint
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.images.preprocess import Preprocess
from vssl.images.sources import open_source

FIRST = ("vssl", "byol", "simclr", "vssl-gaussian", "vje")
"""Methods that are run with two seeds."""


def vssl(*arguments: str) -> str:
    """Run the command line and return its standard output; raises on failure."""
    command = [sys.executable, "-m", "vssl", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def every_run() -> list[str]:
    """Return the runs of the whole table, METHOD/SEED."""
    order = ["untrained", *FIRST, *(name for name in METHODS if name not in FIRST)]
    return [f"{name}/1" for name in order] + [f"{name}/2" for name in FIRST]


def train(out: Path, data: str, name: str, epochs: int, threads: int) -> None:
    """Train one run, or go on with it; CPU seconds are stored with it."""
    method, seed = name.split("/")
    folder, spent = out / name, out / name / "cpu_seconds.json"
    if spent.exists():
        return
    resume = (folder / "checkpoint.pt").exists()
    wanted = ["--method", "vssl" if method == "untrained" else method, "--seed", seed, "--recipe", "small"]
    wanted += ["--epochs", "0" if method == "untrained" else str(epochs)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    vssl(
        "train", f"cifar10:{data}", "--out", str(folder), "--threads", str(threads),
        *(["--resume"] if resume else wanted + (["--overwrite"] if folder.exists() else [])),
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    spent.write_text(json.dumps({"seconds": seconds, "whole": not resume}) + "\n")


@dataclass(frozen=True, eq=False)
class Images:
    """CIFAR-10 as the network sees it, decoded once for all runs, with class numbers."""

    train: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


def read_images(data: str, preprocess: Preprocess) -> Images:
    """Decode both splits."""
    caches = [load_images(open_source(f"cifar10:{data}{split}"), preprocess) for split in ("", ":test")]
    names = sorted({str(label) for label in caches[0].labels})
    labels = [np.array([names.index(str(label)) for label in cache.labels]) for cache in caches]
    return Images(caches[0].images, labels[0], caches[1].images, labels[1])


def measure(out: Path, name: str, images: Images) -> None:
    """Probe the student of one trained run, calibrate its variance, and keep the figures."""
    folder = out / name
    if (folder / "row.json").exists() or not (folder / "cpu_seconds.json").exists():
        return
    checkpoint, device = load_checkpoint(folder), torch.device("cpu")
    encoder = build_encoder(checkpoint)
    known, asked = (embed(encoder, part, device) for part in (images.train, images.test))
    labels, truth = torch.from_numpy(images.train_labels), torch.from_numpy(images.test_labels)
    classes = int(labels.max()) + 1
    right = {
        "features_knn": knn_predict(known.features, labels, asked.features, classes) == truth,
        "features_linear": linear_predict(known.features, labels, asked.features, classes) == truth,
    }
    views = Views(checkpoint.config.augment, checkpoint.config.size)
    served = fit_mean(encoder, images.train[:5000], "projector", encoder.size)
    variance, calibration, *_ = calibrate(encoder, views, images.train, served, encoder.size)
    with torch.inference_mode():
        mean, mean_known = served(asked), served(known)
        spread = variance(head_inputs(asked.features, torch.from_numpy(images.test)), mean)
    gaussians = GaussianEmbedding(mean.numpy(), spread.numpy())
    right["served_knn"] = knn_predict(mean_known, labels, mean, classes) == truth
    correct = ~nearest_is_wrong(torch.from_numpy(gaussians.mean), truth).numpy()
    uncertainty = gaussians.uncertainty.astype(np.float64)
    low, high = interval(lambda rows: r_auroc(uncertainty[rows], correct[rows]), len(correct), resamples=300)
    row: dict[str, Any] = {
        "run": name,
        "epochs": checkpoint.epoch,
        "cpu_seconds": json.loads((folder / "cpu_seconds.json").read_text())["seconds"],
        "rank_features": effective_rank(asked.features),
        "calibration": asdict(calibration),
        "recall_at_1": float(correct.mean()),
        "r_auroc": r_auroc(uncertainty, correct),
        "r_auroc_low": low,
        "r_auroc_high": high,
    }
    for key, hits in right.items():
        interval_low, interval_high = wilson(int(hits.sum()), len(hits))
        row |= {key: float(hits.float().mean()), f"{key}_low": interval_low, f"{key}_high": interval_high}
    (folder / "row.json").write_text(json.dumps(row) + "\n")


def rows(out: Path, names: list[str]) -> list[dict[str, Any]]:
    """Return what has been measured, in the order asked for."""
    found = [out / name / "row.json" for name in names]
    return [json.loads(path.read_text()) for path in found if path.exists()]


def table(measured: list[dict[str, Any]]) -> str:
    """Return a Markdown table."""
    lines = [
        "| method/seed | k-NN | linear (95 %) | k-NN, served | rank | R-AUROC (95 %) | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in measured:
        low, high = row["features_linear_low"], row["features_linear_high"]
        linear = f"{row['features_linear']:.3f} ({low:.3f} to {high:.3f})"
        ranked = f"{row['r_auroc']:.3f} ({row['r_auroc_low']:.3f} to {row['r_auroc_high']:.3f})"
        lines.append(
            f"| {row['run']} | {row['features_knn']:.3f} | {linear} "
            f"| {row['served_knn']:.3f} | {row['rank_features']:.1f} "
            f"| {ranked} | {row['cpu_seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", help="folder with CIFAR-10")
    parser.add_argument("out", type=Path, help="folder for the runs")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", nargs="+", default=every_run())
    parser.add_argument("--stage", choices=("all", "train", "measure", "table"), default="all")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))
    torch.set_num_threads(arguments.threads)
    images: Images | None = None
    for name in arguments.runs:
        if arguments.stage in ("all", "train"):
            train(arguments.out, arguments.data, name, arguments.epochs, arguments.threads)
        if arguments.stage in ("all", "measure"):
            if images is None:
                images = read_images(arguments.data, load_checkpoint(arguments.out / name).preprocess)
            measure(arguments.out, name, images)
    print(table(rows(arguments.out, arguments.runs)))


if __name__ == "__main__":
    main()
