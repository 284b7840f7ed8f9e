"""What a server does under far more load than it can carry, and two seconds later.

    python benchmarks/overload.py [--runs 1] [--seconds 60] [--deadline 5] [--model tiny|resnet] [--times 10]

First the peak is measured, then requests arrive at `times` that rate, whatever becomes of the
earlier ones (open loop), then single requests show whether the server is itself again, and the peak is measured
once more: a machine's speed drifts within minutes, so the throughput in the flood is compared with the mean of the two.
A connection that the server closed while it idled in the client's pool is counted, and never used again:
nothing was lost with it. Prints one table, one line a run, and which goals each run meets.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import uvloop  # noqa: E402

from benchmarks.serving import load, models  # noqa: E402
from benchmarks.serving.pictures import photos, small_pngs  # noqa: E402
from benchmarks.serving.process import machine, server  # noqa: E402

PEAK_S = 10.0
COLUMNS = (
    "run", "peak before, after", "sent/s", "200", "429", "others", "stale", "p50 s", "p99 s", "of the peak", "stolen",
)  # fmt: skip
TICK_S = 0.01  # requests due in so long are sent together: a client that wakes for each one takes the server's cores


@dataclass(frozen=True)
class Run:
    """One flood and what was measured around it; rates in images a second, times in seconds."""

    peaks: tuple[float, float]
    flood: load.Outcome
    quiet: load.Outcome
    after: load.Outcome
    sent_rate: float
    stolen: float

    @property
    def peak(self) -> float:
        """The mean of the peaks before and after the flood."""
        return statistics.mean(self.peaks)

    @property
    def rate(self) -> float:
        """Images that were answered a second during the flood."""
        return len(self.flood.latencies) / self.flood.seconds

    @property
    def others(self) -> int:
        """Requests with an answer other than 200 or 429, or none."""
        return (
            sum(n for status, n in self.flood.statuses.items() if status not in (200, 429)) + self.flood.lost
        )

    def goals(self, times: float, deadline_s: float) -> dict[str, bool]:
        """Return what is asked of a server, and whether it holds."""
        return {
            f"{times:g} times the peak was sent": self.sent_rate >= 0.95 * times * self.peaks[0],
            "only 200 and 429": self.others == 0,
            f"p99 under {deadline_s:g} s": self.flood.quantile(0.99) < deadline_s,
            "at least 80 % of the peak": self.rate >= 0.8 * self.peak,
            "2 s later as before (p50 within a half more)": set(self.after.statuses) == {200}
            and self.after.quantile(0.5) <= 1.5 * self.quiet.quantile(0.5),
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--deadline", type=float, default=5)
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--model", choices=("tiny", "resnet"), default="resnet")
    options = parser.parse_args()
    os.environ["VSSL_DEADLINE_S"] = str(options.deadline)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    missed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="vssl-bench-") as scratch:
        tiny, path = options.model == "tiny", Path(scratch) / "model.onnx"
        model = models.tiny_encoder(path) if tiny else models.resnet18(path)
        requests = [
            load.request("/embed", data, {"Content-Type": "image/png"})
            for data in (small_pngs() if tiny else photos(None))
        ]
        for number in range(1, options.runs + 1):
            run = measure(model, requests, options.times, options.seconds)
            print_row(number, run)
            goals = run.goals(options.times, options.deadline)
            missed += [f"run {number}: NOT {goal}" for goal, holds in goals.items() if not holds]
    print("\n" + ("\n".join(missed) or "all goals are met in every run"))
    print(machine() + "; client on the same machine")


def measure(model: Path, requests: list[bytes], times: float, seconds: float) -> Run:
    """Start a server, measure its peak, flood it, look at it two seconds later."""
    command = [sys.executable, "-m", "vssl", "serve", "--model", str(model), "--port"]
    with server(command) as (port, _):
        load.run(port, requests, connections=16, seconds=2)
        quiet = load.run(port, requests, connections=1, seconds=2)
        before = load.run(port, requests, connections=16, seconds=PEAK_S)
        rate = len(before.latencies) / before.seconds
        stolen = stolen_seconds()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            over = runner.run(flood(port, requests, times * rate, seconds))
        stolen = (stolen_seconds() - stolen) / over.seconds
        time.sleep(2)
        after = load.run(port, requests, connections=1, seconds=2)
        again = load.run(port, requests, connections=16, seconds=PEAK_S)
    sent = sum(over.statuses.values()) + over.lost
    return Run((rate, len(again.latencies) / again.seconds), over, quiet, after, sent / seconds, stolen)


def print_row(number: int, run: Run) -> None:
    """Print one line of the table."""
    flood = run.flood
    cells = (
        f"{run.peaks[0]:.1f}, {run.peaks[1]:.1f}", f"{run.sent_rate:.0f}", flood.statuses[200], flood.statuses[429],
        run.others, flood.stale, f"{flood.quantile(0.5):.2f}", f"{flood.quantile(0.99):.2f}",
        f"{run.rate / run.peak:.0%}", f"{run.stolen:.2f} cores",
    )  # fmt: skip
    print(f"| {number} | {' | '.join(map(str, cells))} |", flush=True)


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
