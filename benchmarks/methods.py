"""CIFAR-10 -> one table of every method: the same recipe, encoder and number of images seen.

Each run goes through the command line as a user's would: `vssl train`, `vssl probe` against the
test images, `vssl export`, `vssl extract`, `vssl evaluate`. What is done is kept in OUT, so that
a stopped benchmark goes on where it was.

    python -m benchmarks.methods CIFAR_FOLDER OUT [--epochs 5] [--runs vssl/1 byol/1 ...] [--stage train]

`--runs` takes METHOD/SEED, `untrained/1` among them. `--stage` does one part only: `train`
(vssl train), `measure` (the others, for runs already trained) or `table`. The table says for each
run: k-NN accuracy (k = 20, T = 0.07, cosine, features; 50,000 against 10,000 images) and linear
accuracy with its 95 % interval, effective rank of the features (of F), R-AUROC of the exported
one-pass uncertainty on the test images (is their nearest neighbour among them of their class),
and CPU seconds of training.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from train.methods import METHODS

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
    """Train one run, or go on with it; CPU seconds go beside it."""
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


def measure(out: Path, data: str, name: str) -> None:
    """Probe, export, extract and evaluate one trained run."""
    folder = out / name
    result, model, embeddings = folder / "row.json", folder / "model.onnx", folder / "test"
    if result.exists() or not (folder / "cpu_seconds.json").exists():
        return
    train_images, test_images = f"cifar10:{data}", f"cifar10:{data}:test"
    probed = json.loads(vssl("probe", str(folder), train_images, "--test", test_images, "--json"))
    vssl("export", str(folder), str(model), "--force")
    vssl("extract", test_images, str(embeddings), "--model", str(model), "--overwrite")
    evaluated = json.loads(vssl("evaluate", str(embeddings), str(embeddings), "--json", "--resamples", "200"))
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    row = {
        "run": name,
        "epochs": last["epoch"],
        "cpu_seconds": json.loads((folder / "cpu_seconds.json").read_text())["seconds"],
        "rank_features": last["rank_features"],
        **{k: v for k, v in probed["metrics"].items() if k.startswith(("student", "teacher"))},
        **{k: v for k, v in evaluated["metrics"].items() if k.startswith(("r_auroc", "recall_at_1"))},
    }
    result.write_text(json.dumps(row) + "\n")


def rows(out: Path, names: list[str]) -> list[dict[str, Any]]:
    """Return what has been measured, in the order asked for."""
    found = [out / name / "row.json" for name in names]
    return [json.loads(path.read_text()) for path in found if path.exists()]


def table(measured: list[dict[str, Any]]) -> str:
    """Return a Markdown table."""
    lines = [
        "| method/seed | k-NN | linear (95 %) | k-NN, projector | rank | R-AUROC (95 %) | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in measured:
        low, high = row["student_features_linear_low"], row["student_features_linear_high"]
        linear = f"{row['student_features_linear']:.3f} ({low:.3f} to {high:.3f})"
        ranked = f"{row['r_auroc']:.3f} ({row['r_auroc_low']:.3f} to {row['r_auroc_high']:.3f})"
        lines.append(
            f"| {row['run']} | {row['student_features_knn']:.3f} | {linear} "
            f"| {row['student_projector_knn']:.3f} | {row['rank_features']:.1f} "
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
    for name in arguments.runs:
        if arguments.stage in ("all", "train"):
            train(arguments.out, arguments.data, name, arguments.epochs, arguments.threads)
        if arguments.stage in ("all", "measure"):
            measure(arguments.out, arguments.data, name)
    print(table(rows(arguments.out, arguments.runs)))


if __name__ == "__main__":
    main()
