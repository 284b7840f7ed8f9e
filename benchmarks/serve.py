"""CPU time and throughput of serving over the same work done in-process, ours and others, in one run.

    python benchmarks/serve.py [--seconds 5] [--photos FOLDER] [--only tiny|resnet] [--json FILE]

Prints a Markdown table. CPU-ms is user + system time of the whole server process tree over images
answered, from /proc. Each server is measured in turns with the same work in-process, and `x in-process` is
the median of those turns' ratios: what else the machine does meets both. So is what a lone request takes longer
than its image does in-process; and in the last lines all servers run at once and are asked in turns. The client
runs on the same machine, over loopback, in this process.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import importlib.util
import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# This file's folder must not stand in the path: its name is that of the package it measures.
sys.path[0] = str(ROOT)

import numpy as np  # noqa: E402

from benchmarks.serving import load, models  # noqa: E402
from benchmarks.serving.in_process import InProcess, OneAtATime  # noqa: E402
from benchmarks.serving.pictures import photos, small_pngs  # noqa: E402
from benchmarks.serving.process import batch_sizes, cpu_seconds, described, machine, server  # noqa: E402
from serve.inference.engine import Engine  # noqa: E402
from vssl.images.preprocess import load_image  # noqa: E402

TURNS = 4
ARROW = "application/vnd.apache.arrow.stream"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    task: str
    server: str
    cpu_ms: float
    ratio: float
    images_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    batches: str


def main() -> None:
    """Measure and print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a stopped benchmark stops its servers too
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument(
        "--photos", type=Path, help="folder of JPEG files for ResNet-18 (synthetic ones without)"
    )
    parser.add_argument("--only", choices=("tiny", "resnet"))
    parser.add_argument("--servers", default="", help="only servers whose name holds this text")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="vssl-bench-") as scratch:
        folder = Path(scratch)
        if options.only != "resnet":
            rows += measure(
                "tiny encoder, 32 px PNG", models.tiny_encoder(folder / "tiny.onnx"), small_pngs(), options
            )
        if options.only != "tiny":
            images = photos(options.photos)
            rows += measure(
                "ResNet-18, photo at 224 px", models.resnet18(folder / "resnet18.onnx"), images, options
            )
    print(f"\n{machine()}; client on the same machine, loopback; {options.seconds:g} s a line")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def measure(task: str, model: Path, images: list[bytes], options: argparse.Namespace) -> list[Row]:
    """Measure one model and one kind of image over all servers."""
    sizes = sorted(len(d) for d in images)
    print(f"\n### {task} ({len(images)} images, median {sizes[len(sizes) // 2]} bytes)\n")
    print("| server | CPU-ms / image | x in-process | images/s | p50 ms | p99 ms | errors | batch sizes |")
    print("|---|---|---|---|---|---|---|---|")
    rows: list[Row] = []

    def emit(row: Row) -> None:
        cells = (
            f"{row.cpu_ms:.3f}", f"{row.ratio:.2f}", f"{row.images_per_s:.0f}", f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}"
        )  # fmt: skip
        print(f"| {row.server} | {' | '.join(cells)} | {row.errors} | {row.batches} |", flush=True)
        rows.append(row)

    base, own = (InProcess(model, images, plain=plain) for plain in (True, False))
    for work in (base, own):
        work.run(0.5)
    turns = [(base.run(options.seconds / TURNS), own.run(options.seconds / TURNS)) for _ in range(TURNS)]
    usual, rate = (statistics.median(turn[0][i] for turn in turns) for i in (0, 1))
    emit(Row(task, "in-process, Pillow", usual, 1.0, rate, 0, 0, 0, "32"))
    mine, rate = (statistics.median(turn[1][i] for turn in turns) for i in (0, 1))
    ratio = statistics.median(b[0] / a[0] for a, b in turns)
    emit(Row(task, "in-process, vssl's decoder", mine, ratio, rate, 0, 0, 0, "32"))
    single_images = OneAtATime(model, images)
    alone, latencies = single_images.run(options.seconds)
    lone = load.Outcome(latencies=latencies)
    p50, p99 = (1000 * lone.quantile(q) for q in (0.5, 0.99))
    emit(
        Row(
            task,
            "in-process, one at a time",
            alone,
            alone / usual,
            1 / statistics.mean(latencies),
            p50,
            p99,
            0,
            "1",
        )
    )
    single = [load.request("/embed", d, {"Content-Type": "application/octet-stream"}) for d in images]
    for name, command, requests, per_request, connections in plans(model, images, single):
        if options.servers in name:
            emit(over_http(base, task, name, command, requests, per_request, connections, options.seconds))
    if not options.servers:
        in_turn_with_ours(ours(model), single, list(peers(model, images, single)), options.seconds)
    if options.servers in "ours":
        longer = later(single_images, ours(model), single, options.seconds)
        print(
            f"\na lone request takes {1000 * longer:.1f} ms longer than its image in-process (p50s, {TURNS} turns)"
        )
    return rows


def ours(model: Path) -> list[str]:
    """Return the command that serves a model, up to the port."""
    return [sys.executable, "-m", "vssl", "serve", "--model", str(model), "--port"]


def plans(
    model: Path, images: list[bytes], single: list[bytes]
) -> Iterator[tuple[str, list[str], list[bytes], int, int]]:
    """Yield (name, command, requests, images a request, connections)."""
    own = ours(model)
    arrow = [load.request("/embed", d, {"Content-Type": "image/png", "Accept": ARROW}) for d in images]
    groups = [[images[(i + j) % len(images)] for j in range(32)] for i in range(0, len(images), 8)]
    bulk = [
        json.dumps(
            {"images": [{"base64": base64.b64encode(d).decode()} for d in group], "encoding_format": "base64"}
        )
        for group in groups
    ]
    bodies = [load.request("/embed", b.encode(), {"Content-Type": "application/json"}) for b in bulk]
    to_arrow = [
        load.request("/embed", b.encode(), {"Content-Type": "application/json", "Accept": ARROW})
        for b in bulk
    ]
    yield "ours, 1 image, raw body, JSON", own, single, 1, 16
    yield "ours, 1 image, raw body, JSON, one connection", own, single, 1, 1
    yield "ours, 1 image, raw body, Arrow", own, arrow, 1, 16
    yield "ours, 32 images, JSON to base64", own, bodies, 32, 2
    yield "ours, 32 images, JSON to Arrow", own, to_arrow, 32, 2
    for precision in ("fp32", "bf16") if importlib.util.find_spec("openvino") else ():
        faster = [*own[:-1], "--engine", "openvino", "--precision", precision, "--port"]
        yield f"ours, openvino {precision}, 1 image, raw body, JSON", faster, single, 1, 16
        yield f"ours, openvino {precision}, 32 images, JSON to base64", faster, bodies, 32, 2
    recipe = Engine.open(model, threads=1).card.preprocess
    small = models.int8(
        model, model.with_suffix(".int8.onnx"), np.stack([load_image(d, recipe) for d in images[:64]])
    )
    lowered = [str(small) if word == str(model) else word for word in own]
    yield "ours, int8, 1 image, raw body, JSON", lowered, single, 1, 16
    if importlib.util.find_spec("openvino"):
        faster = [*lowered[:-1], "--engine", "openvino", "--port"]
        yield "ours, openvino int8, 1 image, raw body, JSON", faster, single, 1, 16
    yield from peers(model, images, single)


def peers(
    model: Path, images: list[bytes], single: list[bytes]
) -> Iterator[tuple[str, list[str], list[bytes], int, int]]:
    """Yield the plans of other servers, as `plans` does."""
    python = sys.executable
    peer = [python, "-m", "benchmarks.serving.peers"]
    yield "bare Starlette, 1 image", [*peer, "starlette", str(model)], single, 1, 16
    yield "plain BentoML, 1 image", [*peer, "bentoml", str(model)], multipart(images), 1, 16
    if importlib.util.find_spec("litserve"):
        coded = [json.dumps({"image": base64.b64encode(d).decode()}).encode() for d in images]
        asked = [load.request("/embed", c, {"Content-Type": "application/json"}) for c in coded]
        yield "LitServe, 1 image", [python, "-m", "benchmarks.serving.lit_peer", str(model)], asked, 1, 16


def multipart(images: list[bytes]) -> list[bytes]:
    """Return the requests that a PIL-typed list of BentoML takes."""
    head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\nContent-Type: image/%s\r\n\r\n'
    kind = b"png" if images[0][:4] == b"\x89PNG" else b"jpeg"
    return [
        load.request(
            "/embed", head % kind + d + b"\r\n--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}
        )
        for d in images
    ]


def over_http(
    base: InProcess,
    task: str,
    name: str,
    command: Sequence[str],
    requests: list[bytes],
    per_request: int,
    connections: int,
    seconds: float,
) -> Row:
    """Start a server, warm it, measure it in turns with the work in-process, end it."""
    outcome, wall, spent = load.Outcome(), 0.0, 0.0
    ratios = []
    with server(command) as (port, process):
        load.run(port, requests, connections=connections, seconds=min(2.0, seconds))
        histogram = batch_sizes(port)
        for _ in range(TURNS):
            usual, _ = base.run(seconds / TURNS)
            before = cpu_seconds(process)
            turn = load.run(port, requests, connections=connections, seconds=seconds / TURNS)
            took = cpu_seconds(process) - before
            ratios.append(1000 * took / max(1, len(turn.latencies) * per_request) / usual)
            outcome.latencies += turn.latencies
            outcome.statuses += turn.statuses
            outcome.lost += turn.lost
            wall, spent = wall + turn.seconds, spent + took
        batches = described(histogram, batch_sizes(port))
    images = len(outcome.latencies) * per_request
    errors = sum(n for s, n in outcome.statuses.items() if s != 200) + outcome.lost
    p50, p99 = (1000 * outcome.quantile(q) for q in (0.5, 0.99))
    ratio = statistics.median(ratios)
    return Row(task, name, 1000 * spent / max(1, images), ratio, images / wall, p50, p99, errors, batches)


def in_turn_with_ours(
    command: list[str],
    requests: list[bytes],
    others: list[tuple[str, list[str], list[bytes], int, int]],
    seconds: float,
) -> None:
    """Print what an image costs other servers over what it costs ours, all of them running and asked in turns."""
    cost: dict[str, list[float]] = {"ours": [], **{name: [] for name, *_ in others}}
    with contextlib.ExitStack() as stack:
        running = [("ours", requests, 16, *stack.enter_context(server(command)))]
        for name, other, asked, _, connections in others:
            running.append((name, asked, connections, *stack.enter_context(server(other))))
        for turn in range(2 * TURNS + 1):  # the first is to warm up
            for name, asked, connections, port, process in running if turn % 2 else reversed(running):
                before = cpu_seconds(process)
                seen = load.run(port, asked, connections=connections, seconds=seconds / TURNS)
                cost[name].append((cpu_seconds(process) - before) / max(1, seen.statuses[200]))
    print(f"\nCPU time an image over ours, 1 image a request, JSON (median and range of {2 * TURNS} turns):")
    for name in cost:
        over = [theirs / mine for theirs, mine in zip(cost[name][1:], cost["ours"][1:], strict=True)]
        if name != "ours":
            print(f"  {name}: {statistics.median(over):.2f} ({min(over):.2f} to {max(over):.2f})")


def later(work: OneAtATime, command: Sequence[str], requests: list[bytes], seconds: float) -> float:
    """Return the seconds that a lone request takes longer than its image in-process, both measured in turns."""
    differences = []
    with server(command) as (port, _):
        load.run(port, requests, connections=1, seconds=min(1.0, seconds))
        for _ in range(TURNS):
            _, latencies = work.run(seconds / TURNS)
            asked = load.run(port, requests, connections=1, seconds=seconds / TURNS)
            differences.append(asked.quantile(0.5) - statistics.median(latencies))
    return statistics.median(differences)


if __name__ == "__main__":
    main()
