"""Every family of backbone at every usual side: does it export, agree, and answer alike at any batch size?

python -m benchmarks.backbones IMAGES OUT [--threads 1] [--only NAME:SIDE ...] [--rounds 7]

IMAGES is a source of pictures (a folder, cifar10:DIR), OUT a file of JSON lines. A row that stands in
OUT is not measured again, so that a benchmark that was stopped goes on. The weights are untrained:
what is measured is the graph. Each model is written by `vssl export`, which compares it with torch at
batches of 1, 2, 7 and 32; then one picture alone is compared with the same among 32 others, in fp32 and
in int8, and both are timed in turn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

from export.calibration.head import CalibrationConfig
from export.package import ExportOptions, export_run
from export.precision import lower_precision
from train.data.image_cache import load_images
from train.methods import new_method
from train.settings.config import NetworkConfig, TrainConfig
from train.state.checkpoint import CHECKPOINT_NAME, Checkpoint, save_checkpoint
from vssl.errors import VsslError
from vssl.images.preprocess import Preprocess
from vssl.images.sources import open_source

BACKBONES = ("resnet18", "torchvision/resnet50", "torchvision/convnext_tiny", "timm/vit_small_patch16_224")
STEMS = {32: "small", 64: "medium", 128: "large", 224: "large"}
"""For each side, the stem that leaves a map or patches of a useful size."""
PICTURES = 64
BATCH = 32
Images = np.ndarray[Any, np.dtype[np.uint8]]


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME:SIDE")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    wanted = [tuple(word.rsplit(":", 1)) for word in given.only] or [
        (name, side) for name in BACKBONES for side in STEMS
    ]
    for name, side in wanted:
        known = [(row["backbone"], row["side"]) for row in rows(given.out)]
        if (name, int(side)) in known:
            continue
        print(f"{name} at {side} px ...", file=sys.stderr, flush=True)
        row = measure(name, int(side), given.images, given.threads, given.rounds)
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    print(table(rows(given.out)))


def measure(name: str, side: int, spec: str, threads: int, rounds: int) -> dict[str, Any]:
    """Return one row: what became of a backbone at a side."""
    row: dict[str, Any] = {
        "backbone": name,
        "side": side,
        "stem": STEMS.get(side, "large"),
        **machine(threads),
    }
    with tempfile.TemporaryDirectory(prefix="vssl-bench-") as scratch:
        run, model = Path(scratch) / "run", Path(scratch) / "model.onnx"
        pictures = untrained_run(run, name, side, row["stem"], spec)
        # So few pictures give the variance one scale each dimension: the graph is the same.
        options = ExportOptions(calibration=CalibrationConfig(images=48, views=2, worse=0, report_views=2))
        began = time.process_time()
        try:
            written = export_run(run, model, options)
        except VsslError as error:
            return {**row, "export": str(error)}
        row |= {
            "export": "ok",
            "export_cpu_s": round(time.process_time() - began, 1),
            "difference_from_torch": max(
                written.agreement.mean, written.agreement.log_variance, written.agreement.features
            ),
            "mb": round(written.size / 1e6, 1),
        }
        proto = onnx.load(str(model))
    row["opset"] = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    lower = lower_precision(proto, "int8", pictures)
    row["mb_int8"] = round(len(lower.SerializeToString()) / 1e6, 1)
    sessions = [session(p.SerializeToString(), threads) for p in (proto, lower)]
    del proto, lower
    batches = [pictures[:BATCH]] if side < 224 else [pictures[: BATCH // 2]]
    for suffix, opened in zip(("", "_int8"), sessions, strict=True):
        row[f"alone_or_among_32{suffix}"] = batch_difference(opened, pictures[:BATCH])
    means = [one.run(["mean"], {"images": pictures[:BATCH]})[0] for one in sessions]
    row["cosine_int8"] = round(float(cosines(*means).min()), 4)
    for key, batch in (("", batches[0]), ("_alone", pictures[:1])):
        wall, cpu = in_turn([lambda s=s, b=batch: s.run(["mean"], {"images": b}) for s in sessions], rounds)
        for suffix, seconds, spent in zip(("", "_int8"), wall, cpu, strict=True):
            row[f"images_per_s{key}{suffix}"] = round(len(batch) / seconds, 1)
            row[f"cpu_ms{key}{suffix}"] = round(1e3 * spent / len(batch), 2)
    return row


def untrained_run(run: Path, name: str, side: int, stem: str, spec: str) -> Images:
    """Write a run of no training and return pictures (N, S, S, 3) as its network sees them."""
    torch.manual_seed(1)
    config = TrainConfig(
        method="simclr", size=side, cache_size=side, network=NetworkConfig(name, 64, stem, 128)
    )
    preprocess = Preprocess(size=side, resize=side)
    run.mkdir()
    built = new_method(config)
    save_checkpoint(
        run / CHECKPOINT_NAME,
        Checkpoint(
            config=config,
            preprocess=preprocess,
            student=built.student.state_dict(),
            teacher=None,
            heads={},
            step=0,
            epoch=0,
            summary={"source": spec, "images": 0, "epochs": 0},
        ),
    )
    source = open_source(spec)
    pictures: Images = load_images(
        source, preprocess, rows=list(range(min(PICTURES, len(source.items))))
    ).images
    return np.ascontiguousarray(pictures)


def session(data: bytes, threads: int) -> ort.InferenceSession:
    """Open a model with so many threads, quietly."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def batch_difference(opened: ort.InferenceSession, pictures: Images) -> float:
    """Return the largest difference between a picture's answer alone and among the others.

    Relative to each output's largest magnitude; variances as logarithms.
    """
    names = ["mean", "variance", "features"]
    together = opened.run(names, {"images": pictures})
    alone = [opened.run(names, {"images": picture[None]}) for picture in pictures]
    worst = 0.0
    for place, name in enumerate(names):
        one, many = np.concatenate([answer[place] for answer in alone]), together[place]
        if name == "variance":
            one, many = np.log(one), np.log(many)
        worst = max(worst, float(np.abs(one - many).max() / max(np.abs(many).max(), 1e-6)))
    return worst


def cosines(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return each row's cosine between two arrays (N, D), what all rows have in common taken off."""
    a, b = a - a.mean(0), b - a.mean(0)
    found: np.ndarray[Any, Any] = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return found


def in_turn(calls: list[Callable[[], object]], rounds: int) -> tuple[list[float], list[float]]:
    """Return the median seconds and CPU seconds of each call, made one after the other."""
    wall: list[list[float]] = [[] for _ in calls]
    cpu: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 1):
        for place, call in enumerate(calls):
            began, spent = time.perf_counter(), time.process_time()
            call()
            if number:  # the first warms up
                wall[place].append(time.perf_counter() - began)
                cpu[place].append(time.process_time() - spent)
    return [float(np.median(x)) for x in wall], [float(np.median(x)) for x in cpu]


def machine(threads: int) -> dict[str, Any]:
    """Return what a row was measured on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {"commit": commit.stdout.strip(), "threads": threads, "date": time.strftime("%Y-%m-%d")}


def rows(out: Path) -> list[dict[str, Any]]:
    """Return the rows that were measured."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def table(found: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| backbone | px | stem | export and verify | alone or among 32: fp32, int8 | opset | MB, int8 "
        "| images/s fp32, int8 | CPU ms fp32, int8 | int8 times |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(found, key=lambda r: (str(r["backbone"]), r["side"])):
        if r["export"] != "ok":
            lines.append(f"| {r['backbone']} | {r['side']} | {r['stem']} | {r['export']} |")
            continue
        lines.append(
            f"| {r['backbone']} | {r['side']} | {r['stem']} | ok, {r['difference_from_torch']:.0e} "
            f"| {r['alone_or_among_32']:.0e}, {r['alone_or_among_32_int8']:.0e} | {r['opset']} "
            f"| {r['mb']}, {r['mb_int8']} | {r['images_per_s']}, {r['images_per_s_int8']} "
            f"| {r['cpu_ms']}, {r['cpu_ms_int8']} | {r['cpu_ms'] / r['cpu_ms_int8']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
