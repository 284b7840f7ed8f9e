"""A worker whose supervisor was killed ends by itself, and its port is free again."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from serve.orphans import VARIABLE, Parent
from tests.serve.running import VSSL, running, workers_of
from tests.tiny_model import tiny_model

BENTOML = [sys.executable, "-m", "bentoml", "serve", "serve.service:Vssl", "--host", "127.0.0.1"]


@pytest.mark.parametrize("command", [[*VSSL, "serve"], BENTOML], ids=["vssl", "bentoml"])
def test_no_worker_outlives_its_supervisor(tmp_path: Path, command: list[str]) -> None:
    model = tiny_model(tmp_path / "model.onnx")
    options = ["--model", str(model)] if command[-1] == "serve" else []
    with running(options, tmp_path, environment={"VSSL_MODEL": str(model)}, command=command) as server:
        workers = workers_of(server, 1)
        server.process.kill()
        server.process.wait()
        _, alive = psutil.wait_procs(workers, timeout=15)
        for worker in alive:
            worker.kill()
        assert not alive
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", int(server.url.rpartition(":")[2])))


def test_who_begins_as_an_orphan_knows_it() -> None:
    """The process in between ends before its child has looked who its parent is."""
    child = (
        f"import os, time; supervisor = int(os.environ[{VARIABLE!r}])\n"
        "while os.getppid() == supervisor: time.sleep(0.01)\n"
        "from serve.orphans import Parent; print(os.getppid() == 1, Parent().gone)"
    )
    between = (
        "import subprocess, sys; from serve.orphans import announce; announce();"
        f"subprocess.Popen([sys.executable, '-c', {child!r}])"
    )
    command = [sys.executable, "-c", between]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    adopted, gone = done.stdout.split()
    if adopted != "True":
        pytest.skip("orphans are adopted by another process than init here")
    assert gone == "True"


def test_a_process_with_its_parent_is_no_orphan(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Parent().gone
    monkeypatch.setenv(VARIABLE, "999999")  # left behind by another server
    assert not Parent().gone
