"""A closed-loop load generator over keep-alive connections, cheap enough not to be what is measured."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """What a run saw: statuses, latencies in seconds of the answers that were 200, wall seconds.

    lost: requests sent whose connection broke; refused: connections that were not accepted; stale: those
    that the server closed between two requests.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    lost: int = 0
    refused: int = 0
    stale: int = 0

    def quantile(self, q: float) -> float:
        """Return a latency's quantile in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")


def request(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return the bytes of one POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class _Connection(asyncio.Protocol):
    def __init__(self, plan: _Plan) -> None:
        self.plan = plan
        self.buffer = bytearray()
        self.need = -1
        self.status = 0
        self.begun = 0.0
        self.waiting = False
        self.last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        data = None if self.last else self.plan.next()
        if data is None:
            self.transport.close()
            return
        self.begun, self.waiting = time.perf_counter(), True
        self.transport.write(data)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.need < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end]).lower()
            at = head.find(b"content-length:")
            self.status = int(head[9:12])
            self.last = b"connection: close" in head
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            self.need = end + 4 + length
        if len(self.buffer) >= self.need:
            self.waiting = False
            self.plan.answered(self.status, time.perf_counter() - self.begun)
            self.buffer.clear()
            self.need = -1
            self.send()

    def connection_lost(self, error: Exception | None) -> None:
        self.plan.closed(lost=self.waiting)


class _Plan:
    def __init__(self, requests: list[bytes], seconds: float, connections: int, port: int) -> None:
        self.requests = requests
        self.port = port
        self.until = time.perf_counter() + seconds
        self.sent = 0
        self.live = connections
        self.outcome = Outcome()
        self.tasks: set[asyncio.Task[None]] = set()
        self.done = asyncio.get_running_loop().create_future()

    def next(self) -> bytes | None:
        if time.perf_counter() >= self.until:
            return None
        self.sent += 1
        return self.requests[self.sent % len(self.requests)]

    def answered(self, status: int, seconds: float) -> None:
        self.outcome.statuses[status] += 1
        if status == 200:
            self.outcome.latencies.append(seconds)

    def closed(self, *, lost: bool) -> None:
        """Open another connection in place of one that ended early, as long as there is a server."""
        self.outcome.lost += lost
        if time.perf_counter() < self.until:
            task = asyncio.get_running_loop().create_task(self.connect())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            return
        self.end()

    def end(self) -> None:
        self.live -= 1
        if not self.live and not self.done.done():
            self.done.set_result(None)

    async def connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self), "127.0.0.1", self.port
            )
        except OSError:
            self.outcome.refused += 1
            self.end()

    async def watch(self, every_s: float) -> None:
        """Send nothing more once /readyz is not answered 200."""
        while await _is_ready(self.port):
            await asyncio.sleep(every_s)
        self.until = 0.0


async def _is_ready(port: int) -> bool:
    """Ask /readyz on a connection of its own."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
    except OSError:
        return False
    writer.close()
    return answer[9:12] == b"200"


async def _run(
    port: int, requests: list[bytes], connections: int, seconds: float, watch_s: float | None
) -> Outcome:
    plan = _Plan(requests, seconds, connections, port)
    begun = time.perf_counter()
    for _ in range(connections):
        await plan.connect()
    watching = None if watch_s is None else asyncio.create_task(plan.watch(watch_s))
    await plan.done
    if watching is not None:
        watching.cancel()
    plan.outcome.seconds = time.perf_counter() - begun
    return plan.outcome


def run(
    port: int, requests: list[bytes], *, connections: int, seconds: float, watch_s: float | None = None
) -> Outcome:
    """Keep `connections` busy for some seconds, going round the requests.

    watch_s: ask /readyz so often, and end when it is not 200; None asks never.
    """
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(port, requests, connections, seconds, watch_s))
