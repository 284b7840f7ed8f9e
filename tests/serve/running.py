"""Start the real server as a subprocess on a free port, and end it by its process id."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

VSSL = [sys.executable, "-m", "vssl"]


@dataclass(frozen=True)
class Running:
    """A server that answers /readyz, its address, its process and its log file."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def terminate(self) -> int:
        """Send SIGTERM and wait for the end; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


def workers_of(server: Running, count: int, seconds: float = 30) -> list[psutil.Process]:
    """Return the worker processes of a server, once there are as many as expected or time is up."""
    limit = time.monotonic() + seconds
    while True:
        children = psutil.Process(server.process.pid).children()
        alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
        workers = [child for child in alive if "--worker-id" in child.cmdline()]
        if len(workers) >= count or time.monotonic() > limit:
            return workers
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    arguments: Sequence[str],
    folder: Path,
    *,
    environment: dict[str, str] | None = None,
    command: Sequence[str] = (*VSSL, "serve"),
) -> Iterator[Running]:
    """Run `vssl serve ARGUMENTS --port FREE` until the block ends."""
    port = free_port()
    log = folder / f"serve-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *arguments, "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "BENTOML_DO_NOT_TRACK": "true", **(environment or {})},
        )
        server = Running(f"http://127.0.0.1:{port}", process, log)
        try:
            wait_ready(server)
            yield server
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def wait_ready(server: Running, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if server.process.poll() is not None:
            break
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/readyz").status_code == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"the server did not come up:\n{server.log.read_text()}")
