"""Start the real server as a subprocess on a free port, and end it by its process id."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil

PORTS_EACH = 1000  # for each process of tests
PATIENCE_S = 60
"""Seconds for what takes less than one: tests run side by side, on whatever machine there is."""

get, post, put, delete = (
    partial(call, timeout=PATIENCE_S) for call in (httpx.get, httpx.post, httpx.put, httpx.delete)
)
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
        return self.process.wait(timeout=PATIENCE_S)


def until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Wait until a condition holds; fail when it does not within so many seconds."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "the condition did not come about in time"
        time.sleep(0.01)


def workers_of(server: Running, count: int) -> list[psutil.Process]:
    """Return the worker processes of a server, once there are as many as expected."""
    workers: list[psutil.Process] = []

    def found() -> bool:
        workers[:] = [p for p in family(server) if "--worker-id" in command_line(p)]
        return len(workers) >= count

    until(found)
    return workers


def family(server: Running) -> list[psutil.Process]:
    """Return every living process below a server's own."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    return [child for child in children if command_line(child)]


def command_line(process: psutil.Process) -> list[str]:
    """Return a process's command line; nothing for one that has ended."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return process.cmdline()
    return []


def wait_for_metric(server: Running, line: str) -> None:
    """Wait until a line stands in a server's metrics."""
    until(lambda: line in get(f"{server.url}/metrics").text)


def own_ports() -> Iterator[int]:
    """Yield the ports of this test process's own thousand in turn, from any of them on, again and again."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first, begin = 15_000 + PORTS_EACH * (worker % 16), random.Random().randrange(PORTS_EACH)
    return (first + place % PORTS_EACH for place in itertools.count(begin))


PORTS = own_ports()


def free_port() -> int:
    """Return a free port that was not returned before, since its server may not listen yet.

    It lies below those that the system gives to clients, so that none is taken before its server starts.
    """
    for port in itertools.islice(PORTS, PORTS_EACH):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no free port among the {PORTS_EACH} of this process")


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
            env={**os.environ, "BENTOML_DO_NOT_TRACK": "true", "VSSL_DRAIN_S": "0", **(environment or {})},
        )
        server = Running(f"http://127.0.0.1:{port}", process, log)
        try:
            wait_ready(server)
            yield server
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(timeout=PATIENCE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def wait_ready(server: Running, seconds: float = 2 * PATIENCE_S) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if server.process.poll() is not None:
            break
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/readyz").status_code == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"the server did not come up:\n{server.log.read_text()}")
