"""Run a real Triton server over a model repository, on free ports, and end it by its process id.

The server comes from a wheel, in an environment of its own that `make triton` sets up: it runs
Python models and has no onnxruntime backend.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.serve.running import free_port

VENV = Path(os.environ.get("TRITON_VENV") or Path(__file__).resolve().parents[2] / ".triton").resolve()
START_S = 180  # a busy machine takes long to start a Python for each model


@dataclass(frozen=True)
class Triton:
    """A server that has loaded its models: addresses, process, log file."""

    grpc: str
    http: str
    process: subprocess.Popen[bytes]
    log: Path

    def url(self, model: str) -> str:
        return f"triton://{self.grpc}/{model}"

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def clients() -> tuple[Any, Any]:
    """Return tritonclient's modules for gRPC and HTTP, whose imports warn of things that are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tritonclient import grpc, http
    return grpc, http


def need_triton() -> None:
    """Skip a test where there is no Triton server; fail it where one is required."""
    if (VENV / ".ready").exists():
        return
    reason = f"no Triton server in {VENV.name}; set it up with: make triton"
    if os.environ.get("VSSL_REQUIRE_TRITON"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextlib.contextmanager
def triton_server(
    repository: Path, *, polling: bool = False, ports: tuple[int, int] | None = None
) -> Iterator[Triton]:
    """Serve a repository until the block ends; `polling` takes up changes within a second."""
    need_triton()
    grpc_port, http_port = ports or (free_port(), free_port())
    (package,) = VENV.glob("lib/python3*/site-packages")
    server = package / "pytriton" / "tritonserver"
    command = [
        str(server / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={server / 'backends'}",
        "--http-address=127.0.0.1",
        f"--http-port={http_port}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc_port}",
        "--allow-metrics=false",
        f"--backend-config=python,shm-region-prefix-name=vssl_{grpc_port}_",
        *(["--model-control-mode=poll", "--repository-poll-secs=1"] if polling else []),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {
        "PATH": f"{VENV / 'bin'}:/usr/bin:/bin",
        "LD_LIBRARY_PATH": str(package / "nvidia_pytriton.libs"),
        "OMP_NUM_THREADS": "1",
    }
    log = repository.parent / f"triton-{grpc_port}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    running = Triton(f"127.0.0.1:{grpc_port}", f"127.0.0.1:{http_port}", process, log)
    try:
        wait_ready(running)
        yield running
    finally:
        running.stop()


def wait_ready(server: Triton, model: str = "", version: str = "") -> None:
    """Wait until the server, or one version of a model, answers that it is ready."""
    grpc, _ = clients()
    limit = time.monotonic() + START_S
    client = grpc.InferenceServerClient(server.grpc)
    try:
        while time.monotonic() < limit and server.process.poll() is None:
            with contextlib.suppress(grpc.InferenceServerException):
                if client.is_model_ready(model, version) if model else client.is_server_ready():
                    return
            time.sleep(0.05)
    finally:
        client.close()
    told = [line for line in server.log.read_text().splitlines() if line[:1] not in "|+"]
    raise RuntimeError("\n".join(["Triton did not come up:", *told]))
