"""A server under a mixed attack, beside itself at peace: memory, and how long `/livez` takes.

    python -m benchmarks.attack [--seconds 600] [--senders 4]

At peace one client asks for embeddings of small pictures. Under attack, senders beside it send scan bombs, large
pictures of several kinds, many small progressive ones at once, long labels, deep and long JSON, a million values,
spaced base64, repeated outputs, filters of many parts, and long heads, each as fast as it is answered. They give way
to the server for the cores, as other machines would. A process of its own asks `/livez` every 10 ms.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from multiprocessing.queues import Queue
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image

from benchmarks.fuzz_files import picture, picture_gallery
from benchmarks.serving.process import server
from vssl.model.shipped import CIFAR10, shipped_model

Attack = tuple[str, str, dict[str, str], bytes]
EVERY_S = 0.01


def attacks(port: int) -> list[Attack]:
    """Return what the senders send: method, path, headers, body."""
    plain, clear = (
        Image.new("RGB", (7900, 8000), (90, 120, 30)),
        Image.new("RGBA", (7900, 8000), (9, 9, 9, 9)),
    )
    large = encoded(plain, "PNG", compress_level=9)
    text = base64.b64encode(picture(0)).decode()
    progressive = encoded(Image.open(io.BytesIO(picture(1, 128))), "JPEG", progressive=True)
    cut = progressive.rindex(b"\xff\xda")
    bomb = progressive[:cut] + progressive[cut:-2] * 3000 + b"\xff\xd9"
    many = json.dumps({"images": [{"base64": base64.b64encode(progressive).decode()}] * 256}).encode()
    model = httpx.get(f"http://127.0.0.1:{port}/v1/models").json()["data"][0]["id"]
    pixels = bytes(256 * 32 * 32 * 3)
    tensor = {"name": "images", "datatype": "UINT8", "shape": [256, 32, 32, 3]}
    head = {"inputs": [{**tensor, "parameters": {"binary_data_size": len(pixels)}}]}
    once = json.dumps(head).encode()
    often = json.dumps({**head, "outputs": [{"name": "mean"}] * 8000}).encode()
    js, length = {"Content-Type": "application/json"}, "Inference-Header-Content-Length"
    image = {"images": [{"base64": text}]}
    spaced = {"images": [{"base64": "AAAA\r\n" * 3_000_000}]}
    return [
        ("POST", "/embed", {}, large),
        ("POST", "/embed", {}, encoded(clear, "PNG", compress_level=9)),
        ("POST", "/embed", {}, encoded(clear, "WEBP", lossless=True, method=0)),
        ("POST", "/embed", js, json.dumps(spaced).encode()),
        ("POST", "/embed", js, b'{"images":[' + b"{}," * 990_000 + b"{}]}"),
        ("POST", "/search", js, b'{"mean":[' + b"0.125," * 780_000 + b'1],"variance":[1]}'),
        ("POST", "/embed", {}, bomb),
        ("POST", "/embed", js, many),
        ("POST", "/embed", js, b"[" * 20_000_000),
        ("POST", "/search", js, json.dumps({**image, "distance": "x" * 20_000_000}).encode()),
        ("POST", "/search", js, json.dumps({**image, "where": {"and": [{"label": "a"}] * 40_000}}).encode()),
        ("PUT", "/gallery/a", js, json.dumps({**image, "label": "x" * 20_000_000}).encode()),
        ("POST", f"/v2/models/{model}/infer", {length: str(len(often))}, often + pixels),
        ("POST", f"/v2/models/{model}/infer", {length: str(len(once))}, once + pixels),
        ("GET", "/livez", {"X-Long": "y" * 200_000}, b""),
    ]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return a picture's file."""
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def ask(port: int, seconds: float, out: Queue[list[float]]) -> None:
    """Ask /livez on one connection, and give the seconds of each answer."""
    found: list[float] = []
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    end = time.monotonic() + seconds
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while time.monotonic() < end:
            begun = time.perf_counter()
            connection.sendall(request)
            while b"alive" not in connection.recv(65536):
                pass
            found.append(time.perf_counter() - begun)
            time.sleep(EVERY_S)
    out.put(found)


def send(port: int, seconds: float, seed: int, kinds: list[Attack]) -> None:
    """Send attacks until the time is up."""
    os.nice(10)
    random = np.random.default_rng(seed)
    end = time.monotonic() + seconds
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        while time.monotonic() < end:
            method, path, headers, body = kinds[int(random.integers(len(kinds)))]
            try:
                http.request(method, path, headers=headers, content=body)
            except httpx.TransportError:
                time.sleep(0.01)


def embed(port: int, seconds: float) -> None:
    """Be the client that is always there."""
    end, image = time.monotonic() + seconds, picture(3)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        while time.monotonic() < end:
            http.post("/embed", content=image)
            time.sleep(0.05)


def memory(process: psutil.Process) -> int:
    """Return the bytes that a server and all of its processes use."""
    found = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += one.memory_info().rss
    return found


def measure(port: int, process: psutil.Process, seconds: float, senders: int) -> str:
    """Run one phase; return its line of the table."""
    out: Queue[list[float]] = multiprocessing.Queue()
    workers = [multiprocessing.Process(target=ask, args=(port, seconds, out))]
    workers += [multiprocessing.Process(target=embed, args=(port, seconds))]
    kinds = attacks(port) if senders else []
    workers += [multiprocessing.Process(target=send, args=(port, seconds, n, kinds)) for n in range(senders)]
    for worker in workers:
        worker.start()
    peak, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        peak = max(peak, memory(process))
        time.sleep(0.1)
    times = np.array(out.get(timeout=120)) * 1000
    for worker in workers:
        worker.join()
    time.sleep(5)
    after = memory(process)
    p50, p99 = np.percentile(times, [50, 99])
    return (
        f"/livez ms: p50 {p50:.1f}, p99 {p99:.1f}, max {times.max():.0f} of {len(times)}; "
        f"memory MiB: peak {peak / 2**20:.0f}, 5 s after {after / 2**20:.0f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--senders", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        gallery = str(picture_gallery(Path(folder)))
        command = ["vssl", "serve", "--model", str(shipped_model(CIFAR10)), "--gallery", gallery, "--port"]
        with server([sys.executable, "-m", *command]) as (port, process):
            print(f"peace  {measure(port, process, min(60, given.seconds), 0)}")
            print(f"attack {measure(port, process, given.seconds, given.senders)}")
            print(f"peace  {measure(port, process, min(60, given.seconds), 0)}")
