"""Whether training on a large folder needs more memory than on a small one, and whether it stays flat.

    python -m benchmarks.train_memory [--images 20000 200000] [--scratch DIR]

Each folder holds 16x16 PNG files, 640 distinct ones hard-linked over and over in ten class folders. `vssl
train` runs one epoch of a tiny network on it, with views cropped from 24x24, so that the large folder's decoded
images (346 MB) are above what is kept in memory. Private memory is what the process alone holds; mapped is
what it has touched of files, the decoded images among them, which the kernel takes back when it is needed.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

DISTINCT = 640
CLASSES = 10
SETTINGS = """
size = 16
cache_size = 24
batch_size = 256
epochs = 1
[network]
backbone = "resnet8"
width = 8
stem = "medium"
dim = 16
projector_hidden = 32
predictor_hidden = 32
denoiser_hidden = 32
[evaluation]
validation = 0.01
"""
PHASES = ("reading", "training")


def write_folder(folder: Path, count: int) -> None:
    """Write `count` files in class folders, DISTINCT of them with bytes of their own."""
    random = np.random.default_rng(0)
    originals: list[Path] = []
    for number in range(count):
        parent = folder / f"class-{number % CLASSES}"
        if number < CLASSES:
            parent.mkdir(parents=True)
        path = parent / f"{number:06d}.png"
        if number < DISTINCT:
            small = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(small).resize((16, 16), Image.Resampling.BICUBIC).save(path)
            originals.append(path)
        else:
            path.hardlink_to(originals[number % DISTINCT])


def sample(process: psutil.Process, run: Path) -> Iterator[tuple[float, str, float, float]]:
    """Yield seconds, phase, private and mapped megabytes until the process ends."""
    began = time.monotonic()
    while True:
        try:
            memory = process.memory_info()
            if process.status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        # The settings are written when the images are decoded.
        phase = PHASES[(run / "config.json").exists()]
        mapped = memory.shared / 1e6
        yield time.monotonic() - began, phase, memory.rss / 1e6 - mapped, mapped
        time.sleep(0.25)


def measure(folder: Path, run: Path) -> list[tuple[float, str, float, float]]:
    """Train once and return the samples; prints one about every tenth second."""
    settings = run.with_suffix(".toml")
    settings.write_text(SETTINGS)
    command = [sys.executable, "-m", "vssl", "train", str(folder), "--out", str(run), "--recipe", "small",
               "--config", str(settings), "--device", "cpu", "--threads", "1"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        samples, told = [], -10.0
        for row in sample(psutil.Process(process.pid), run):
            samples.append(row)
            if row[0] - told >= 10:
                told = row[0]
                print(
                    f"{row[0]:6.0f} s  {row[1]:<9} private {row[2]:6.0f} MB  mapped {row[3]:5.0f} MB",
                    flush=True,
                )
        said = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"vssl train ended with {process.returncode}")
    print(said.splitlines()[0])
    return samples


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--scratch", type=Path, default=None)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    lines = [
        "| images | private, second tenth of training | its last tenth | largest ever | mapped, largest |"
    ]
    for count in options.images:
        with tempfile.TemporaryDirectory(prefix="vssl-bench-", dir=options.scratch) as scratch:
            folder = Path(scratch) / "images"
            write_folder(folder, count)
            print(f"{count} images")
            samples = measure(folder, Path(scratch) / "run")
        training = np.array([row[2] for row in samples if row[1] == "training"])
        tenth = max(len(training) // 10, 1)
        ends = np.median(training[tenth : 2 * tenth]), np.median(training[-tenth:])
        largest = max(row[2] for row in samples)
        mapped = max(row[3] for row in samples)
        lines.append(
            f"| {count} | {ends[0]:.0f} MB | {ends[1]:.0f} MB | {largest:.0f} MB | {mapped:.0f} MB |"
        )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
