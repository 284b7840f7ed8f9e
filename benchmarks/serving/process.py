"""A server to measure: started on a free port, its CPU seconds, its batches, its end."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def server(command: Sequence[str]) -> Iterator[tuple[int, psutil.Process]]:
    """Run a server on a free port until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {"VSSL_DRAIN_S": "0", **os.environ, "PYTHONPATH": path, "BENTOML_DO_NOT_TRACK": "true"}
    with tempfile.TemporaryFile() as log:
        started = subprocess.Popen([*command, str(port)], stdout=log, stderr=log, env=environment, cwd=ROOT)
        try:
            limit = time.monotonic() + 60
            while not answers(port):
                if started.poll() is not None or time.monotonic() > limit:
                    log.seek(0)
                    raise SystemExit(f"{command}: did not start\n{log.read().decode()[-2000:]}")
                time.sleep(0.1)
            yield port, psutil.Process(started.pid)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                family = [psutil.Process(started.pid)]
                family += family[0].children(recursive=True)
                started.send_signal(signal.SIGTERM)
                _, alive = psutil.wait_procs(family, timeout=15)
                for process in alive:  # LitServe ends without its own workers
                    process.kill()
            started.wait()


def answers(port: int) -> bool:
    """Tell whether a server answers HTTP and is ready, if it has a word for that."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
    except urllib.error.HTTPError as error:
        return error.code == 404
    except OSError:
        return False
    return True


def cpu_seconds(process: psutil.Process) -> float:
    """Return user + system seconds of a process and all below it."""
    total = 0.0
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def batch_sizes(port: int) -> dict[float, float]:
    """Return our own batch histogram (cumulative counts by upper bound); empty for other servers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    found = re.findall(r'vssl_batch_size_images_bucket\{le="([^"]+)"\} ([0-9.]+)', text)
    return {float(bound): float(count) for bound, count in found}


def described(before: dict[float, float], after: dict[float, float]) -> str:
    """Return the shares of batch sizes between two readings, the common ones first."""
    counts, last = {}, 0.0
    for bound in sorted(after):
        count = after[bound] - before.get(bound, 0.0)
        counts[bound], last = count - last, count
    total = sum(counts.values())
    if not total:
        return ""
    common = sorted(((n / total, b) for b, n in counts.items() if n), reverse=True)[:3]
    return ", ".join(f"<={b:g}: {share:.0%}" for share, b in common)


def machine() -> str:
    """Return what was measured on."""
    names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return (
        f"{len(names)} cores of {names[0]}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )
