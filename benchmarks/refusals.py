"""What it costs to refuse one request, at the door and through the application, warm and without a network.

    python benchmarks/refusals.py [--rounds 5] [--requests 3000]

A connection of uvicorn's is fed POST /embed with 20 kB, while the queue is full; what it writes is looked at
and goes nowhere. In a flood the same work meets cold caches and costs a few times as much (docs/serving.md).
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import uvicorn  # noqa: E402
import uvloop  # noqa: E402
from starlette.types import Receive, Scope, Send  # noqa: E402
from uvicorn.server import ServerState  # noqa: E402

from benchmarks.serving import load, models  # noqa: E402
from benchmarks.serving.process import machine  # noqa: E402
from serve.http.app import Application  # noqa: E402
from serve.http.doorkeeper import Doorkeeper  # noqa: E402
from serve.http.refusals import Refusals  # noqa: E402
from serve.http.settings import Settings  # noqa: E402


class Nowhere(asyncio.Transport):
    """A connection whose other end is this program."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        """Keep what would be sent."""
        self.written += data

    def is_closing(self) -> bool:
        """It never ends."""
        return False

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=3000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vssl-bench-") as scratch:
        model = models.tiny_encoder(Path(scratch) / "model.onnx")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            costs = runner.run(measure(model, options.rounds, options.requests))
    for name, seconds in costs.items():
        print(f"{name}: {1e6 * statistics.median(seconds):.1f} us (best {1e6 * min(seconds):.1f})")
    print(machine())


async def measure(model: Path, rounds: int, requests: int) -> dict[str, list[float]]:
    """Return the seconds that a refusal takes, by way, in turns."""
    settings = Settings(str(model), threads=1, max_queue=1)
    application = Application()
    await application.start(settings)
    runtime = application._runtime
    if runtime is None:
        raise SystemExit("the application did not start")
    runtime.served.batcher.room.take(1)  # an image that never leaves: the queue is full
    ways = {"through the application": None, "at the door": Refusals(runtime)}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, refuse in ways.items():
            costs[name].append(await one_way(application, refuse, requests))
    runtime.served.batcher.room.leave(1)
    await application.stop()
    return costs


async def one_way(application: Application, refuse: Refusals | None, requests: int) -> float:
    """Return the seconds of one refusal, the mean of so many on one connection."""

    async def face(scope: Scope, receive: Receive, send: Send) -> None:
        await application(scope, receive, send)

    config = uvicorn.Config(face, http="httptools", log_config=None, access_log=False)
    config.load()
    made: Any = config.http_protocol_class
    if refuse is not None:
        made = functools.partial(Doorkeeper, refuse, 60)
    connection = made(config=config, server_state=ServerState(), app_state={})
    transport = Nowhere()
    connection.connection_made(transport)
    data = load.request("/embed", b"x" * 20_000, {"Content-Type": "image/png"})
    begun = time.perf_counter()
    for _ in range(requests):
        transport.written = b""
        connection.data_received(data)
        while not connection.cycle.response_complete:
            await asyncio.sleep(0)
        if not transport.written.startswith(b"HTTP/1.1 429 "):
            raise SystemExit(f"not refused: {transport.written[:200]!r}")
    return (time.perf_counter() - begun) / requests


if __name__ == "__main__":
    main()
