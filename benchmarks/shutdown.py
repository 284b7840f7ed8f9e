"""Requests lost when a server is asked to end (SIGTERM) and when one of its workers is killed, under load.

    python benchmarks/shutdown.py [--runs 3] [--workers 2] [--drain 5] [--clients 16 200]

Keep-alive clients post one thumbnail after the other. Those that watch ask /readyz twice a second, as a load
balancer does, and send nothing once it is not 200. The others reconnect at once, for as long as they can. All obey
`Connection: close`. Lost are requests whose connection broke before their answer; refused are connections.
Prints one table.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import psutil  # noqa: E402

from benchmarks.serving import load, models  # noqa: E402
from benchmarks.serving.pictures import small_pngs  # noqa: E402
from benchmarks.serving.process import machine, server  # noqa: E402

WATCH_S = 0.5
BEFORE_S = 3.0
AFTER_S = 10.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--drain", type=float, default=5)
    parser.add_argument("--clients", type=int, nargs="+", default=[16, 200])
    options = parser.parse_args()
    os.environ["VSSL_DRAIN_S"] = str(options.drain)
    requests = [load.request("/embed", d, {"Content-Type": "image/png"}) for d in small_pngs()]
    print(
        "| what | clients | run | answered 200 | other answers | lost | refused |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory(prefix="vssl-bench-") as scratch:
        model = models.tiny_encoder(Path(scratch) / "model.onnx")
        own = [sys.executable, "-m", "vssl", "serve", "--model", str(model)]
        command = [*own, "--workers", str(options.workers), "--port"]
        for clients in options.clients:
            for watch_s, clients_do in ((WATCH_S, "clients watch /readyz"), (None, "clients watch nothing")):
                for run in range(1, options.runs + 1):
                    outcome = at_a_signal(command, signal.SIGTERM, requests, clients, watch_s)
                    print_row(f"SIGTERM to the server, {clients_do}", clients, run, outcome)
        for run in range(1, options.runs + 1):
            outcome = at_a_signal(command, signal.SIGKILL, requests, options.clients[0], None)
            print_row("SIGKILL to the busiest worker", options.clients[0], run, outcome)
    print(
        f"\n{machine()}; {options.workers} workers, drain time {options.drain:g} s; client on the same machine"
    )


def at_a_signal(
    command: list[str], kind: signal.Signals, requests: list[bytes], clients: int, watch_s: float | None
) -> load.Outcome:
    """Send a signal BEFORE_S after clients began; return what they saw.

    SIGTERM goes to the server, SIGKILL to the worker that has done most.
    """
    with server(command) as (port, process):

        def send() -> None:
            busiest = max(workers_of(process), key=lambda worker: worker.cpu_times().user)
            (busiest if kind == signal.SIGKILL else process).send_signal(kind)

        timer = threading.Timer(BEFORE_S, send)
        timer.start()
        outcome = load.run(port, requests, connections=clients, seconds=BEFORE_S + AFTER_S, watch_s=watch_s)
        timer.join()
    return outcome


def print_row(what: str, clients: int, run: int, outcome: load.Outcome) -> None:
    """Print one line of the table."""
    others = {status: n for status, n in outcome.statuses.items() if status != 200} or 0
    print(
        f"| {what} | {clients} | {run} | {outcome.statuses[200]} | {others} | {outcome.lost} | {outcome.refused} |",
        flush=True,
    )


def workers_of(server: psutil.Process) -> list[psutil.Process]:
    """Return the worker processes that are alive."""
    alive = [p for p in server.children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    return [p for p in alive if "--worker-id" in p.cmdline()]


if __name__ == "__main__":
    main()
