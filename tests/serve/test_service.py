"""The service from outside: how it starts, refuses to start, asks for keys and ends."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.serve.http.conftest import encoded, make_gallery
from tests.serve.running import VSSL, free_port, running, wait_ready, workers_of
from tests.tiny_model import tiny_model


def refused(*arguments: str) -> str:
    """Run `vssl serve` that must not start; return its message."""
    done = subprocess.run(
        [*VSSL, "serve", *arguments, "--port", str(free_port())], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_importing_the_service_loads_no_torch_and_no_faiss() -> None:
    code = (
        "import sys, serve.service; "
        "print([m for m in ('torch', 'torchvision', 'onnx', 'faiss', 'train', 'export') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bentoml_serves_the_same_service(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx")
    command = [sys.executable, "-m", "bentoml", "serve", "serve.service:Vssl", "--host", "127.0.0.1"]
    with running([], tmp_path, environment={"VSSL_MODEL": str(model)}, command=command) as server:
        assert httpx.get(f"{server.url}/livez").json() == {"status": "alive"}
        assert httpx.post(f"{server.url}/embed", content=encoded(1)).status_code == 200
        assert httpx.post(f"{server.url}/search", content=encoded(1)).json()["error"]["code"] == "no_gallery"
        assert server.terminate() == 0


def test_it_says_where_it_listens_and_warns_of_a_raw_variance(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx", calibration="none")
    with running(["--model", str(model)], tmp_path) as server:
        said = server.log.read_text()
    assert f"{server.url}/ui" in said
    assert "curl --data-binary @photo.jpg" in said
    assert "calibration none" in said


def test_a_key_is_asked_for_where_one_is_set(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# two people\nfirst-key\n\nsecond-key\n")
    model = tiny_model(tmp_path / "model.onnx")
    with running(["--model", str(model), "--api-key-file", str(keys)], tmp_path) as server:
        url = f"{server.url}/embed"
        bare = httpx.post(url, content=encoded(1))
        assert (bare.status_code, bare.json()["error"]["code"]) == (401, "invalid_api_key")
        assert bare.headers["www-authenticate"] == "Bearer"
        assert httpx.post(url, content=encoded(1), headers={"X-API-Key": "first-ke"}).status_code == 401
        for headers in ({"X-API-Key": "first-key"}, {"Authorization": "Bearer second-key"}):
            assert httpx.post(url, content=encoded(1), headers=headers).status_code == 200
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert httpx.get(f"{server.url}/livez").status_code == 200


def test_what_was_accepted_is_answered_before_the_end(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx")
    answers: list[int] = []
    with running(["--model", str(model)], tmp_path) as server:

        def slowly() -> object:
            data = encoded(1)
            for start in range(0, len(data), 1000):
                time.sleep(0.05)
                yield data[start : start + 1000]

        def ask() -> None:
            answers.append(httpx.post(f"{server.url}/embed", content=slowly(), timeout=30).status_code)  # type: ignore[arg-type]

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.1)
        assert server.terminate() == 0
        asking.join()
    assert answers == [200]


def test_a_missing_or_broken_model_refuses_with_what_to_type(tmp_path: Path) -> None:
    assert "vssl export" in refused("--model", str(tmp_path / "absent.onnx"))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(tiny_model(tmp_path / "model.onnx").read_bytes()[:-2000])
    assert "vssl export" in refused("--model", str(broken))


def test_a_gallery_of_another_model_is_refused(tmp_path: Path) -> None:
    from serve.inference.engine import Engine

    one, other = tiny_model(tmp_path / "one.onnx"), tiny_model(tmp_path / "other.onnx", seed=1)
    make_gallery(tmp_path, Engine.open(one, threads=1))
    message = refused("--model", str(other), "--gallery", str(tmp_path / "gallery"))
    assert "vssl index" in message


def test_an_address_that_cannot_be_listened_on_is_refused(tmp_path: Path) -> None:
    model = str(tiny_model(tmp_path / "model.onnx"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*VSSL, "serve", "--model", model, "--port", port], capture_output=True, text=True
        )
    assert done.returncode == 1
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr
    assert "--host" in refused("--model", model, "--host", "example.org")


def test_an_empty_key_file_is_refused(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx")
    keys = tmp_path / "keys"
    keys.write_text("# nothing\n")
    assert "no API key" in refused("--model", str(model), "--api-key-file", str(keys))


def test_two_workers_share_the_port_and_the_counts(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx")
    with running(["--model", str(model), "--workers", "2", "--threads", "1"], tmp_path) as server:
        for n in range(20):
            assert httpx.post(f"{server.url}/embed", content=encoded(n % 3)).status_code == 200
        assert len(workers_of(server, 2)) == 2
        # the counts of the worker that does not answer this are at most a second old
        wait_for(server.url, 'vssl_requests_total{route="/embed",status="200"} 20')


@pytest.mark.parametrize(("variable", "value"), [("VSSL_MAX_ITEMS", "many"), ("VSSL_DEADLINE_S", "0")])
def test_a_wrong_setting_is_named(
    tmp_path: Path, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert variable in refused("--model", str(tiny_model(tmp_path / "model.onnx")))


def test_a_replaced_model_is_taken_up_without_a_failed_request(tmp_path: Path) -> None:
    model, other = tiny_model(tmp_path / "model.onnx"), tiny_model(tmp_path / "other.onnx", seed=1)
    statuses: set[int] = set()
    ids: list[str] = []
    stop = threading.Event()
    with running(["--model", str(model)], tmp_path) as server:

        def ask() -> None:
            with httpx.Client() as client:
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
            wait_for(server.url, 'vssl_model_reloads_total{outcome="refused"} 1')
            other.replace(model)
            wait_for(server.url, 'vssl_model_reloads_total{outcome="done"} 1')
            time.sleep(0.2)
        finally:
            stop.set()
            asking.join()
        assert httpx.get(f"{server.url}/readyz").json()["model_id"] == ids[-1]
    assert statuses == {200}
    assert len(ids) == 2


def wait_for(url: str, line: str) -> None:
    limit = time.monotonic() + 30
    while line not in httpx.get(f"{url}/metrics").text:
        assert time.monotonic() < limit, line
        time.sleep(0.1)


def test_a_killed_worker_is_seen_and_replaced(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx")
    with running(["--model", str(model)], tmp_path) as server:
        httpx.post(f"{server.url}/embed", content=encoded(1))
        time.sleep(1.5)  # its counts are saved once a second
        (worker,) = [
            p for p in psutil.Process(server.process.pid).children() if "worker" in " ".join(p.cmdline())
        ]
        worker.kill()
        wait_ready(server)
        text = httpx.get(f"{server.url}/metrics").text
    assert "vssl_worker_deaths_total 1" in text
    assert 'vssl_requests_total{route="/embed",status="200"} 1' in text


def test_slow_clients_are_cut_and_requests_are_logged_with_their_id(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx")
    environment = {"VSSL_BODY_TIMEOUT_S": "0.5"}
    with running(["--model", str(model), "--log", "json"], tmp_path, environment=environment) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as slow:
            slow.sendall(
                b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nX-Request-ID: slow-1\r\n\r\nab"
            )
            assert httpx.post(f"{server.url}/embed", content=encoded(1)).status_code == 200  # others go on
            assert slow.recv(4096).startswith(b"HTTP/1.1 408")
        answer = httpx.post(
            f"{server.url}/embed", content=encoded(1), headers={"Origin": "https://elsewhere"}
        )
        assert not [name for name in answer.headers if name.startswith("access-control")]
    log = server.log.read_text()  # whole once the server has ended: a line may come after its answer
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    by_id = {line["request_id"]: line for line in lines}
    assert by_id["slow-1"]["status"] == 408
    logged = by_id[answer.headers["x-request-id"]]
    assert (logged["status"], logged["route"]) == (200, "/embed")
    assert set(logged["stages"]) == {"read", "decode", "queue", "inference", "serialise"}
