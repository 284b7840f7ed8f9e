"""A server's end under load, from outside: whoever was let in is answered, whoever is late is refused."""

from __future__ import annotations

import http.client
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from serve.supervisor import stop_handshakes
from tests.serve.http.conftest import encoded
from tests.serve.running import VSSL, running, workers_of
from tests.tiny_model import tiny_model

BENTOML = [sys.executable, "-m", "bentoml", "serve", "serve.service:Vssl", "--host", "127.0.0.1"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="handshakes are stopped on Linux only")


@linux
@pytest.mark.parametrize("command", [[*VSSL, "serve"], BENTOML], ids=["vssl", "bentoml"])
@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_under_load_loses_no_request(tmp_path: Path, command: list[str], workers: int) -> None:
    model = tiny_model(tmp_path / "model.onnx")
    environment = {"VSSL_MODEL": str(model), "VSSL_WORKERS": str(workers), "VSSL_THREADS": "1"}
    options = ["--workers", str(workers), "--model", str(model)] if command[-1] == "serve" else []
    with running(options, tmp_path, environment=environment, command=command) as server:
        assert len(workers_of(server, workers)) == workers
        outcome: Counter[str] = Counter()
        clients = [
            threading.Thread(target=ask_until_refused, args=(server.url, outcome), daemon=True)
            for _ in range(12)
        ]
        for client in clients:
            client.start()
        time.sleep(2)
        assert server.terminate() == 0
        for client in clients:
            client.join(timeout=20)
    assert outcome["200"] > 12
    assert set(outcome) == {"200", "ConnectionRefusedError"}
    assert outcome["ConnectionRefusedError"] == len(clients)


def ask_until_refused(url: str, outcome: Counter[str]) -> None:
    """Ask without a pause, connecting anew at once where the server closes; count what comes of it."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    data = encoded(1)
    while True:
        try:
            connection.request("POST", "/embed", data)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            outcome[type(error).__name__] += 1
            connection.close()
            if isinstance(error, ConnectionRefusedError):
                return
        else:
            outcome[str(answer.status)] += 1


@linux
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_after_its_handshakes_are_stopped_a_socket_only_gives_who_was_there(
    family: socket.AddressFamily, host: str
) -> None:
    with socket.socket(family) as listening:
        try:
            listening.bind((host, 0))
        except OSError:
            pytest.skip(f"no {host} here")
        listening.listen()
        address = listening.getsockname()[:2]
        with socket.create_connection(address) as early:
            early.sendall(b"first")
            stop_handshakes(listening)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.3)
            connection, _ = listening.accept()
            with connection:
                early.sendall(b", second")
                time.sleep(0.1)
                assert connection.recv(100) == b"first, second"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
