"""Seconds on one GPU -> a trained run, its accuracies, and a folder of at most eight small files.

    python -m benchmarks.gpu_train 500 --data HALVES [MORE] --out OUT --rate 19000 --compile-seconds 60

Trains the recipe `cifar10-minutes` on CIFAR-10 for what is left of the seconds after reading and before
measuring: `--rate` (images/s) and `--compile-seconds`, which `benchmarks.gpu_check` prints, say how many
epochs that is, so that the learning rate ends at zero; without them the rate is measured first. A clock
stops a run that is slower than thought; it is then measured as it is. HALVES: folders with the files of
`benchmarks.cifar_halves`. Then the probe measures student and teacher on the test images. OUT gets:

    results.json            accuracies, settings, seconds of each part, device
    metrics.jsonl           one line an epoch
    student-00.safetensors  the student in fp16, in files of at most 16 MiB each
    features.npz            the student's features of the test images (fp16) and their labels

    python -m benchmarks.gpu_train --join OUT student.safetensors    # one file, for vssl train --init
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cifar_halves import Split, read_halves, write_binary
from train.evaluation.monitor import embed
from train.evaluation.probe import probe
from train.loop.run import Display, choose_device, train_images
from train.loop.trainer import Outcome
from train.methods import build_encoder
from train.settings.recipe import load_recipe, read_settings
from train.state.checkpoint import Checkpoint

MIB = 2**20
FILE_BYTES = 16 * MIB
FILES = 8
WATCHING = 0.02  # share of the training time that saving and the two evaluations may take


def epochs_that_fit(seconds: float, rate: float, images: int, compile_seconds: float) -> int:
    """Return how many epochs of so many images fit into the seconds, at least one."""
    return max(1, int((seconds - compile_seconds) * (1 - WATCHING) * rate / images))


class Clock:
    """Seconds since the start, the parts they went to, and an alarm that stops the training in time."""

    def __init__(self, seconds: float, reserve: float) -> None:
        self.began, self.seconds, self.reserve = time.monotonic(), seconds, reserve
        self.parts: dict[str, float] = {}
        self._trained = threading.Event()

    def left(self) -> float:
        """Seconds that training may take from now on."""
        return self.seconds - self.reserve - (time.monotonic() - self.began)

    def mark(self, part: str) -> None:
        """Say that a part has ended."""
        spent = time.monotonic() - self.began
        self.parts[part] = round(spent - sum(self.parts.values()), 2)
        print(f"{spent:7.1f} s  {part}", flush=True)

    def stop_in_time(self) -> None:
        """Ask the run, as SIGTERM does, to save and stop when its time is over."""
        threading.Thread(target=self._alarm, daemon=True).start()

    def trained(self) -> None:
        """Say that there is nothing to stop any more."""
        self._trained.set()

    def _alarm(self) -> None:
        wait = max(self.left(), 0.0)
        while not self._trained.wait(wait):  # again, should the run not listen yet
            os.kill(os.getpid(), signal.SIGTERM)
            wait = 1.0


def settings_of(arguments: argparse.Namespace, images: int, clock: Clock) -> dict[str, Any]:
    """Return the settings over the recipe's: as many epochs as fit, one evaluation at their end."""
    settings = read_settings(arguments.config) if arguments.config else {}
    if arguments.method:
        settings["method"] = arguments.method
    if arguments.rate:
        compiles = settings.get("compile", load_recipe(arguments.recipe).get("compile", False))
        compiling = arguments.compile_seconds if compiles else 0.0
        settings["epochs"] = epochs_that_fit(clock.left(), arguments.rate, images, compiling)
    settings["evaluation"] = {**settings.get("evaluation", {}), "every": 10**6, "validation": 0.0}
    return settings


def train(arguments: argparse.Namespace, data: Path, images: int, clock: Clock) -> Outcome:
    """Train until the epochs are done or the time is over."""
    signal.signal(signal.SIGTERM, lambda number, frame: None)  # until the run listens itself
    settings = settings_of(arguments, images, clock)
    display = Display(
        decoded=lambda done, total: None,
        planned=lambda config, split, failures: clock.stop_in_time(),
        stepped=lambda now: None,
    )
    try:
        return train_images(
            f"cifar10:{data}",
            arguments.out / "run",
            recipe=arguments.recipe,
            settings=settings,
            device=arguments.device,
            minutes=None if arguments.rate else clock.left() / 60.0,
            init=arguments.init,
            overwrite=True,
            display=display,
        )
    finally:
        clock.trained()


def pieces(state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return the tensors in fp16 (counts as they are), in groups of less than FILE_BYTES."""
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in state.items():
        half = value.half() if value.is_floating_point() else value
        bytes_of = half.numel() * half.element_size()
        if size + bytes_of > FILE_BYTES - MIB // 4 and groups[-1]:  # room for the file's own header
            groups.append({})
            size = 0
        groups[-1][name] = half.contiguous()
        size += bytes_of
    return groups


def join(folder: Path, out: Path) -> None:
    """Put the pieces of a student together again, in fp32: the file that `vssl train --init` takes."""
    from safetensors.torch import load_file, save_file

    files = sorted(folder.glob("student-*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no student-*.safetensors in {folder}")
    state = {name: value for file in files for name, value in load_file(file).items()}
    save_file({n: v.float() if v.is_floating_point() else v for n, v in state.items()}, out)
    print(f"wrote {out} from {len(files)} files")


def pack(
    out: Path, checkpoint: Checkpoint, test: Split, device: torch.device, results: dict[str, Any]
) -> None:
    """Leave what is worth taking along in OUT; the run's own folder goes."""
    from safetensors.torch import save_file

    for number, group in enumerate(pieces(checkpoint.student)):
        save_file(group, out / f"student-{number:02d}.safetensors")
    shutil.copyfile(out / "run" / "metrics.jsonl", out / "metrics.jsonl")
    features = embed(build_encoder(checkpoint).to(device), test[0], device).features
    np.savez(out / "features.npz", features=features.half().cpu().numpy(), labels=test[1])
    for name in ("run", "cifar10"):
        shutil.rmtree(out / name)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    files = sorted(out.iterdir())
    if len(files) > FILES or any(file.stat().st_size > FILE_BYTES for file in files):
        raise RuntimeError(f"found {[(f.name, f.stat().st_size) for f in files]}, expected {FILES} of 16 MiB")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Read, train, measure and pack; return what results.json holds."""
    clock = Clock(arguments.seconds, arguments.reserve)
    device = choose_device(arguments.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    splits = read_halves(arguments.data, ("half-a.bin", "half-b.bin"))
    data = arguments.out / "cifar10"
    write_binary(data, splits)
    clock.mark("reading")
    outcome = train(arguments, data, len(splits["train-a"][0]) + len(splits["train-b"][0]), clock)
    checkpoint = outcome.checkpoint
    clock.mark("training")
    found = probe(arguments.out / "run", f"cifar10:{data}", f"cifar10:{data}:test", device=device)
    clock.mark("measuring")
    accuracies = {"_".join(key): accuracy.value for key, accuracy in found.accuracies.items()}
    results = {
        "accuracies": accuracies,
        "stopped_by": outcome.stopped_by,
        "summary": checkpoint.summary,
        "config": checkpoint.config.to_dict(),
        "seconds": clock.parts,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    pack(arguments.out, checkpoint, splits["test"], device, results)
    clock.mark("packing")
    for name, value in accuracies.items():
        print(f"{name:<28} {value:.4f}")
    return results


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "seconds", type=float, nargs="?", help="for everything, from the start of the process"
    )
    parser.add_argument("--join", nargs=2, type=Path, metavar=("OUT", "FILE"))
    parser.add_argument("--data", type=Path, nargs="+", default=[Path(".gpu")])
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "runs/gpu")))
    parser.add_argument("--rate", type=float, help="images/s of training, from benchmarks.gpu_check")
    parser.add_argument("--compile-seconds", type=float, default=90.0)
    parser.add_argument("--reserve", type=float, default=45.0, help="seconds kept for measuring and packing")
    parser.add_argument("--recipe", default="cifar10-minutes")
    parser.add_argument("--method")
    parser.add_argument("--config", type=Path, help="TOML of settings over the recipe's")
    parser.add_argument("--init", type=Path, help="begin with this student")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(words)
    if arguments.seconds is None and arguments.join is None:
        parser.error("give the seconds, or --join")
    return arguments


def main() -> None:
    """Join pieces, or run."""
    arguments = parse()
    if arguments.join:
        join(*arguments.join)
    else:
        run(arguments)


if __name__ == "__main__":
    main()
