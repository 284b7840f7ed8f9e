"""One GPU -> whether training is right there, and how fast: `check.json` and a report, in under 200 s.

    python -m benchmarks.gpu_check --data HALVES --out OUT [--seconds 200]

In this order, each part written to OUT/check.json when it is done:

ceilings   TFLOP/s of an 8192^3 product in bf16, TB/s of a copy
methods    every method, a tiny network, three steps compared with the CPU on the same views, fp32 without TF32
bf16       every method's loss and gradient under autocast compared with fp32, on the device
steps      the recipe's step, eager and compiled: ms, images/s, share of the floor, launches by cost
usual      a DataLoader whose workers augment by torchvision on PIL, fp32 (TF32 in cuDNN), and our own same step

The floor of a step is its encoders' multiplications at the product's rate. A part that would begin after
the seconds are over is left out. Runs on a CPU too, where only the agreement says something.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cifar_halves import read_halves
from benchmarks.gpu_agreement import every_method, half_precision
from benchmarks.train import pictures, pillow_views, rate, usual
from train.loop.run import choose_device
from train.loop.step import Learner, Length
from train.losses.agreement import regression
from train.models.heads import Head
from train.settings.config import TrainConfig
from train.settings.recipe import merge, plan, read_settings
from vssl.images.items import ImageItem

CLASSES = 10
Facts = dict[str, Any]


class Unseen:
    """The source of a recipe that derives nothing from its images."""

    items: ClassVar[list[ImageItem]] = []

    def read(self, row: int) -> bytes:
        """Has nothing to return."""
        raise IndexError(row)


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], Any], device: torch.device, repeat: int) -> float:
    """Return the seconds of one call, the mean of `repeat` after one that is not counted."""
    work()
    synchronise(device)
    began = time.perf_counter()
    for _ in range(repeat):
        work()
    synchronise(device)
    return (time.perf_counter() - began) / repeat


def ceilings(device: torch.device, side: int) -> Facts:
    """Measure what the device can do at most."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    block = torch.empty(64 * side * side // 16, dtype=torch.float32, device=device)
    target = torch.empty_like(block)
    product = seconds_of(lambda: left @ right, device, 20)
    copy = seconds_of(lambda: target.copy_(block), device, 20)
    return {
        "side": side,
        "bf16_tflops": 2.0 * side**3 / product / 1e12,
        "copy_tb_per_s": 2.0 * block.numel() * block.element_size() / copy / 1e12,
    }


def flops_per_image(config: TrainConfig) -> float:
    """Count the encoders' operations (two a multiplication) for one image of a step: forward and backward.

    Two views through the student, whose backward costs two forwards, and through the teacher if one is kept.
    """
    learner = Learner(replaced(config, compile=False), Length(1, 1, 2), 0, torch.device("cpu"))
    view = torch.zeros(2, config.size, config.size, 3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        learner.method.student(view)
    forward = counter.get_total_flops() / len(view)
    return forward * (2 * 3 + (2 if learner.method.teacher is not None else 0))


def replaced(config: TrainConfig, **settings: Any) -> TrainConfig:
    """Return the config with other settings."""
    return TrainConfig.from_dict(merge(config.to_dict(), settings))


class Steps:
    """One learner on images that lie on the device, stepping over them."""

    def __init__(self, config: TrainConfig, images: np.ndarray, device: torch.device) -> None:
        self.batch, self.number = config.batch_size, 0
        self.learner = Learner(config, Length(len(images) // self.batch, 10**6, self.batch), CLASSES, device)
        self.images = torch.from_numpy(images).to(device)
        self.labels = torch.arange(len(images), device=device) % CLASSES
        self.places = torch.arange(len(images), device=device)

    def step(self) -> None:
        """Make one step."""
        start = self.number * self.batch % (len(self.images) - self.batch + 1)
        part = slice(start, start + self.batch)
        self.learner.step(self.number, [self.images[part]], [self.labels[part]], [self.places[part]])
        self.number += 1


def step_facts(steps: Steps, device: torch.device, count: int, flops: float, peak: float) -> Facts:
    """Time the step: what the first one cost, then the mean of `count`."""
    began = time.perf_counter()
    steps.step()
    synchronise(device)
    first = time.perf_counter() - began
    seconds = seconds_of(steps.step, device, count)
    images_per_second = steps.batch / seconds
    return {
        "first_step_s": first,
        "ms": 1000.0 * seconds,
        "images_per_s": images_per_second,
        "share_of_floor": images_per_second * flops / (peak * 1e12),
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None,
    }


def costs(steps: Steps, device: torch.device, count: int = 3, most: int = 15) -> list[Facts]:
    """Return the kernels (on a CPU, the operations) that take most of a step: ms and calls in one step."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        for _ in range(count):
            steps.step()
        synchronise(device)
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    found = sorted(profile.key_averages(), key=lambda event: -float(getattr(event, key)))[:most]
    return [
        {"name": e.key[:90], "ms": float(getattr(e, key)) / 1000.0 / count, "calls": e.count / count}
        for e in found
    ]


def step_times(
    config: TrainConfig, images: np.ndarray, device: torch.device, count: int, peak: float
) -> Facts:
    """Measure the recipe's step eager and, where the recipe compiles, compiled."""
    flops = flops_per_image(config)
    facts: Facts = {"flops_per_image": flops, "method": config.method, "batch": config.batch_size}
    for name in ("eager", "compiled") if config.compile else ("eager",):
        steps = Steps(replaced(config, compile=name == "compiled"), images, device)
        facts[name] = step_facts(steps, device, count, flops, peak)
        facts[name]["costs"] = costs(steps, device)
        print(
            f"  {name}: {facts[name]['images_per_s']:.0f} images/s, first step {facts[name]['first_step_s']:.1f} s"
        )
    return facts


def usual_loop(config: TrainConfig, images: np.ndarray, device: torch.device, seconds: float) -> Facts:
    """Measure the usual loop and our eager step, both of BYOL (the config's method) on the recipe's network."""
    network, workers = config.network, max(1, (os.cpu_count() or 2) - 1)
    steps = Steps(config, images, device)
    ours = config.batch_size / seconds_of(steps.step, device, 10)
    heads = (
        Head(steps.learner.method.student.feature_dim, network.projector_hidden, network.dim),
        Head(network.dim, network.predictor_hidden, network.dim),
    )
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = True, False  # as torch comes
    started = usual(images, config, device, pillow_views(config.size), heads, regression, workers)
    next(started)
    theirs = rate(started, seconds, device)
    return {
        "workers": workers,
        "ours_images_per_s": ours,
        "usual_images_per_s": theirs,
        "ratio": ours / theirs,
    }


def parts(arguments: argparse.Namespace, facts: Facts) -> dict[str, Callable[[], Any]]:
    """Return what there is to measure, by name, in order."""
    device, quick = choose_device(arguments.device), arguments.quick
    settings = read_settings(arguments.config) if arguments.config else {}
    config, byol = (
        plan(Unseen(), arguments.recipe, settings, {"method": method}) for method in ("vssl", "byol")
    )
    if arguments.data:
        images = read_halves(arguments.data, ("half-a.bin",))["train-a"][0]
    else:
        images = pictures(8 * config.batch_size, config.size)
    return {
        "ceilings": lambda: ceilings(device, 256 if quick else 8192),
        "methods": lambda: every_method(device),
        "bf16": lambda: half_precision(device),
        "steps": lambda: step_times(
            config, images, device, 2 if quick else 40, facts["ceilings"]["bf16_tflops"]
        ),
        "usual": lambda: usual_loop(
            replaced(byol, compile=False), images[:2048], device, 0.5 if quick else 10.0
        ),
    }


def main(words: list[str] | None = None) -> None:
    """Measure part after part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, nargs="*", help="folders that hold half-a.bin; else random pictures"
    )
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "runs/gpu-check")))
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--recipe", default="cifar10-minutes")
    parser.add_argument("--config", type=Path, help="TOML of settings over the recipe's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    arguments = parser.parse_args(words)
    began = time.monotonic()
    arguments.out.mkdir(parents=True, exist_ok=True)
    facts: Facts = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "seconds": {},
    }
    for name, measure in parts(arguments, facts).items():
        if time.monotonic() - began > arguments.seconds:
            print(f"{name}: left out, the {arguments.seconds:.0f} s are over")
            continue
        started = time.monotonic()
        facts[name] = measure()
        facts["seconds"][name] = round(time.monotonic() - started, 2)
        (arguments.out / "check.json").write_text(json.dumps(facts, indent=2) + "\n")
        print(f"{time.monotonic() - began:7.1f} s  {name}", flush=True)
    if "steps" in facts:
        best = facts["steps"].get("compiled", facts["steps"]["eager"])
        print(
            "next: python -m benchmarks.gpu_train SECONDS --data HALVES "
            f"--rate {best['images_per_s']:.0f} --compile-seconds {best['first_step_s']:.0f}"
        )


if __name__ == "__main__":
    main()
