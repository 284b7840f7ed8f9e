"""Whether a server's memory stays flat over many requests of mixed sizes and kinds.

python benchmarks/memory.py [--requests 100000]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import numpy as np  # noqa: E402
import psutil  # noqa: E402

from benchmarks.serving import load, models  # noqa: E402
from benchmarks.serving.pictures import encoded  # noqa: E402
from benchmarks.serving.process import machine, server  # noqa: E402


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    total = parser.parse_args().requests
    random = np.random.default_rng(0)
    sizes = [(32, 32)] * 24 + [(100, 80), (200, 200), (64, 300), (640, 480), (40, 40), (500, 375)]
    images = [
        encoded(random.integers(0, 256, (h, w, 3)).astype(float), form)
        for n, (w, h) in enumerate(sizes)
        for form in (("PNG", "JPEG")[n % 2],)
    ]
    requests = [load.request("/embed", d, {}) for d in [*images, b"broken", images[3][:80]]]
    with tempfile.TemporaryDirectory(prefix="vssl-bench-") as scratch:
        model = models.tiny_encoder(Path(scratch) / "model.onnx")
        command = [sys.executable, "-m", "vssl", "serve", "--model", str(model), "--port"]
        with server(command) as (port, process):
            done = 0
            while done < total:
                outcome = load.run(port, requests, connections=16, seconds=5)
                done += sum(outcome.statuses.values())
                held = max(memory(p) for p in process.children(recursive=True))
                print(f"{done:7d} requests: worker holds {held:.1f} MB, lost {outcome.lost}", flush=True)
    print(machine())


def memory(process: psutil.Process) -> float:
    """Return a process' resident megabytes."""
    return float(process.memory_info().rss) / 1e6


if __name__ == "__main__":
    main()
