"""Whether `vssl extract` survives: killed at random, over odd images, over many images.

    python -m benchmarks.extract_endurance kills IMAGES --model model.onnx [--kills 50] [--total 6000]
    python -m benchmarks.extract_endurance odd IMAGES odd_images.tar --model model.onnx
    python -m benchmarks.extract_endurance memory IMAGES --model model.onnx [--total 100000]

kills: one job, killed with SIGKILL at a random moment again and again, each time resumed; its rows
are compared with those of an uninterrupted job. odd: the odd images unpacked among good photos;
every file must be in exactly one of output and failures. memory: resident memory after a tenth of
the images and after all of them.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from serve.extraction.extract import extract
from serve.extraction.writer import Progress
from vssl.embeddings.store import Embeddings, read_embeddings
from vssl.images.sources import open_source

RUN = """
import sys
from pathlib import Path
from serve.extraction.extract import extract
extract(sys.argv[1], Path(sys.argv[2]), model=Path(sys.argv[3]), part_rows=16, resume=True,
        report=lambda state: print(state.done, flush=True))
"""


def main() -> None:
    """Parse arguments, run one of the trials, print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("trial", choices=["kills", "odd", "memory"])
    parser.add_argument("images", type=Path)
    parser.add_argument("tar", type=Path, nargs="?", help="odd_images.tar, for the trial odd")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--total", type=int, help="images, each photo as often as it takes")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="extract-endurance-"))
    try:
        if arguments.trial == "kills":
            images = repeated(arguments.images, arguments.total or 6000, scratch)
            kills(images, arguments.model, arguments.kills, random.Random(arguments.seed), scratch)
        elif arguments.trial == "odd":
            odd(arguments.images, arguments.tar, arguments.model, scratch)
        else:
            total = arguments.total or 100_000
            memory(repeated(arguments.images, total, scratch), arguments.model, total, scratch)
    finally:
        shutil.rmtree(scratch)


def repeated(images: Path, total: int, scratch: Path) -> str:
    """Write a list of `total` images that names each photo as often as it takes; return its spec."""
    photos = [Path(i.path).resolve() for i in open_source(images).items if i.path.endswith((".jpg", ".png"))]
    entries = ({"path": str(photos[n % len(photos)]), "id": str(n)} for n in range(total))
    (scratch / "list.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return f"list:{scratch / 'list.jsonl'}"


def kills(images: str, model: Path, count: int, chance: random.Random, scratch: Path) -> None:
    """Kill one job `count` times, then let it end; parts are small, so that many moments differ."""
    extract(images, scratch / "whole", model=model, part_rows=16)
    command = [sys.executable, "-c", RUN, images, str(scratch / "out"), str(model)]
    landed = []
    while len(landed) < count:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(chance.randint(1, 8)):  # batches of 16: a part each
            process.stdout.readline()  # type: ignore[union-attr]
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        process.stdout.close()  # type: ignore[union-attr]
        if process.wait() != -signal.SIGKILL:
            raise SystemExit(f"the job ended after {len(landed)} kills; give more images")
        landed.append(len(list((scratch / "out").glob("part-*.parquet"))))
    ended = subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    same = equal(read_embeddings(scratch / "out"), read_embeddings(scratch / "whole"))
    left = [p.name for p in (scratch / "out").iterdir() if p.name.endswith(".tmp") or p.name == ".progress"]
    print(f"{len(landed)} kills, with {landed[0]} to {landed[-1]} parts done; then exit {ended.returncode}")
    print(f"row for row equal to the uninterrupted job: {same}; left behind: {left or 'nothing'}")


def odd(images: Path, tar: Path, model: Path, scratch: Path) -> None:
    """Extract good photos and odd files together; account for every file."""
    shutil.copytree(images, scratch / "in" / "good")
    with tarfile.open(tar) as archive:
        archive.extractall(scratch / "in", filter="data")
    summary = extract(scratch / "in", scratch / "out", model=model)
    found = read_embeddings(scratch / "out")
    files = {str(p) for p in (scratch / "in").rglob("*") if not p.is_dir()}
    hidden = {f for f in files if any(p.startswith(".") for p in Path(f).relative_to(scratch / "in").parts)}
    listed = Counter([*found.rows.paths, *(f.path for f in found.failures)])
    print(f"{len(files)} files, {summary.rows} rows, {summary.failures} failures {summary.reasons}")
    print(f"in exactly one of the two: {set(listed.values()) == {1} and len(listed) == len(files - hidden)}")


def memory(images: str, model: Path, total: int, scratch: Path) -> None:
    """Print the resident memory after a tenth of the images and at the end."""
    resident: dict[int, float] = {}

    def report(state: Progress) -> None:
        tenth = state.done * 10 // total
        resident.setdefault(tenth, megabytes())

    summary = extract(images, scratch / "out", model=model, report=report)
    print(f"{summary.rows} rows at {summary.images_per_second:.0f} images/s; MB resident after each tenth:")
    print("  " + " ".join(f"{resident[tenth]:.0f}" for tenth in sorted(resident) if tenth))
    print(f"end over first tenth: {resident[10] / resident[1]:.4f}")


def megabytes() -> float:
    """Return this process's resident memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS"))


def equal(a: Embeddings, b: Embeddings) -> bool:
    """Compare ids, labels, numbers and failures, in order."""
    return (
        (a.rows.ids, a.rows.labels, a.failures) == (b.rows.ids, b.rows.labels, b.failures)
        and len(set(a.rows.ids)) == len(a.rows.ids)
        and np.array_equal(a.rows.gaussians.mean, b.rows.gaussians.mean)
        and np.array_equal(a.rows.gaussians.variance, b.rows.gaussians.variance)
    )


if __name__ == "__main__":
    main()
