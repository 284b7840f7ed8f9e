"""Images per second of one training step, three ways: ours, DataLoader + PIL, lightly's parts.

The same BYOL step (student, teacher, two heads, SGD) on the same backbone and batch, on the same
device, each in a process of its own and one after the other, several rounds in turn:

ours        views of the whole batch as tensor operations, channels last, bf16 where it is native
pillow      a DataLoader whose workers decode PNG and augment with torchvision on PIL, fp32
lightly     a DataLoader with lightly's BYOL transform and its heads and loss, fp32

    python -m benchmarks.train [--images 1024] [--batch 256] [--rounds 3] [--threads 2]
    python -m benchmarks.train --against CHECKOUT    # ours and ours of another checkout of this repository, in turn
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from train.loop.malloc import keep_freed_memory
from train.loop.run import choose_device
from train.loop.step import Learner, Length
from train.losses.agreement import regression
from train.models.backbones import Backbone
from train.models.heads import Head
from train.settings.config import TrainConfig
from train.settings.recipe import merge, plan
from vssl.images.sources import open_source


def pictures(count: int, side: int = 32) -> np.ndarray:
    """Smooth random colour pictures (count, side, side, 3) uint8."""
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    resize = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(s).resize((side, side), resize)) for s in small])


class Encoded(Dataset):  # type: ignore[type-arg]
    """PNG bytes -> two views by a transform of PIL pictures."""

    def __init__(self, images: np.ndarray, transform: Callable[[Image.Image], Any]) -> None:
        self.transform, self.files = transform, []
        for image in images:
            file = io.BytesIO()
            Image.fromarray(image).save(file, "png")
            self.files.append(file.getvalue())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Any:
        return self.transform(Image.open(io.BytesIO(self.files[row])).convert("RGB"))


def ours(images: np.ndarray, config: TrainConfig, device: torch.device) -> Iterator[int]:
    """Yield the images of each step made."""
    batch = config.batch_size
    learner = Learner(config, Length(len(images) // batch, 10**6, batch), 0, device)
    held = torch.from_numpy(images).to(device)
    number = 0
    while True:
        for start in range(0, len(images) - batch + 1, batch):
            learner.step(number, [held[start : start + batch]], None)
            number += 1
            yield batch


def usual(
    images: np.ndarray,
    config: TrainConfig,
    device: torch.device,
    transform: Callable[[Image.Image], Any],
    heads: tuple[nn.Module, nn.Module],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    workers: int = 2,
) -> Iterator[int]:
    """The usual loop: workers augment, the model trains in fp32."""
    import copy

    student = nn.Sequential(Backbone(config.network), heads[0]).to(device)
    teacher, predictor = copy.deepcopy(student).requires_grad_(False), heads[1].to(device)
    weights = [*student.parameters(), *predictor.parameters()]
    optimiser = torch.optim.SGD(weights, lr=0.05, momentum=0.9)
    loader = DataLoader(
        Encoded(images, transform), config.batch_size, shuffle=True, drop_last=True, num_workers=workers,
        persistent_workers=True,
    )  # fmt: skip
    while True:
        for views in loader:
            first, second = (view.to(device) for view in views[:2])
            with torch.no_grad():
                kept = teacher(first), teacher(second)
            total = loss(predictor(student(first)), kept[1]) + loss(predictor(student(second)), kept[0])
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            with torch.no_grad():
                for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
                    mine.lerp_(theirs, 0.01)
            yield config.batch_size


def pillow_views(size: int) -> Callable[[Image.Image], Any]:
    """The recipe's augmentations with torchvision on PIL pictures."""
    shared = [
        v2.RandomResizedCrop(size, (0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
        v2.RandomGrayscale(0.2),
    ]
    ending = [
        v2.RandomHorizontalFlip(),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5] * 3, [0.25] * 3),
    ]
    both = [v2.Compose([*shared, *ending]), v2.Compose([*shared, v2.RandomSolarize(128, 0.2), *ending])]
    return lambda picture: tuple(view(picture) for view in both)


def rate(steps: Iterator[int], seconds: float, device: torch.device) -> float:
    """Return images per second over about so many seconds, whole steps only."""
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done += next(steps)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return done / (time.perf_counter() - began)


def ways(images: np.ndarray, batch: int, device: torch.device) -> dict[str, Callable[[], Iterator[int]]]:
    """Return how to start each way, by name."""
    options = {"method": "byol", "batch_size": batch, "optimiser": {"name": "sgd", "lr": 0.05}}
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(images[0]).save(Path(folder) / "0.png")
        config = plan(open_source(folder), "small", None, options)
    full = TrainConfig.from_dict(merge(config.to_dict(), {"precision": "fp32"}))
    network = config.network
    wide = Backbone(network).feature_dim

    def started(settings: TrainConfig) -> Iterator[int]:
        if device.type == "cpu":
            keep_freed_memory()  # as `vssl train` does
        return ours(images, settings, device)

    def pillow() -> Iterator[int]:
        heads = (
            Head(wide, network.projector_hidden, network.dim),
            Head(network.dim, network.predictor_hidden, network.dim),
        )
        return usual(images, config, device, pillow_views(config.size), heads, regression)

    def lightly() -> Iterator[int]:
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
        from lightly.transforms import BYOLTransform, BYOLView1Transform, BYOLView2Transform

        transform = BYOLTransform(
            BYOLView1Transform(input_size=config.size, gaussian_blur=0.0),
            BYOLView2Transform(input_size=config.size, gaussian_blur=0.0),
        )
        heads = (
            BYOLProjectionHead(wide, network.projector_hidden, network.dim),
            BYOLPredictionHead(network.dim, network.predictor_hidden, network.dim),
        )
        return usual(images, config, device, transform, heads, NegativeCosineSimilarity())

    return {
        "ours": lambda: started(config),
        "ours, fp32": lambda: started(full),
        "pillow": pillow,
        "lightly": lightly,
    }


def main() -> None:
    """Measure each way in processes of its own, in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--against", type=Path, help="another checkout of this repository to measure against this one"
    )
    parser.add_argument("--way", help="measure this one only, in this process, and print its rate")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device, images = choose_device(arguments.device), pictures(arguments.images)
    known = ways(images, arguments.batch, device)
    if arguments.way:
        steps = known[arguments.way]()
        for _ in range(3):  # workers, allocations
            next(steps)
        print(rate(steps, arguments.seconds, device))
        return
    places = {name: (name, Path.cwd()) for name in known}
    if arguments.against:
        own = [name for name in known if name.startswith("ours")]
        places = {name: (name, Path.cwd()) for name in own}
        places |= {f"{name}, there": (name, arguments.against.resolve()) for name in own}
    rates: dict[str, list[float]] = {name: [] for name in places}
    for _ in range(arguments.rounds):
        for name, found in rates.items():
            found.append(measured(*places[name], arguments))
    print(
        f"{device}, batch {arguments.batch}, {arguments.threads} threads, medians of {arguments.rounds} rounds"
    )
    for name, values in rates.items():
        middle, base = statistics.median(values), statistics.median(rates["ours"])
        if name.startswith("ours, fp32"):
            base = statistics.median(rates["ours, fp32"])
        print(
            f"{name:<18} {middle:8.0f} images/s  ({min(values):.0f} to {max(values):.0f})  ours is {base / middle:.2f}x"
        )


def measured(way: str, checkout: Path, arguments: argparse.Namespace) -> float:
    """Return the images per second of one way, in a process of its own that runs the code of a checkout."""
    options = {name: getattr(arguments, name) for name in ("images", "batch", "seconds", "threads", "device")}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.train", *words, "--way", way],
        check=True,
        stdout=subprocess.PIPE,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
    )
    return float(done.stdout)


if __name__ == "__main__":
    main()
