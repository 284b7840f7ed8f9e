"""The service from outside: how it starts, refuses to start, asks for keys and ends."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.serve.http.conftest import encoded
from tests.serve.running import (
    PATIENCE_S,
    VSSL,
    Running,
    get,
    post,
    running,
    until,
    wait_for_metric,
    wait_ready,
    workers_of,
)
from tests.support.tiny_model import tiny_model

BENTOML = [sys.executable, "-m", "bentoml", "serve", "serve.service:Vssl", "--host", "127.0.0.1"]


def test_importing_the_service_loads_no_torch_and_no_faiss() -> None:
    code = (
        "import sys, serve.service; "
        "print([m for m in ('torch', 'torchvision', 'onnx', 'faiss', 'train', 'export') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("tracing", ["0", "1"])
def test_bentoml_serves_the_same_service(tmp_path: Path, tracing: str) -> None:
    environment = {"VSSL_MODEL": str(tiny_model(tmp_path / "model.onnx")), "VSSL_TRACING": tracing}
    with running([], tmp_path, environment=environment, command=BENTOML) as server:
        assert get(f"{server.url}/livez").json() == {"status": "alive"}
        assert post(f"{server.url}/embed", content=encoded(1)).status_code == 200
        assert post(f"{server.url}/search", content=encoded(1)).json()["error"]["code"] == "no_gallery"
        assert server.terminate() == 0


def test_a_key_is_asked_for_where_one_is_set(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# two people\nfirst-key\n\nsecond-key\n")
    model = tiny_model(tmp_path / "model.onnx")
    with running(["--model", str(model), "--api-key-file", str(keys)], tmp_path) as server:
        url = f"{server.url}/embed"
        bare = post(url, content=encoded(1))
        assert (bare.status_code, bare.json()["error"]["code"]) == (401, "invalid_api_key")
        assert bare.headers["www-authenticate"] == "Bearer"
        assert post(url, content=encoded(1), headers={"X-API-Key": "first-ke"}).status_code == 401
        for headers in ({"X-API-Key": "first-key"}, {"Authorization": "Bearer second-key"}):
            assert post(url, content=encoded(1), headers=headers).status_code == 200
        assert get(f"{server.url}/metrics").status_code == 401
        assert get(f"{server.url}/livez").status_code == 200


@pytest.mark.parametrize("command", [[*VSSL, "serve"], BENTOML], ids=["vssl", "bentoml"])
def test_what_was_accepted_is_answered_before_the_end(tmp_path: Path, command: list[str]) -> None:
    model, data = tiny_model(tmp_path / "model.onnx"), encoded(1)
    options = ["--model", str(model)] if command != BENTOML else []
    with running(options, tmp_path, environment={"VSSL_MODEL": str(model)}, command=command) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=PATIENCE_S)
        connection.putrequest("POST", "/embed")
        connection.putheader("Content-Length", str(len(data)))
        connection.putheader("Expect", "100-continue")
        connection.endheaders()
        assert b"100 Continue" in connection.sock.recv(100)  # the application reads the body
        server.process.send_signal(signal.SIGTERM)
        until(lambda: is_refused(server))
        connection.send(data)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        assert answer.status == 200
        assert server.process.wait(timeout=PATIENCE_S) == 0


def is_refused(server: Running) -> bool:
    """Whether a new connection is not answered any more."""
    try:
        get(f"{server.url}/livez", timeout=1)
    except httpx.TransportError:
        return True
    return False


def test_two_workers_share_the_port_and_the_counts(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx")
    with running(["--model", str(model), "--workers", "2", "--threads", "1"], tmp_path) as server:
        assert len(workers_of(server, 2)) == 2
        for n in range(20):
            assert post(f"{server.url}/embed", content=encoded(n % 3)).status_code == 200
        # the counts of the worker that does not answer this are at most a second old
        wait_for_metric(server, 'vssl_requests_total{route="/embed",status="200"} 20')


def test_a_replaced_model_is_taken_up_without_a_failed_request(tmp_path: Path) -> None:
    model, other = tiny_model(tmp_path / "model.onnx"), tiny_model(tmp_path / "other.onnx", seed=1)
    statuses: set[int] = set()
    ids: list[str] = []
    stop = threading.Event()
    with running(["--model", str(model)], tmp_path) as server:

        def ask() -> None:
            with httpx.Client(timeout=PATIENCE_S) as client:
                while not stop.is_set():
                    answer = client.post(f"{server.url}/embed", content=encoded(1))
                    statuses.add(answer.status_code)
                    if not ids or ids[-1] != answer.json()["model_id"]:
                        ids.append(answer.json()["model_id"])

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            broken = tmp_path / "broken.onnx"
            broken.write_bytes(b"no model")
            broken.replace(model)  # refused: the old one goes on
            wait_for_metric(server, 'vssl_model_reloads_total{outcome="refused"} 1')
            other.replace(model)
            wait_for_metric(server, 'vssl_model_reloads_total{outcome="done"} 1')
            until(lambda: len(ids) == 2)
        finally:
            stop.set()
            asking.join()
        assert get(f"{server.url}/readyz").json()["model_id"] == ids[-1]
    assert statuses == {200}
    assert len(ids) == 2


def test_a_killed_worker_is_seen_and_replaced(tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    counts.mkdir()
    environment = {
        "VSSL_MODEL": str(tiny_model(tmp_path / "model.onnx")),
        "VSSL_METRICS_FOLDER": str(counts),
    }
    with running([], tmp_path, environment=environment, command=BENTOML) as server:
        (worker,) = workers_of(server, 1)
        post(f"{server.url}/embed", content=encoded(1))
        until(lambda: any("/embed" in file.read_text() for file in counts.glob("*.json")))
        worker.kill()
        wait_ready(server)
        text = get(f"{server.url}/metrics").text
    assert "vssl_worker_deaths_total 1" in text
    assert 'vssl_requests_total{route="/embed",status="200"} 1' in text


def test_an_idle_connection_stays_as_long_as_the_settings_say(tmp_path: Path) -> None:
    model, environment = tiny_model(tmp_path / "model.onnx"), {"VSSL_KEEP_ALIVE_S": "1"}
    with running(["--model", str(model)], tmp_path, environment=environment) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as client:
            begun = time.monotonic()
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert (answer.status, answer.read()) == (200, b'{"status":"alive"}')
            assert client.recv(4096) == b""  # the default would keep it for two minutes
            assert time.monotonic() - begun > 0.5


def in_one_piece(server: Running, headers: bytes) -> http.client.HTTPResponse:
    """Post an image whose bytes come together with the head: the server never waits for them."""
    host, port = server.url.removeprefix("http://").split(":")
    data = encoded(1)
    head = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n" % (len(data), headers)
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as client:
        client.sendall(head + data)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        answer.read()
    return answer


def test_slow_clients_are_cut_and_requests_are_logged_with_their_id(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx")
    environment = {"VSSL_BODY_TIMEOUT_S": "0.5"}
    with running(["--model", str(model), "--log", "json"], tmp_path, environment=environment) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as slow:
            slow.sendall(
                b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nX-Request-ID: slow-1\r\n\r\nab"
            )
            assert in_one_piece(server, b"").status == 200  # others go on
            assert slow.recv(4096).startswith(b"HTTP/1.1 408")
        answer = in_one_piece(server, b"Origin: https://elsewhere\r\n")
        assert not [name for name, _ in answer.getheaders() if name.startswith("access-control")]
    log = server.log.read_text()  # whole once the server has ended: a line may come after its answer
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    by_id = {line["request_id"]: line for line in lines}
    assert by_id["slow-1"]["status"] == 408
    logged = by_id[answer.headers["x-request-id"]]
    assert (logged["status"], logged["route"]) == (200, "/embed")
    assert set(logged["stages"]) == {"read", "decode", "queue", "inference", "serialise"}
