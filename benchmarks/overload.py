"""What a server does under far more load than it can carry, and two seconds later.

    python benchmarks/overload.py [--seconds 60] [--deadline 5] [--model tiny|resnet] [--times 10]

First the peak is measured, then requests arrive at `times` that rate, whatever becomes of the
earlier ones (open loop), then single requests show whether the server is itself again, and the peak is measured
once more: a machine's speed drifts within minutes, so what the flood left is compared with the mean of the two.
A connection that the server closed while it idled in the client's pool is counted, and never used again:
nothing was lost with it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import uvloop  # noqa: E402

from benchmarks.serving import load, models  # noqa: E402
from benchmarks.serving.pictures import photos, small_pngs  # noqa: E402
from benchmarks.serving.process import cpu_seconds, machine, server  # noqa: E402

PEAK_S = 10.0
TICK_S = 0.01  # requests due in so long are sent together: a client that wakes for each one takes the server's cores


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--deadline", type=float, default=5)
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--model", choices=("tiny", "resnet"), default="resnet")
    options = parser.parse_args()
    os.environ["VSSL_DEADLINE_S"] = str(options.deadline)
    with tempfile.TemporaryDirectory(prefix="vssl-bench-") as scratch:
        tiny = options.model == "tiny"
        path = Path(scratch) / "model.onnx"
        model = models.tiny_encoder(path) if tiny else models.resnet18(path)
        images = small_pngs() if tiny else photos(None)
        requests = [load.request("/embed", d, {"Content-Type": "image/png"}) for d in images]
        command = [sys.executable, "-m", "vssl", "serve", "--model", str(model), "--port"]
        with server(command) as (port, process):
            load.run(port, requests, connections=16, seconds=2)
            quiet = load.run(port, requests, connections=1, seconds=2)
            peak = load.run(port, requests, connections=16, seconds=PEAK_S)
            rate = len(peak.latencies) / peak.seconds
            print(
                f"before: one connection, p50 {1000 * quiet.quantile(0.5):.1f} ms; "
                f"peak: {rate:.1f} images/s, p99 {1000 * peak.quantile(0.99):.0f} ms"
            )
            before, stolen = cpu_seconds(process), stolen_seconds()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                over = runner.run(flood(port, requests, options.times * rate, options.seconds))
            share = (cpu_seconds(process) - before) / over.seconds
            stolen = (stolen_seconds() - stolen) / over.seconds
            kept = len(over.latencies) / over.seconds
            sent = sum(over.statuses.values()) + over.lost
            print(
                f"overload: {sent / options.seconds:.0f} requests/s sent for {options.seconds:.0f} s, answers "
                f"{dict(over.statuses)}, lost {over.lost}; "
                f"accepted {kept:.1f} images/s, "
                f"p50 {1000 * over.quantile(0.5):.0f} ms, p99 {1000 * over.quantile(0.99):.0f} ms; "
                f"server used {share:.2f} cores, other guests of the host {stolen:.2f}"
            )
            time.sleep(2)
            after = load.run(port, requests, connections=1, seconds=2)
            again = load.run(port, requests, connections=16, seconds=PEAK_S)
            usual = (rate + len(again.latencies) / again.seconds) / 2
            print(f"closed by the server while they idled: {over.stale} connections")
            print(
                f"2 s later, one connection: {dict(after.statuses)}, p50 {1000 * after.quantile(0.5):.1f} ms; "
                f"peak again: {len(again.latencies) / again.seconds:.1f} images/s; "
                f"the flood left {kept / usual:.0%} of the two peaks' mean"
            )
            others = sum(n for status, n in over.statuses.items() if status not in (200, 429)) + over.lost
            shown = {
                f"{sent / options.seconds / rate:.1f} times the peak was sent": sent / options.seconds
                >= 0.95 * options.times * rate,
                f"{others} answers other than 200 or 429": others == 0,
                f"p99 of the accepted under the deadline of {options.deadline:g} s": over.quantile(0.99)
                < options.deadline,
                "at least 80 % of the peak": kept >= 0.8 * usual,
                "2 s later as before (p50 within a half more)": set(after.statuses) == {200}
                and after.quantile(0.5) <= 1.5 * quiet.quantile(0.5),
            }
            for what, holds in shown.items():
                print(f"  {'yes' if holds else 'NO '}  {what}")
    print(machine() + "; client on the same machine")


def stolen_seconds() -> float:
    """Return the core seconds since boot in which this machine was ready to run and its host ran another one."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8]) / os.sysconf("SC_CLK_TCK")
    return 0.0


async def flood(port: int, requests: list[bytes], rate: float, seconds: float) -> load.Outcome:
    """Send at a fixed rate over a pool of keep-alive connections that grows as needed, up to 2000."""
    outcome = load.Outcome()
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    open_count = 0
    running: set[asyncio.Task[None]] = set()

    async def one(data: bytes) -> None:
        nonlocal open_count
        begun = time.perf_counter()
        try:
            reader, writer = free.pop() if free else (None, None)
            while reader is not None and reader.at_eof():
                outcome.stale += 1
                open_count -= 1
                reader, writer = free.pop() if free else (None, None)
            if reader is None or writer is None:
                open_count += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            outcome.lost += 1
            open_count -= 1
            return
        status = int(head[9:12])
        outcome.statuses[status] += 1
        if status == 200:
            outcome.latencies.append(time.perf_counter() - begun)
        free.append((reader, writer))

    begun = time.perf_counter()
    sent = 0
    while (now := time.perf_counter() - begun) < seconds:
        due = int(now * rate) - sent
        for _ in range(min(due, 2000 - len(running))):
            task = asyncio.create_task(one(requests[sent % len(requests)]))
            running.add(task)
            task.add_done_callback(running.discard)
            sent += 1
        sent = max(sent, int(now * rate) - 2000)  # what could not be sent in time is not sent later
        await asyncio.sleep(TICK_S)
    if running:
        await asyncio.wait(running, timeout=60)
    outcome.lost += len(running)
    outcome.seconds = time.perf_counter() - begun
    for _, writer in free:
        writer.close()
    return outcome


if __name__ == "__main__":
    main()
