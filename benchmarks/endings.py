"""What is lost when a worker is killed, and when the server is asked to end, both under load.

    python benchmarks/endings.py [--seconds 10]

Two workers, 16 keep-alive connections, one image a request; halfway one worker gets SIGKILL.
Then the same with SIGTERM to the server. Lost are requests whose connection broke before an answer.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import psutil  # noqa: E402

from benchmarks.serving import load, models  # noqa: E402
from benchmarks.serving.pictures import small_pngs  # noqa: E402
from benchmarks.serving.process import machine, server  # noqa: E402


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    seconds = parser.parse_args().seconds
    requests = [load.request("/embed", d, {"Content-Type": "image/png"}) for d in small_pngs()]
    with tempfile.TemporaryDirectory(prefix="vssl-bench-") as scratch:
        model = models.tiny_encoder(Path(scratch) / "model.onnx")
        command = [sys.executable, "-m", "vssl", "serve", "--model", str(model), "--workers", "2", "--port"]
        for what in ("SIGKILL to one worker", "SIGTERM to the server"):
            with server(command) as (port, process):
                workers = workers_of(process)
                target = workers[0] if "KILL" in what else process
                kind = signal.SIGKILL if "KILL" in what else signal.SIGTERM
                timer = threading.Timer(seconds / 2, target.send_signal, (kind,))
                timer.start()
                outcome = load.run(port, requests, connections=16, seconds=seconds)
                timer.join()
                told = f"lost {outcome.lost}, refused {outcome.refused}, after {outcome.seconds:.1f} s"
                print(f"{what}: answers {dict(outcome.statuses)}, {told}")
                if "KILL" in what:
                    time.sleep(2)
                    after = load.run(port, requests, connections=4, seconds=1)
                    alive = len(workers_of(process))
                    print(f"  2 s later: {alive} workers, answers {dict(after.statuses)}, lost {after.lost}")
    print(machine())


def workers_of(server: psutil.Process) -> list[psutil.Process]:
    """Return the worker processes that are alive."""
    alive = [p for p in server.children() if p.status() != psutil.STATUS_ZOMBIE]
    return [p for p in alive if "--worker-id" in p.cmdline()]


if __name__ == "__main__":
    main()
