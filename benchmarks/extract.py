"""Images per second of `vssl extract`, compared with its ceilings and with the loops people write.

    python -m benchmarks.extract IMAGES --model model.onnx [--rounds 3] [--engine openvino --precision bf16]

IMAGES is a folder of real photos. `--model` also takes `tiny` or `resnet18`: the encoders with random
weights of `benchmarks/serve.py`, at 32 and 224 px. Every contender embeds the same files with the same model file:

    decode ceiling      load_image on every core, nothing else
    inference ceiling   the model on every core over pixels in memory, the better of one thread a
                        call and all threads a call
    shared bound        what remains when both stages share the same cores: 1 / (1/decode + 1/inference)
    extract             `serve.extraction.extract.extract`, all of it: listing, plan, Parquet, flush to the disk
    plain loop          Pillow, numpy and onnxruntime with its defaults, batches of 32
    DataLoader loop     torch DataLoader with a worker a core, torchvision transforms, onnxruntime

Rounds are interleaved and the best of each is kept, so that another program on the machine hurts
all alike; `cpu` is processor time per image, children included, which other programs hardly change.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

from benchmarks.serving import models
from serve.inference.cores import available_cores
from serve.inference.engine import Engine
from vssl.cli.ceilings.extraction import decode_only, infer_only, run_extract
from vssl.images.sources import open_source

BATCH = 32
MADE = {"tiny": models.tiny_encoder, "resnet18": models.resnet18}


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=3, help="times each photo is embedded")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--engine", default="onnxruntime", help="onnxruntime or openvino, of vssl extract and ceiling"
    )
    parser.add_argument("--precision", help="fp32 or bf16, of openvino")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="extract-benchmark-"))
    try:
        make = MADE.get(str(arguments.model))
        model = arguments.model if make is None else make(scratch / "model.onnx")
        results = measure(
            arguments.images, model, arguments.repeat, arguments.rounds, scratch,
            {"engine": arguments.engine, "precision": arguments.precision},
        )  # fmt: skip
    finally:
        shutil.rmtree(scratch)
    if arguments.json:
        print(json.dumps(results))
        return
    print(
        f"{results['images']} images, model of {results['size']} px, {results['cores']} cores, load {results['load']}"
    )
    for name, (rate, cpu) in results["measured"].items():
        print(f"{name:24s} {rate:8.1f} images/s   {cpu:7.3f} cpu-ms an image")
    for name, value in results["ratios"].items():
        print(f"{name:58s} {value:6.3f}")


def measure(
    images: Path, model: Path, repeat: int, rounds: int, scratch: Path, how: dict[str, str | None]
) -> dict[str, object]:
    """Return the best rate and the least processor time of every contender, and their ratios."""
    files = [
        Path(i.path) for i in open_source(images).items if i.path.lower().endswith((".jpg", ".jpeg", ".png"))
    ]
    listing = scratch / "list.jsonl"
    lines = [{"path": str(f.resolve()), "id": f"{r}/{n}"} for r in range(repeat) for n, f in enumerate(files)]
    listing.write_text("".join(json.dumps(line) + "\n" for line in lines))
    paths = [Path(line["path"]) for line in lines]
    engine = Engine.open(model, threads=1, **how)
    wide = Engine.open(model, **how)
    contenders: dict[str, Callable[[], None]] = {
        "decode ceiling": lambda: decode_only(engine, paths),
        "inference, thread a call": lambda: infer_only(engine, len(paths), available_cores()),
        "inference, all threads": lambda: infer_only(wide, len(paths), 1),
        "extract": lambda: run_extract(listing, engine, scratch / "out"),
        "plain loop": lambda: plain_loop(model, engine.card.preprocess.size, paths),
        "DataLoader loop": lambda: dataloader_loop(model, engine.card.preprocess.size, paths),
    }
    best: dict[str, tuple[float, float]] = {}
    for contender in contenders.values():  # warm caches
        contender()
    for _ in range(rounds):
        for name, contender in contenders.items():
            before, started = cpu_seconds(), time.perf_counter()
            contender()
            rate = len(paths) / (time.perf_counter() - started)
            cpu = (cpu_seconds() - before) / len(paths) * 1e3
            known = best.get(name, (0.0, np.inf))
            best[name] = (max(known[0], rate), min(known[1], cpu))
    rate = {name: value for name, (value, _) in best.items()}
    decode = rate["decode ceiling"]
    inference = max(rate["inference, thread a call"], rate["inference, all threads"])
    shared = 1 / (1 / decode + 1 / inference)
    ratios = {
        "extract / min(decode ceiling, inference ceiling)": rate["extract"] / min(decode, inference),
        "extract / shared bound": rate["extract"] / shared,
        "extract / plain loop": rate["extract"] / rate["plain loop"],
        "extract / DataLoader loop": rate["extract"] / rate["DataLoader loop"],
        "cpu of decode and inference ceilings / cpu of extract": (
            best["decode ceiling"][1] + best["inference, thread a call"][1]
        )
        / best["extract"][1],
        "cpu of plain loop / cpu of extract": best["plain loop"][1] / best["extract"][1],
        "cpu of DataLoader loop / cpu of extract": best["DataLoader loop"][1] / best["extract"][1],
    }
    return {
        "images": len(paths),
        "size": engine.card.preprocess.size,
        "cores": available_cores(),
        "load": round(os.getloadavg()[0], 2),
        "measured": best,
        "ratios": ratios,
    }


def cpu_seconds() -> float:
    """Return the processor time of this process and of its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def plain_loop(model: Path, size: int, paths: list[Path]) -> None:
    """Run the loop that a person writes first."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    means, variances = [], []
    for start in range(0, len(paths), BATCH):
        batch = []
        for path in paths[start : start + BATCH]:
            with Image.open(path) as image:
                batch.append(np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)))
        mean, variance = session.run(["mean", "variance"], {"images": np.stack(batch)})
        means.append(mean)
        variances.append(variance)
    np.concatenate(means), np.concatenate(variances)


class Photos:
    """A map-style data set of uint8 (S, S, 3) tensors, as torchvision's documentation writes one."""

    def __init__(self, paths: list[Path], size: int) -> None:
        from torchvision import transforms

        bicubic = transforms.InterpolationMode.BICUBIC
        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.Resize(size, interpolation=bicubic),
                transforms.CenterCrop(size),
                transforms.PILToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> object:
        with Image.open(self.paths[row]) as image:
            return self.transform(image.convert("RGB")).permute(1, 2, 0).contiguous()


def dataloader_loop(model: Path, size: int, paths: list[Path]) -> None:
    """Run the loop that a person with torch writes."""
    from torch.utils.data import DataLoader

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    loader = DataLoader(Photos(paths, size), batch_size=BATCH, num_workers=available_cores())
    means, variances = [], []
    for batch in loader:
        mean, variance = session.run(["mean", "variance"], {"images": batch.numpy()})
        means.append(mean)
        variances.append(variance)
    np.concatenate(means), np.concatenate(variances)


if __name__ == "__main__":
    main()
